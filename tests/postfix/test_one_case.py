"""One case for a message to several addresses of a group: the others are removed, nothing is lost.

doc/postfix-milter.md: 2.1, 2.3, 2.7 (deleting recipients), 1.7 (mail from sendmail(1)).
"""

import pytest
from letter import HAM, JOE, SPAM, letter, looping

IT = "it@solarmora.com"
CONFIG = """
unrouted_to: it@solarmora.com
spam: amavis
recipient_delimiter: "+"
rules:
  - name: trial
    match: info@solarmora.com
    replace_with: trial@crm.example
    case_group: crm
    mode: test
  - name: help
    match: help@solarmora.com
    replace_with: help@crm.example
    case_group: crm
  - name: sales
    match: sales@solarmora.com
    replace_with: sales@crm.example
    also_deliver_to: [team@solarmora.com, {address: boss@solarmora.com, deliver_spam: true}]
    bypass_spam_filter: true
    case_group: crm
  - name: info
    match: info@solarmora.com
    replace_with: info@crm.example
    on_spam: discard
    case_group: crm
  - {name: wide, match: "@wide.example", replace_with: "@desk.example", case_group: desk}
  - {name: alone, match: alone@solarmora.com, replace_with: alone@crm.example}
"""
COPIES = ["team@solarmora.com", "boss@solarmora.com"]


@pytest.fixture(scope="module")
def lab(make_module_lab):
    names = ("help", "sales", "info", "alone")
    return make_module_lab(
        CONFIG,
        virtual_alias_maps={f"{name}@solarmora.com": IT for name in names},
        main={"myorigin": "solarmora.com", "recipient_delimiter": "+"},
    )


@pytest.fixture(autouse=True)
def _fresh(lab):
    lab.fresh()


def words(outcome):
    """Action and recipient of each line of the log, in its order."""
    lines = [line.partition(": ")[2].split() for line in outcome.log]
    return [f"{line[0]} {line[1].removeprefix('to=<').partition('@')[0]}" for line in lines]


@pytest.mark.parametrize(
    ("rcpts", "recipients", "log"),
    [
        ("help", ["help@crm.example"], ["rerouted: help"]),
        ("sales help", ["help@crm.example", *COPIES], ["merged: sales", "rerouted: help"]),
        ("help sales", ["help@crm.example", *COPIES], ["rerouted: help", "merged: sales"]),
        ("info help", ["help@crm.example"],
         ["would_reroute: info", "merged: info", "rerouted: help"]),
        ("info", ["trial@crm.example"], []),
        ("help alone alice", ["help@crm.example", "alone@crm.example", "alice@solarmora.com"],
         ["rerouted: help", "rerouted: alone"]),
        ("help Help help+x", ["help@crm.example"], ["rerouted: help"] * 3),
        ("help sales Sales SALES sales+x", ["help@crm.example", *COPIES],
         ["rerouted: help", *["merged: sales"] * 4]),
        ("help sales team", ["help@crm.example", *COPIES], ["rerouted: help", "merged: sales"]),
    ],
)  # fmt: skip
def test_one_case_for_a_message(lab, rcpts, recipients, log):
    if rcpts == "info":  # only the rule in force opens a case
        recipients, log = ["info@crm.example"], ["would_reroute: info", "rerouted: info"]
    outcome = lab.send(JOE, [f"<{name}@solarmora.com>" for name in rcpts.split()], letter(HAM))
    assert sorted(outcome.recipients) == sorted(recipients)
    assert [word.replace("+x", "") for word in words(outcome)] == log


@pytest.mark.parametrize(
    ("fields", "recipients"),
    [
        ([SPAM], [IT, "sales@crm.example", "boss@solarmora.com"]),
        ([HAM, looping("help")], [IT, "sales@crm.example", *COPIES]),
        ([HAM, "From: help@crm.example"], [IT, "sales@crm.example", *COPIES]),
    ],
)
def test_nothing_is_merged_into_what_is_left(lab, fields, recipients):
    rcpts = ["<help@solarmora.com>", "<sales@solarmora.com>"]
    outcome = lab.send(JOE, rcpts, letter(*fields))
    assert sorted(outcome.recipients) == sorted(recipients)


def test_spam_that_is_discarded_is_no_case(lab):
    rcpts = ["<info@solarmora.com>", "<help@solarmora.com>"]
    outcome = lab.send(JOE, rcpts, letter(SPAM))
    assert outcome.recipients == [IT]
    assert words(outcome)[1:] == ["discarded: info", "left: help"]


def test_addresses_of_one_rule(lab):
    rcpts = ["<b@wide.example>", "<Anna@wide.example>", "<anna@wide.example>", "<c@wide.example>"]
    outcome = lab.send(JOE, rcpts, letter(HAM))
    assert {each.casefold() for each in outcome.recipients} == {"anna@desk.example"}


def test_the_sender_hears_of_no_case(lab):
    """NOTIFY=SUCCESS on a merged recipient shows neither target."""
    rcpts = [
        "<help@solarmora.com> NOTIFY=SUCCESS,FAILURE,DELAY",
        "<sales@solarmora.com> NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;sales@solarmora.com",
    ]
    outcome = lab.send(JOE, rcpts, letter(HAM))
    reports = ["joe@customer.example"]  # of the map's entry: "expanded"
    assert {*outcome.recipients} - {*reports} == {"help@crm.example", *COPIES}
    for each in lab.sink.received:
        assert b"sales@crm.example" not in each.data
        if each.recipient == "joe@customer.example":
            assert b"crm.example" not in each.data


def test_mail_from_sendmail(lab):
    message = letter(HAM).replace(b"\r\n", b"\n")
    lab.postfix.sendmail("-f", "joe@customer.example", "sales", "help", "alice", stdin=message)
    lab.postfix.wait_empty_queue()
    assert sorted(lab.sink.recipients) == sorted(
        ["help@crm.example", *COPIES, "alice@solarmora.com"]
    )


def test_trace_finds_what_was_merged(lab):
    rcpts = ["<help@solarmora.com>", "<sales@solarmora.com>"]
    outcome = lab.send(JOE, rcpts, letter(HAM))
    assert any(" rule=sales into=help copies=2 verdict=ham" in line for line in outcome.log)
