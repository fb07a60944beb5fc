"""Mail that is none of ours: not a header field of it is fetched, and not a byte is changed."""

import socket
import struct
import threading
from contextlib import suppress

import pytest

from lab.base import scratch
from lab.milter import Milter

CONFIG = """
unrouted_to: it@solarmora.com
spam: amavis
rules:
  - {name: support, match: help@solarmora.com, replace_with: support@crm.example}
"""
ALIASES = {
    "help@solarmora.com": "it@solarmora.com",
    "list@solarmora.com": "a@a.example b@b.example",
}
HELP = "<help@solarmora.com>"
ALICE = "<alice@solarmora.com>"
JOE = "<joe@client.example>"
TEXT = b"From: joe@client.example\nSubject: x\nX-Spam-Flag: NO\n\nhello\n"


class Tap:
    """Stands between Postfix and a milter and notes the packets: direction, command, content."""

    def __init__(self, milter):
        self.packets = []
        self._milter = str(milter.socket)
        path = scratch() / "tap"
        self.address = f"unix:{path}"
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        path.chmod(0o777)
        self._listener.listen()
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        with suppress(OSError):
            while True:
                postfix, _ = self._listener.accept()
                milter = socket.socket(socket.AF_UNIX)
                milter.connect(self._milter)
                threading.Thread(target=self._relay, args=(postfix, milter), daemon=True).start()

    def _relay(self, postfix, milter):
        answers = threading.Thread(target=self._pump, args=(milter, postfix, "<"))
        with postfix, milter:
            answers.start()
            self._pump(postfix, milter, ">")
            answers.join()

    def _pump(self, source, target, direction):
        unread = b""
        with suppress(OSError):
            while chunk := source.recv(1 << 16):
                unread += chunk
                while len(unread) >= 4 and len(unread) >= 4 + (n := _length(unread)):
                    self.packets.append((direction + unread[4:5].decode(), unread[5 : 4 + n]))
                    unread = unread[4 + n :]
                target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)

    def commands(self):
        """The packets of the last message, without macros."""
        kinds = [kind for kind, _ in self.packets if kind != ">D"]
        start = max(number for number, kind in enumerate(kinds) if kind == ">M")
        return "".join(kinds[start:])

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def _length(packet):
    return struct.unpack("!L", packet[:4])[0]


@pytest.fixture(scope="module")
def tapped(make_module_lab):
    """A lab whose Postfix talks to its milter through a tap, and the tap."""
    with Milter(CONFIG) as milter:
        tap = Tap(milter)
        setting = f"{{ {tap.address}, default_action=tempfail }}"
        yield (
            make_module_lab(
                smtpd_milters=setting, non_smtpd_milters=setting, virtual_alias_maps=ALIASES
            ),
            tap,
        )
        tap.close()


@pytest.mark.parametrize("rcpts", [[ALICE], ["<list@solarmora.com>"], [ALICE, "<bob@b.example>"]])
def test_nothing_is_fetched_of_a_message_without_a_match(tapped, rcpts):
    lab, tap = tapped
    lab.fresh()
    assert lab.send(JOE, rcpts, TEXT).sent.reply.code == 250
    assert tap.commands().startswith(">M" + ">R" * len(rcpts) + ">T<a")
    assert not {">L", ">N", ">B", ">E"} & {tap.commands()[i : i + 2] for i in range(0, 20, 2)}
    assert b"client.example" in dict(tap.packets)[">M"]


def test_the_header_is_fetched_of_a_message_with_a_match_and_the_body_never(tapped):
    lab, tap = tapped
    lab.fresh()
    lab.send(JOE, [ALICE, HELP], TEXT)
    assert tap.commands().startswith(">M>R>R>T<c>L>L>L>")
    assert ">E<2<-<c" in tap.commands()
    assert ">B" not in tap.commands()


def test_nothing_is_fetched_of_local_mail_without_a_match(tapped):
    lab, tap = tapped
    lab.fresh()
    lab.postfix.sendmail("-f", "joe@client.example", "alice@solarmora.com", stdin=TEXT)
    lab.sink.wait(1)
    assert tap.commands().startswith(">M>R>T<a")


