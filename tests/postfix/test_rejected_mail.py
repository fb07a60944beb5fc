"""Whatever its target does, a message arrives whole at the CRM or in the mailbox for dead letters.

Random mail, 1 kB to 5 MB, goes to CRMs that reject it in every way; then they work again, and
``crm-milter resend`` brings them all of it. CRM_MILTER_LONG=1 sends 1,000 messages.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from random import Random

from configs import LONG
from rejecting import LOST, WAYS, accept, body, both, bounce_later, deliver, lab, resend

from lab import smtp

__all__ = ["both", "lab"]  # fixtures

NUMBER = 1000 if LONG else 40
CUSTOMERS = ("joe@customer.example", "Jane+x=y@Kunde.example", "")
RET = ("", " RET=HDRS", " RET=FULL ENVID=own")
NOTIFY = ("", " NOTIFY=NEVER", " NOTIFY=FAILURE,DELAY", " NOTIFY=NEVER ORCPT=rfc822;v@x.example")
ID = re.compile(rb"(?m)^X-Number: (\d+)\r?$")


@dataclass(frozen=True)
class Letter:
    number: int
    sender: str
    ways: tuple[str, ...]
    strangers: tuple[str, ...]
    text: bytes

    @property
    def keeps_its_sender(self) -> bool:
        return not self.sender or bool(self.strangers)


def letter(random: Random, number: int) -> Letter:
    size = random.choice((1_000, 3_000, 30_000, 60_000, 200_000))
    if number % 20 == 7:
        size = random.choice((1_000_000, 5_000_000))
    ways = tuple(random.sample(WAYS, random.choice((1, 1, 1, 2))))
    strangers = ("alice@elsewhere.example",) if random.random() < 0.3 else ()
    sender = random.choice(CUSTOMERS)
    to = ", ".join(f"{way}@solarmora.com" for way in ways)
    lines = [random.randbytes(random.randrange(60, 480)).hex() for _ in range(20)]
    text = "".join(f"{random.choice(lines)}\n" for _ in range(size // 540 + 1))
    head = f"X-Number: {number}\nFrom: <joe@customer.example>\nTo: {to}\nSubject: x\n\n"
    return Letter(number, sender, ways, strangers, (head + text + "..\nthe end\n").encode())


def send(lab, random: Random, one: Letter) -> None:
    rcpts = [f"<{way}@solarmora.com>{random.choice(NOTIFY)}" for way in one.ways]
    rcpts += [f"<{each}>" for each in one.strangers]
    sent = smtp.send(lab.postfix.port, f"<{one.sender}>{random.choice(RET)}", rcpts, one.text)
    assert sent.reply.code == 250, sent


def numbers(received) -> Counter[int]:
    """How often the whole of each message stands in what was received."""
    found: Counter[int] = Counter()
    for each in received:
        found.update({int(number) for number in ID.findall(each.data)})
    return found


def has_whole(octets: bytes, one: Letter) -> bool:
    return body(one.text) in octets.replace(b"\r\n", b"\n")


def test_nothing_is_lost_whatever_the_crm_does(both, lab, tmp_path, record_property):
    _, sinks = both
    random = Random(20261128)
    letters = {number: letter(random, number) for number in range(NUMBER)}
    for one in letters.values():
        send(lab, random, one)
    lab.postfix.wait_empty_queue(600)
    bounces = bounce_later(lab, sinks)
    lab.postfix.wait_empty_queue(600)
    received = lab.sink.received

    dead: dict[int, list[bytes]] = {number: [] for number in letters}
    for entry in received:
        if entry.recipient.lower() != LOST.lower():
            continue
        (number,) = {int(each) for each in ID.findall(entry.data)}
        assert has_whole(entry.data, letters[number]), f"message {number} was cut"
        dead[number].append(entry.data)
    for number, one in letters.items():
        least, most = (1, 1) if one.keeps_its_sender else (1, len(one.ways))
        assert least <= len(dead[number]) <= most, (one.ways, one.sender, one.strangers)

    for entry in received:
        if entry.recipient in CUSTOMERS and b"failed" in entry.data:
            (number,) = {int(each) for each in ID.findall(entry.data)}
            # A server that offers no DSN cannot be told to keep silent, see README.
            assert "silent" in letters[number].ways
            assert letters[number].keeps_its_sender
    strangers = Counter(each.number for each in letters.values() if each.strangers)
    assert numbers([e for e in received if e.recipient == "alice@elsewhere.example"]) == strangers

    brought_back(lab, sinks, letters, tmp_path)
    kinds = Counter(
        "copy at once" if each.keeps_its_sender else "report" for each in letters.values()
    )
    record_property("messages", f"{len(letters)}, {dict(kinds)}, {bounces} bounced later")


def brought_back(lab, sinks, letters, folder):
    """Hand in again what is in the mailbox; it all reaches its CRM, to the byte."""
    box = folder / "box"
    assert len(deliver(lab, box)) >= len(letters)
    accept(sinks)
    lab.sink.clear()
    resend(lab, folder, box)
    for path in (box / "new").iterdir():  # a copy does not tell which target rejected it
        octets = path.read_bytes()
        one = letters[int(ID.search(octets)[1])]
        assert one.keeps_its_sender
        assert len(one.ways) == 2
        for way in one.ways:
            status, _, err = resend(lab, folder, "-", "--to", f"{way}@solarmora.com", stdin=octets)
            assert (status, err) == (0, "")
    lab.postfix.wait_empty_queue(600)
    for number, one in letters.items():
        for way in one.ways:
            received = sinks[f"{way}.example"].received
            got = [each.data for each in received if int(ID.search(each.data)[1]) == number]
            assert [body(each) for each in got] == [body(one.text)], (number, way, len(got))


def test_mail_from_sendmail_comes_back_as_well(both, lab):
    """It has neither ESMTP parameters nor a client that could be told to try again."""
    message = b"Subject: x\n\nfrom cron\n"
    lab.postfix.sendmail("-f", "root@mail.lab.example", "refuse@solarmora.com", stdin=message)
    lab.postfix.wait_empty_queue(20)
    (entry,) = [each for each in lab.sink.received if each.recipient == LOST]
    assert b"Original-Envelope-Id: root@mail.lab.example" in entry.data
    assert b"Original-Recipient: rfc822;refuse@solarmora.com" in entry.data


def test_a_stranger_who_asks_for_reports_gets_none(both, lab):
    """What the client asks for goes to the mailbox, too: it knows nothing that the rule hides."""
    rcpt = "<good@solarmora.com> NOTIFY=SUCCESS,DELAY,FAILURE"
    outcome = lab.send("<joe@customer.example> RET=HDRS", [rcpt], b"Subject: x\n\nx\n")
    assert "joe@customer.example" not in outcome.recipients


def test_mail_to_the_mailbox_itself_is_not_routed(both, lab):
    outcome = lab.send("<>", [f"<{LOST}>"], b"Subject: Undelivered\n\nx\n")
    assert outcome.recipients == [LOST]
    assert outcome.log == []
