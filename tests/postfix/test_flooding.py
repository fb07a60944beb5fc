"""The flood guard on the way through Postfix: each thing that a rule may do with too much."""

import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest
from configs import LONG
from letter import HAM, SPAM, letter

from lab import smtp

RULE = "match: {0}@solarmora.com, replace_with: {0}@crm.example"
GUARD = 'flood: {{limit: "3 in 1d", then: {0}, except: ["<>", "@forms.example"]}}'
NAMES = ("count", "leave", "tempfail", "hold")
CONFIG = "unrouted_to: it@solarmora.com\nspam: amavis\nrules:\n"
CONFIG += "".join(
    f"  - {{name: {name}, {RULE.format(name)}, {GUARD.format(name)}}}\n" for name in NAMES
)
CONFIG += (
    "  - {name: subject, match: subject@solarmora.com, replace_with: subject@crm.example,"
    ' flood: {limit: "2 in 1d", per: subject}}\n'
    "  - {name: open, match: open@solarmora.com, replace_with: open@crm.example}\n"
)
RANDOM, CLIENTS = 10_000 if LONG else 200, 4
BUSY = "<busy@customer.example>"


@pytest.fixture(scope="module")
def shared(make_module_lab):
    aliases = {
        f"{name}@solarmora.com": f"left-{name}@x.org" for name in (*NAMES, "subject", "open")
    }
    return make_module_lab(CONFIG, virtual_alias_maps=aliases)


@pytest.fixture
def lab(shared):
    """The lab of the module with a flood guard that has counted nothing."""
    shared.fresh()
    shared.milter.stop()
    shared.milter.start()
    return shared


def send(lab, name, sender=BUSY, *more, fields=(HAM,)):
    return lab.send(sender, [f"<{name}@solarmora.com>", *more], letter(*fields))


def fill(lab, name):
    for _ in range(3):
        assert send(lab, name).recipients == [f"{name}@crm.example"]


def test_more_is_left(lab):
    fill(lab, "leave")
    outcome = send(lab, "leave")
    assert outcome.recipients == ["left-leave@x.org"]
    assert outcome.log[0].endswith("left: to=<leave@solarmora.com> rule=leave reason=flood")
    for sender in ("<>", "<a@forms.example>", "<anna@customer.example>"):
        assert send(lab, "leave", sender).recipients == ["leave@crm.example"]


def test_more_is_routed_and_told(lab):
    fill(lab, "count")
    outcome = send(lab, "count")
    assert outcome.recipients == ["count@crm.example"]
    assert outcome.log[0].endswith("copies=0 verdict=ham reason=flood")


def test_more_is_put_off_if_all_recipients_agree(lab):
    fill(lab, "tempfail")
    outcome = send(lab, "tempfail")
    assert outcome.sent.reply == (451, "4.7.1 too many messages from this sender, try again later")
    both = send(lab, "tempfail", BUSY, "<open@solarmora.com>")
    assert both.recipients == ["left-tempfail@x.org", "open@crm.example"]


def test_more_is_held_and_released_to_the_crm(lab):
    fill(lab, "hold")
    outcome = send(lab, "hold")
    assert outcome.recipients == []
    assert "quarantined: to=<hold@solarmora.com>" in outcome.log[0]
    lab.postfix.postsuper("-H", outcome.queue_id)
    lab.postfix.wait_empty_queue()
    assert lab.sink.recipients[-1] == "hold@crm.example"
    both = send(lab, "hold", BUSY, "<alice@elsewhere.example>")
    assert both.recipients == ["alice@elsewhere.example", "left-hold@x.org"]


@pytest.mark.parametrize("name", ["tempfail", "hold"])
def test_more_from_sendmail_is_left(lab, name):
    """It would stay in maildrop forever, or on hold without anybody who hears of it."""
    for number in range(4):
        arguments = ("-f", "busy@local.example", f"{name}@solarmora.com")
        lab.postfix.sendmail(*arguments, stdin=letter(HAM))
        received = lab.sink.wait(number + 1)
    ends = [f"{name}@crm.example"] * 3 + [f"left-{name}@x.org"]
    assert [each.recipient for each in received] == ends


def test_spam_is_not_counted(lab):
    for _ in range(5):
        assert send(lab, "leave", fields=(SPAM,)).recipients == ["left-leave@x.org"]
    fill(lab, "leave")


def test_subjects_are_told_apart(lab):
    for subject in ("one", "two"):
        text = letter(HAM).replace(b"Subject: help", f"Subject: {subject}".encode())
        ends = [lab.send(BUSY, ["<subject@solarmora.com>"], text).recipients for _ in range(3)]
        assert ends == [["subject@crm.example"]] * 2 + [["left-subject@x.org"]]


@pytest.mark.timeout(1200)
def test_random_senders_displace_no_busy_one(lab, record_property):
    """They are all routed, the busy ones have had their share, and the table is what it was."""
    busy = [f"<busy{number}@customer.example>" for number in range(20)]
    for sender in busy:
        send_all(lab, [sender] * 3)
    before = table_of(lab)
    per_client = RANDOM // CLIENTS
    clients = [
        threading.Thread(
            target=send_all,
            args=(lab, [f"<{client}.{each}@random.example>" for each in range(per_client)]),
        )
        for client in range(CLIENTS)
    ]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    for sender in busy:
        send_all(lab, [sender])
    lab.postfix.wait_empty_queue(300)
    ends = Counter((each.recipient, each.sender[:4] == "busy") for each in lab.sink.received)
    routed = {each.sender for each in lab.sink.received if each.recipient == "leave@crm.example"}
    assert len(routed) == RANDOM + len(busy)
    assert ends == {
        ("leave@crm.example", False): RANDOM,
        ("leave@crm.example", True): 3 * len(busy),
        ("left-leave@x.org", True): len(busy),
    }
    after = table_of(lab)
    assert before[0] == after[0] == 1 << 20
    assert after[1] * 512 <= 1 << 20
    record_property("random senders, size and blocks of the table", (RANDOM, after))


def send_all(lab, senders):
    with smtp.Session(lab.postfix.port) as session:
        for sender in senders:
            sent = session.transaction(sender, ["<leave@solarmora.com>"], letter(HAM))
            assert sent.reply.code == 250


def table_of(lab):
    """Size and blocks of the flood guard's memory."""
    for path in Path(f"/proc/{lab.milter.pid}/fd").iterdir():
        with suppress(OSError):
            if "memfd:crm-milter-flood" in str(path.readlink()):
                about = path.stat()
                return about.st_size, about.st_blocks
    raise AssertionError("the supervisor has no table")
