"""Everybody who is owed a message gets it exactly once, in whatever order they were named.

doc/postfix-milter.md: 2.3 (two adds, or an add of somebody present, deliver twice), 2.4 (edits
apply at once and in order).
"""

import itertools

import pytest
from letter import HAM, JOE, SPAM, letter

CRM = "support@crm.example"
CONFIG = """
unrouted_to: it@solarmora.com
spam: amavis
rules:
  - name: support
    match: [help@solarmora.com, hilfe@solarmora.com]
    replace_with: support@crm.example
  - name: info
    match: info@solarmora.com
    replace_with: Support@CRM.Example
    also_deliver_to: [team@solarmora.com, boss@solarmora.com, Team@Solarmora.com]
  - name: sales
    match: sales@solarmora.com
    replace_with: sales@crm.example
    also_deliver_to: [boss@solarmora.com, sales@crm.example]
  - name: chain
    match: chain@solarmora.com
    replace_with: chain@crm.example
    also_deliver_to: [sales@solarmora.com]
  - name: ring-1
    match: ring1@solarmora.com
    replace_with: ring1@crm.example
    also_deliver_to: [ring2@solarmora.com]
  - name: ring-2
    match: ring2@solarmora.com
    replace_with: ring2@crm.example
    also_deliver_to: [ring1@solarmora.com]
  - name: keep
    match: keep@solarmora.com
    replace_with: keep@crm.example
    also_deliver_to: [keep@solarmora.com]
  - name: copies
    match: list@solarmora.com
    also_deliver_to: [boss@solarmora.com, support@crm.example]
  - name: all
    match: all@solarmora.com
    replace_with: all@crm.example
    also_deliver_to: [{address: junk@solarmora.com, deliver_spam: true}]
    bypass_spam_filter: true
  - name: junk
    match: junk@solarmora.com
    replace_with: junk@crm.example
    on_spam: discard
"""


@pytest.fixture(scope="module")
def lab(make_module_lab):
    return make_module_lab(CONFIG, virtual_alias_maps={"help@solarmora.com": "it@solarmora.com"})


@pytest.fixture(autouse=True)
def _fresh(lab):
    lab.fresh()


def _in_any_order(lab, recipients, expected, message=None):
    orders = list(itertools.permutations(recipients.split()))[:6]
    for order in orders:
        outcome = lab.send(JOE, order, message or letter(HAM))
        assert outcome.recipients == sorted(expected.split()), order
        assert len(outcome.received) == len({each.recipient.lower() for each in outcome.received})


@pytest.mark.parametrize(
    ("recipients", "expected"),
    [
        # Two matched addresses with one CRM.
        ("<help@solarmora.com> <hilfe@solarmora.com>", CRM),
        (
            "<help@solarmora.com> <info@solarmora.com>",
            f"{CRM} boss@solarmora.com team@solarmora.com",
        ),
        # Two rules with one copy in common, and a copy that is the target itself.
        (
            "<info@solarmora.com> <sales@solarmora.com>",
            "Support@crm.example boss@solarmora.com sales@crm.example team@solarmora.com",
        ),
        (
            "<list@solarmora.com> <help@solarmora.com>",
            f"{CRM} boss@solarmora.com list@solarmora.com",
        ),
        # A copy for an address that another rule matches, alone and with mail to both.
        ("<chain@solarmora.com>", "chain@crm.example sales@solarmora.com"),
        (
            "<chain@solarmora.com> <sales@solarmora.com>",
            "boss@solarmora.com chain@crm.example sales@crm.example sales@solarmora.com",
        ),
        (
            "<chain@solarmora.com> <sales@solarmora.com> <boss@solarmora.com>",
            "boss@solarmora.com chain@crm.example sales@crm.example sales@solarmora.com",
        ),
        ("<ring1@solarmora.com>", "ring1@crm.example ring2@solarmora.com"),
        (
            "<ring1@solarmora.com> <ring2@solarmora.com>",
            "ring1@crm.example ring1@solarmora.com ring2@crm.example ring2@solarmora.com",
        ),
        ("<keep@solarmora.com>", "keep@crm.example keep@solarmora.com"),
        ("<keep@solarmora.com> <alice@x.org>", "alice@x.org keep@crm.example keep@solarmora.com"),
    ],
)
def test_each_gets_one(lab, recipients, expected):
    _in_any_order(lab, recipients, expected)


