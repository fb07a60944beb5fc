"""Mail that goes round, through the real Postfix: left the second time, unless a person sent it."""

import re

import pytest
from letter import HAM, JOE, letter

CONFIG = """
unrouted_to: it@solarmora.com
spam: {filter: amavis, no_verdict: tempfail}
rules:
  - {name: help, match: help@solarmora.com, replace_with: help@crm.example, also_deliver_to: team@x.org}
  - {name: copies, match: alice@solarmora.com, also_deliver_to: archive@x.org}
  - {name: sales, match: sales@solarmora.com, replace_with: sales@crm.example}
  - {name: trial, match: trial@solarmora.com, replace_with: trial@crm.example, mode: test}
  - {name: real, match: trial@solarmora.com, replace_with: real@crm.example}
"""  # noqa: E501 - a rule a line
ALIASES = ("help", "sales", "trial")
RESENT = b"Resent-From: team@x.org\r\nResent-Date: Sat, 28 Nov 2026 14:00:00 +0000\r\n"
HELP, ALICE = "<help@solarmora.com>", "<alice@solarmora.com>"


@pytest.fixture(scope="module")
def lab(make_module_lab):
    aliases = {f"{name}@solarmora.com": "it@solarmora.com" for name in ALIASES}
    return make_module_lab(CONFIG, virtual_alias_maps=aliases)


@pytest.fixture(autouse=True)
def _fresh(lab):
    lab.fresh()


def first_pass(lab, recipient, *fields):
    """What the copy's mailbox has of it."""
    return lab.send(JOE, [recipient], letter(HAM, *fields)).received[0].delivery.message


@pytest.mark.parametrize("fields", [(), ("Message-ID: <1@x.example>",), ("Date: today",)])
@pytest.mark.parametrize("sender", [JOE, "<SRS0=x@x.org>", "<>"])
def test_a_copy_that_is_forwarded_back_is_not_copied_again(lab, fields, sender):
    message = first_pass(lab, ALICE, *fields)
    assert re.findall(rb"(?m)^X-CRM-Milter: [0-9a-f]{16}\r$", message)
    again = lab.send(sender, [ALICE], b"Received: from x.org\r\n" + message)
    assert again.recipients == ["alice@solarmora.com"]
    assert "reason=loop" in again.log[0]


def test_a_forwarder_in_the_copys_name_makes_one_copy_too_many(lab):
    message, passes = first_pass(lab, ALICE), 1
    while True:
        outcome = lab.send("<archive@x.org>", [ALICE], message)
        if outcome.recipients == ["alice@solarmora.com"]:
            break
        message, passes = outcome.received[0].delivery.message, passes + 1
        assert passes < 5
    assert passes == 2


@pytest.mark.parametrize("sender", [JOE, "<anna@solarmora.com>", "<team@x.org>"])
def test_a_copy_that_the_team_resends_reaches_the_crm(lab, sender):
    message = first_pass(lab, HELP)
    resent = lab.send(sender, [HELP], RESENT + message)
    assert resent.recipients == ["help@crm.example", "team@x.org"]
    back = lab.send("<bounces@crm.example>", [HELP], resent.of("help@crm.example").delivery.message)
    assert back.recipients == ["it@solarmora.com"]


def test_the_teams_mailbox_may_hand_a_copy_in_without_resent_fields(lab):
    message = first_pass(lab, HELP)
    assert "help@crm.example" in lab.send("<team@x.org>", [HELP], message).recipients
    assert lab.send(JOE, [HELP], message).recipients == ["it@solarmora.com"]


def test_sendmail_may_hand_a_copy_in_and_is_never_put_off(lab):
    message = first_pass(lab, HELP)
    lab.sink.clear()
    lab.postfix.sendmail("-f", "anna@solarmora.com", "help@solarmora.com", stdin=message)
    lab.postfix.wait_empty_queue()
    assert lab.sink.recipients == ["help@crm.example", "team@x.org"]
    lab.sink.clear()
    lab.postfix.sendmail("help@solarmora.com", "joe@x.org", stdin=letter())
    lab.postfix.wait_empty_queue()
    assert lab.sink.recipients == ["it@solarmora.com", "joe@x.org"]
    assert lab.milter.lines("reason=no_verdict")


def test_another_rule_still_applies(lab):
    message = first_pass(lab, HELP)
    assert lab.send(JOE, ["<sales@solarmora.com>"], message).recipients == ["sales@crm.example"]


def test_a_rule_in_test_mode_does_not_keep_mail_from_the_next(lab):
    outcome = lab.send(JOE, ["<trial@solarmora.com>"], letter(HAM))
    assert outcome.recipients == ["real@crm.example"]
    assert [re.search(r"rule=(\w+)", line)[1] for line in outcome.log] == ["trial", "real"]