@pytest.fixture(scope="module")
def _lab(make_module_lab):
    services = {"plain": {"smtpd_milters": ""}}
    main = {"message_size_limit": "20000000"}
    return make_module_lab(CONFIG, virtual_alias_maps=ALIASES, services=services, main=main)


@pytest.fixture
def lab(_lab):
    _lab.fresh()
    return _lab


MESSAGES = {
    "ordinary": TEXT,
    "ours, forged": b"X-CRM-Milter: 0123456789abcdef\n" + TEXT,
    "no header": b"\nhello\n",
    "no body": b"Subject: x\n",
    "empty": b"\n",
    "no header fields but text": b"hello\n\nhello\n",
    "8-bit": b"Subject: \xe4\xf6\xfc \xff\nX-\xe9: y\n\n\xe4\xff\x80\n",
    "odd header": b"Subject:x\nX-Space : y\nX-Tab:\ty\nX-Trail: y  \nX-Empty:\nX-F:\n 1\n\t2\n\n",
    "duplicates": b"Subject: a\nSubject: b\nFrom: x\nFrom: y\n\nhello\n",
    "dots": b"Subject: x\n\n.\n..\n.a\n\n\n.\n",
    "long lines": b"Subject: " + b"x" * 900 + b"\n\n" + b"y" * 900 + b"\n",
    "a thousand fields": b"".join(b"X-%d: y\n" % n for n in range(1000)) + b"\nhello\n",
    "100 kB of header": b"X-Long: " + b"y" * 60 + b"\n\tyyyy" * 14_000 + b"\n\nhello\n",
    "a large body": b"Subject: x\n\n" + b"0123456789abcdef\n" * 100_000,
}
ENVELOPES = {
    "one": (JOE, [ALICE]),
    "three": (JOE, [ALICE, "<Bob@B.example>", "<carol+x@c.example>"]),
    "an alias": (JOE, ["<list@solarmora.com>", ALICE]),
    "null sender": ("<>", [ALICE]),
    "8-bit MIME": (JOE + " BODY=8BITMIME", [ALICE]),
    "UTF-8": ("<jö@client.example> SMTPUTF8", ["<älice@grüße.example>"]),
    "notifications": (
        JOE + " RET=HDRS ENVID=x+2By",
        [ALICE + " NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+2Bb@x.example", "<b@b.example>"],
    ),
    "odd spellings": ("joe@client.example", ["<@r:alice@x.example>", '<"bob"@x.example>', "<c>"]),
}  # fmt: skip


def _seen(outcome):
    """All that the next hop got, but for the time and queue id in the topmost Received."""
    return sorted(
        (each.rcpt.raw, each.delivery.mail_from, each.delivery.message)
        for each in outcome.received
        if each.sender or each.recipient.startswith("alice")
    )


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_are_the_same_with_and_without_the_milter(lab, message):
    without = lab.send(JOE, [ALICE], MESSAGES[message], service="plain")
    with_milter = lab.send(JOE, [ALICE], MESSAGES[message])
    assert with_milter.sent.reply.code == without.sent.reply.code == 250
    assert _seen(with_milter) == _seen(without)
    assert len(_seen(without)) == 1
    assert with_milter.log == []


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_envelopes_are_the_same_with_and_without_the_milter(lab, envelope):
    sender, rcpts = ENVELOPES[envelope]
    without = lab.send(sender, rcpts, TEXT, service="plain")
    with_milter = lab.send(sender, rcpts, TEXT)
    assert [reply.code for reply in with_milter.sent.rcpt_replies] == [250] * len(rcpts)
    assert _seen(with_milter) == _seen(without)
    assert with_milter.recipients == without.recipients


def test_local_mail_is_the_same_with_and_without_the_milter(lab, plain_lab):
    text = b"From: joe@client.example\nDate: today\nMessage-Id: <1@client.example>\nX-\xe4: y\n"
    text += b"\n.\nhello \xff\n"
    got = []
    for each in (lab, plain_lab):
        each.postfix.sendmail("-i", "-f", "joe@client.example", "alice@solarmora.com", stdin=text)
        (received,) = each.sink.wait(1)
        got.append((received.rcpt, received.sender, received.delivery.message))
    assert got[0] == got[1]
