"""Whatever goes wrong: 451 or normal service, never unrouted delivery, never loss."""

import os
import signal
from pathlib import Path

import pytest

from lab import smtp
from lab.milter import program

HELP = "<help@solarmora.com>"
ALICE = "<alice@solarmora.com>"
JOE = "<joe@client.example>"
TEXT = b"From: joe@client.example\nSubject: x\nX-Spam-Flag: NO\n\nhello\n"
CONFIG = """
unrouted_to: it@solarmora.com
spam: amavis
rules:
  - name: support
    match: help@solarmora.com
    replace_with: support@crm.example
    also_deliver_to: [team@solarmora.com]
"""
ALIASES = {"help@solarmora.com": "it@solarmora.com"}
OURS = ["support@crm.example", "team@solarmora.com"]

FAULTS = Path(__file__).parents[1] / "wire" / "faults"


@pytest.fixture(scope="module")
def _faulty(make_module_lab):
    """A lab whose milter fails where the sitecustomize.py in that folder says."""
    path = ":".join(filter(None, [str(FAULTS), os.environ.get("PYTHONPATH")]))
    command = ("env", f"PYTHONPATH={path}", *program())
    # A fault that is answered by silence takes the full time: 30 s and more without these.
    settings = {"command_timeout": "4s", "content_timeout": "4s"}
    lab = make_module_lab(
        CONFIG, milter_command=command, milter_settings=settings, virtual_alias_maps=ALIASES
    )
    assert "sitecustomize" not in lab.milter.logfile.path.read_text()
    return lab


@pytest.fixture
def faulty(_faulty):
    _faulty.fresh()
    return _faulty