@pytest.mark.parametrize(
    "present",
    [
        "<support@crm.example>",
        "<Support@CRM.Example>",
        "support@crm.example.",
        '<"support"@crm.example>',
        "<@relay:support@crm.example>",
        "<support%crm.example@localhost>",
    ],
)
def test_a_target_that_the_sender_named_himself(lab, present):
    for order in itertools.permutations([present, "<help@solarmora.com>"]):
        outcome = lab.send(JOE, order, letter(HAM))
        assert [each.recipient.lower() for each in outcome.received] == [CRM]


@pytest.mark.parametrize("present", ["<team@solarmora.com>", '<"Team"@Solarmora.com.>'])
def test_a_copy_that_the_sender_named_himself_stays_as_it_is(lab, present):
    named = f"{present} NOTIFY=DELAY ORCPT=rfc822;his@own.example"
    for order in itertools.permutations([named, "<info@solarmora.com>", "<boss@solarmora.com>"]):
        outcome = lab.send(JOE, order, letter(HAM))
        found = sorted(each.recipient.lower() for each in outcome.received)
        assert found == ["boss@solarmora.com", CRM, "team@solarmora.com"]
        (his,) = (each for each in outcome.received if each.recipient.lower().startswith("team@"))
        assert (his.rcpt.notify, his.rcpt.orcpt) == ("DELAY", "rfc822;his@own.example")


KEEP = "keep@crm.example keep@solarmora.com"
RING = "ring1@crm.example ring1@solarmora.com ring2@crm.example ring2@solarmora.com"


@pytest.mark.parametrize(
    ("spellings", "expected"),
    [
        ("<keep@solarmora.com> <keep@solarmora.com>", KEEP),
        ("<keep@solarmora.com.> <keep@solarmora.com>", KEEP),
        ("<Keep@solarmora.com> <keep@solarmora.com>", KEEP),
        ("keep@solarmora.com <Keep@solarmora.com>", KEEP),
        ("<ring1@solarmora.com> <RING1@solarmora.com> <ring2@solarmora.com>", RING),
    ],
)
def test_who_is_owed_a_copy_keeps_it_however_often_he_is_named(lab, spellings, expected):
    """cleanup(8) keeps the first record only of spellings that differ in case."""
    for order in itertools.permutations(spellings.split()):
        outcome = lab.send(JOE, order, letter(HAM))
        found = sorted(each.recipient.lower() for each in outcome.received)
        assert found == expected.split(), order


def test_who_is_owed_a_copy_keeps_it_in_quotes(lab):
    """Nothing tells two records apart that differ in quotes: better a duplicate than a loss."""
    for order in itertools.permutations(['<"keep"@solarmora.com>', "<keep@solarmora.com>"]):
        assert "keep@solarmora.com" in lab.send(JOE, order, letter(HAM)).recipients


def test_a_copy_of_spam_for_an_address_whose_own_rule_discards_it(lab):
    recipients = "<all@solarmora.com> <junk@solarmora.com>"
    _in_any_order(lab, recipients, "all@crm.example junk@solarmora.com", letter(SPAM))
    _in_any_order(
        lab, recipients, "all@crm.example junk@crm.example junk@solarmora.com", letter(HAM)
    )


def test_a_hundred_matched_recipients_are_one_copy(lab):
    spellings = [
        f"<{name}@{'solarmora.com' if n % 2 else 'SOLARMORA.com'}>"
        for n in range(50)
        for name in ("help", "hilfe")
    ]
    outcome = lab.send(JOE, [*spellings, "<alice@x.org>"], letter(HAM))
    assert outcome.recipients == ["alice@x.org", CRM]
