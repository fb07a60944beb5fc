"""Whoever else is in the envelope gets the message as if we were not there, in every case."""

import re

import pytest
from letter import HAM, JOE, SPAM, letter, looping

CONFIG = """
unrouted_to: it@solarmora.com
spam: {filter: amavis, no_verdict: leave}
rules:
  - name: help
    match: help@solarmora.com
    replace_with: help@crm.example
    also_deliver_to: [team@solarmora.com]
  - {name: reject, match: reject@solarmora.com, replace_with: reject@crm.example, on_spam: reject}
  - {name: hold, match: hold@solarmora.com, replace_with: hold@crm.example, on_spam: quarantine}
  - {name: drop, match: drop@solarmora.com, replace_with: drop@crm.example, on_spam: discard}
  - name: bypass
    match: bypass@solarmora.com
    replace_with: bypass@crm.example
    bypass_spam_filter: true
    also_deliver_to: [{address: team@solarmora.com, deliver_spam: true}, second@solarmora.com]
  - {name: test, match: test@solarmora.com, replace_with: test@crm.example, mode: test}
  - {name: copy, match: copy@solarmora.com, also_deliver_to: [team@solarmora.com]}
"""
NAMES = ("help", "reject", "hold", "drop", "bypass", "test", "copy")
LOOP = looping("help")
ALICE = "<Alice@other.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a+2Bb@x.example"
BOB = '<"Bob B"@solarmora.com> NOTIFY=NEVER'
CAROL = "<it@solarmora.com>"
UNTOUCHED = {
    "<Alice@other.example> ORCPT=rfc822;a+2Bb@x.example NOTIFY=SUCCESS,DELAY",
    '<"Bob B"@solarmora.com> ORCPT=rfc822;"Bob+20B"@solarmora.com NOTIFY=NEVER',
    "<it@solarmora.com> ORCPT=rfc822;it@solarmora.com",
}
BODY = ".dot\r\n..two\r\ntrailing \r\n\r\n\xe4\r\n" + "x" * 900 + "\r\n"


@pytest.fixture(scope="module")
def lab(make_module_lab):
    aliases = {f"{name}@solarmora.com": f"left-{name}@solarmora.com" for name in NAMES}
    return make_module_lab(CONFIG, virtual_alias_maps=aliases)


@pytest.fixture(autouse=True)
def _fresh(lab):
    lab.fresh()


@pytest.mark.parametrize(
    ("field", "name", "ours"),
    [
        (HAM, "help", "help@crm.example team@solarmora.com"),
        (SPAM, "help", "left-help@solarmora.com"),
        ("X-Other: x", "help", "left-help@solarmora.com"),
        (f"{HAM}\r\n{LOOP}", "help", "left-help@solarmora.com"),
        (HAM, "reject", "reject@crm.example"),
        (SPAM, "reject", "left-reject@solarmora.com"),
        (SPAM, "hold", "left-hold@solarmora.com"),
        (SPAM, "drop", ""),
        (SPAM, "bypass", "bypass@crm.example team@solarmora.com"),
        (HAM, "test", "left-test@solarmora.com"),
        (SPAM, "test", "left-test@solarmora.com"),
        (HAM, "copy", "left-copy@solarmora.com team@solarmora.com"),
        (SPAM, "copy", "left-copy@solarmora.com"),
    ],
)
def test_unmatched_recipients_are_untouched(lab, field, name, ours):
    message = letter(field, body=BODY)
    matched = f"<{name}@solarmora.com>"
    for rcpts in (
        [matched, ALICE, BOB, CAROL],
        [CAROL, BOB, ALICE, matched],
        [ALICE, matched, CAROL, BOB],
    ):
        outcome = lab.send(JOE, rcpts, message)
        theirs = {each.rcpt.raw for each in outcome.received} & UNTOUCHED
        assert theirs == UNTOUCHED
        rest = [each.recipient for each in outcome.received if each.rcpt.raw not in UNTOUCHED]
        assert sorted(rest) == ours.split()
        assert {each.delivery.message for each in outcome.received} == {message}
        assert {each.sender for each in outcome.received} == {"joe@customer.example"}


def test_only_ours_get_the_marker_and_one_for_two_rules(lab):
    outcome = lab.send(JOE, ["<help@solarmora.com>", "<reject@solarmora.com>"], letter(HAM))
    messages = {each.delivery.message for each in outcome.received}
    (message,) = messages
    marks = re.findall(rb"X-CRM-Milter: [0-9a-f]{16}\r\n", message)
    assert len(marks) == 1
    assert message == letter(HAM).replace(b"\r\n\r\n", b"\r\n" + marks[0] + b"\r\n", 1)