FAULTY = {
    "decision": ("<raise@x.example>", [HELP, ALICE]),
    "decision, for help@ alone": ("<raise@x.example>", [HELP]),
    "additions": ("<add@x.example>", [HELP, ALICE]),
    "removals": ("<delete@x.example>", [HELP, ALICE]),
    "recipient": (JOE, ["<boom@solarmora.com>"]),
    "recipient, before a match": (JOE, ["<boom@solarmora.com>", HELP]),
    "recipient, after a match": (JOE, [HELP, "<boom@solarmora.com>", ALICE]),
    "sender": ("<boom@solarmora.com>", [HELP, ALICE]),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_a_fault_is_answered_with_451_and_nothing_is_delivered(faulty, fault):
    sender, rcpts = FAULTY[fault]
    with smtp.Session(faulty.postfix.port) as session:
        sent = session.transaction(sender, rcpts, TEXT)
        assert sent.reply.code == 451
        assert "internal error" in sent.reply.text
        session.cmd("RSET")
        faulty.postfix.wait_empty_queue()
        assert faulty.sink.received == []
        # The next message of the same session is served.
        assert session.transaction(JOE, [HELP], TEXT).reply.code == 250
    faulty.postfix.wait_empty_queue()
    assert faulty.sink.recipients == OURS
    assert "error: " in faulty.milter.log()


def test_unmatched_mail_is_served_beside_faults(faulty):
    assert faulty.send("<raise@x.example>", [ALICE], TEXT).recipients == ["alice@solarmora.com"]


@pytest.fixture(scope="module")
def _lab(make_module_lab):
    return make_module_lab(
        CONFIG,
        virtual_alias_maps=ALIASES,
        milter_settings={"content_timeout": "4s"},
        services={
            "old": {"milter_protocol": "2"},
            "bytes": {"smtputf8_enable": "no"},
        },
    )


@pytest.fixture
def lab(_lab):
    _lab.fresh()
    return _lab


# Whatever the message looks like, help@ gets routed: nobody may keep it from the CRM, nor hold up
# the mail server until content_timeout.
MESSAGES = {
    "no header": b"\nhello\n",
    "empty": b"\n",
    "not even an empty line": b"",
    "text in place of a header": b"hello\n",
    "a name that is no text": b"X-\xe9: y\n\nhello\n",
    "a value that is no text": b"From: \xe9\nSubject: \xff\nX-Spam-Flag: NO\n\nhello\n",
    "no body": b"Subject: x\nX-Spam-Flag: NO\n",
    "a thousand fields": b"".join(b"X-%d: y\n" % n for n in range(1000)) + TEXT,
    "a thousand lines in one": b"X-Long: y" + b"\n\tyyy" * 1000 + b"\n" + TEXT,
    "100 kB in one": b"X-Long: " + b"y" * 900 + b"\n\tyyyyyyy" * 12_500 + b"\n" + TEXT,
    "200 kB in one that we read": b"From: " + b"y" * 900 + b",\n\tyyyyyyy" * 20_000 + b"\n" + TEXT,
    "100 kB in many": b"".join(b"X-%d: %s\n" % (n, b"y" * 90) for n in range(1100)) + TEXT,
}


@pytest.mark.parametrize("message", MESSAGES)
def test_odd_messages_are_routed(lab, message):
    outcome = lab.send(JOE, [HELP], MESSAGES[message])
    assert outcome.sent.reply.code == 250
    assert outcome.recipients == OURS


# Spellings that smtpd takes for help@: the original never gets it, too.
SPELLINGS = ["<@a@b:help@solarmora.com>", '<@"a b":help@solarmora.com>', "<@a :help@solarmora.com>",
             "< @a:help@solarmora.com >", "<@a:,@b:help@solarmora.com>",
             "<<@a:help@solarmora.com>>", "<a:b@c:help@solarmora.com;>"]  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_odd_recipients_are_routed(lab, spelling):
    assert lab.send(JOE, [spelling], TEXT).recipients == OURS


@pytest.mark.parametrize(
    "rcpts",
    [
        [HELP.encode() + b" ORCPT=rfc822;\xff"],
        [b"<@\xff:help@solarmora.com>"],
        [HELP.encode(), b"<\xffx@b.example>"],
    ],
)
def test_bytes_that_are_no_text_are_routed(lab, rcpts):
    """Where smtputf8_enable is off smtpd lets them through."""
    outcome = lab.send(JOE, rcpts, TEXT, service="bytes")
    assert outcome.sent.reply.code == 250
    assert [each for each in outcome.recipients if "b.example" not in each] == OURS


def test_an_old_protocol_is_served(lab):
    """milter_protocol = 2: there is no DATA step; Postfix offers ADDRCPT_PAR all the same."""
    outcome = lab.send(JOE, [ALICE], TEXT, service="old")
    assert outcome.recipients == ["alice@solarmora.com"]
    outcome = lab.send(JOE, [HELP, ALICE], TEXT, service="old")
    assert outcome.recipients == ["alice@solarmora.com", *OURS]
    assert {outcome.of(each).rcpt.notify for each in OURS} == {"NEVER"}


def test_while_it_is_down_the_client_tries_again(make_lab):
    lab = make_lab(CONFIG, virtual_alias_maps=ALIASES)
    lab.milter.kill()
    for rcpts in ([HELP], [ALICE, HELP], [ALICE]):
        assert smtp.send(lab.postfix.port, JOE, rcpts, TEXT).reply.code // 100 == 4
    lab.postfix.wait_empty_queue()
    assert lab.sink.received == []
    lab.milter.start()
    assert lab.send(JOE, [HELP, ALICE], TEXT).recipients == ["alice@solarmora.com", *OURS]


def test_while_it_is_down_accept_delivers_to_the_mailbox_of_the_map(make_lab):
    """Nothing is lost with default_action=accept either (doc/postfix-milter.md 4.3)."""
    lab = make_lab(CONFIG, virtual_alias_maps=ALIASES, milter_settings={"default_action": "accept"})
    lab.milter.kill()
    outcome = lab.send(JOE, [HELP, ALICE], TEXT)
    assert outcome.recipients == ["alice@solarmora.com", "it@solarmora.com"]


@pytest.mark.parametrize("when", ["before RCPT", "before DATA", "in the text"])
def test_a_death_in_the_middle_of_a_message(make_lab, when):
    lab = make_lab(CONFIG, virtual_alias_maps=ALIASES)
    with smtp.Session(lab.postfix.port) as session:
        session.cmd(f"MAIL FROM:{JOE}")
        if when != "before RCPT":
            assert session.cmd(f"RCPT TO:{HELP}").code == 250
        if when != "in the text":
            lab.milter.stop(signal.SIGKILL)
            codes = [session.cmd(f"RCPT TO:{ALICE}").code, session.data(TEXT).code]
        else:
            assert session.cmd("DATA").code == 354
            lab.milter.stop(signal.SIGKILL)
            codes = [session.content(TEXT).code]
        assert codes[-1] in (451, 554)  # 554: no recipient was accepted
        assert 451 in codes
    lab.postfix.wait_empty_queue()
    assert lab.sink.received == []
