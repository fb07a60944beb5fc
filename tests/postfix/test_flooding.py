"""The flood guard on the way through Postfix: each thing that a rule may do with too much."""

import pytest
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


def test_random_senders_displace_no_busy_one(lab):
    """They are all routed, and the one that had its share still has; 10,000: test_floods.py."""
    fill(lab, "leave")
    with smtp.Session(lab.postfix.port) as session:
        for number in range(100):
            sender = f"<{number}@random.example>"
            assert (
                session.transaction(sender, ["<leave@solarmora.com>"], letter(HAM)).reply.code
                == 250
            )
    lab.postfix.wait_empty_queue(60)
    assert send(lab, "leave").recipients == ["left-leave@x.org"]
    routed = [each for each in lab.sink.received if each.recipient == "leave@crm.example"]
    assert len({each.sender for each in routed}) == 101
