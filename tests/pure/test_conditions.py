"""Conditions and limits: whom a rule is for, and what it does not route."""

from dataclasses import dataclass

import pytest
from rows import CRM, HELP, NO, YES, applying, fates, policy, recipient, rule, run, targets

from crm_milter.cli import rules as listing
from crm_milter.cli.explain import explain, lines
from crm_milter.cli.rules import rule_json, table_lines
from crm_milter.config import keys
from crm_milter.config.kinds import Key
from crm_milter.config.load import load
from crm_milter.config.scalars import Text
from crm_milter.routing.decision import Action, Reason, Reply
from crm_milter.routing.logline import outcome_line
from crm_milter.rules import conditions
from crm_milter.rules.conditions import ApplyTo, Condition, Senders
from crm_milter.rules.pattern import AddressList
from crm_milter.rules.rule import (
    AddressMap,
    AutomaticClass,
    Copy,
    Mode,
    OnOversize,
    OnSpam,
    Rule,
)

VIP = rule("vip", "help@solarmora.com", "vip@crm.example", senders="@vip.example boss@x.example")
NOT_US = rule("not-us", "help@solarmora.com", CRM, except_senders="@solarmora.com <>")


@pytest.mark.parametrize(
    ("sender", "applies"),
    [
        ("joe@vip.example", "vip"),
        ("boss@x.example", "vip"),
        ("joe@customer.example", "not-us"),
        ("it@solarmora.com", "support"),
        ("", "support"),
    ],
)
def test_the_first_rule_whose_conditions_all_hold_applies(sender, applies):
    assert applying(policy(VIP, NOT_US, HELP), "help@solarmora.com", sender) == applies


def test_where_no_condition_holds_no_rule_applies():
    assert applying(policy(VIP), "help@solarmora.com", "joe@customer.example") is None


@pytest.mark.parametrize(
    ("senders", "sender", "meant"),
    [
        ("<>", "", True),
        ("<>", "joe@x.example", False),
        ("@x.example", "", False),
        ("*", "", True),
        ("*", "joe@x.example", True),
        ("vip-*@x.example", "vip-1@x.example", True),
        ("vip-*@x.example", "joe@x.example", False),
        ("/.*@(a|b)\\.example/", "joe@b.example", True),
        ("postmaster@x.example", "postmaster@x.example", True),
        ("@x.example", "postmaster@x.example", True),  # only recipients are spared
    ],
)
def test_senders_are_patterns(senders, sender, meant):
    rules = policy(rule("r", "help@solarmora.com", CRM, senders=senders))
    assert (applying(rules, "help@solarmora.com", sender) == "r") is meant


def test_a_list_of_addresses_matches_each_of_them():
    listed = AddressList("vips", frozenset({"a@x.example", "b@x.example"}))
    rules = policy(Rule("r", (listed,), HELP.replace_with))
    assert applying(rules, "b@x.example") == "r"
    assert applying(rules, "c@x.example") is None
    rules = policy(Rule("r", HELP.match, HELP.replace_with, conditions=(Senders((listed,)),)))
    assert applying(rules, "help@solarmora.com", "a@x.example") == "r"
    assert applying(rules, "help@solarmora.com", "c@x.example") is None


KNOWN = ("alice@solarmora.com", "bob@solarmora.com")


@pytest.mark.parametrize(
    ("apply_to", "address", "applies"),
    [
        (ApplyTo.UNKNOWN, "alice@solarmora.com", False),
        (ApplyTo.UNKNOWN, "alice+x@solarmora.com", False),
        (ApplyTo.UNKNOWN, "nobody@solarmora.com", True),
        (ApplyTo.UNKNOWN, "postmaster@solarmora.com", False),
        (ApplyTo.KNOWN, "alice@solarmora.com", True),
        (ApplyTo.KNOWN, "nobody@solarmora.com", False),
        (ApplyTo.ALL, "alice@solarmora.com", True),
    ],
)
def test_a_catch_all_for_unknown_addresses_leaves_every_account_alone(apply_to, address, applies):
    rules = policy(
        rule("all", "@solarmora.com", CRM, apply_to=apply_to), delimiter="+", known=KNOWN
    )
    assert (applying(rules, address) == "all") is applies


TABLE = Rule(
    "table",
    address_map=AddressMap(
        "map",
        {
            "help@a.example": ("case-7@crm.example",),
            "many@a.example": ("one@crm.example", "two@crm.example"),
            "@a.example": ("rest@crm.example",),
        },
    ),
    propagate_extension=True,
)


@pytest.mark.parametrize(
    ("address", "replaced_by"),
    [
        ("help@a.example", ["case-7@crm.example"]),
        ("help+x@a.example", ["case-7+x@crm.example"]),
        ("many@a.example", ["one@crm.example", "two@crm.example"]),
        ("other@a.example", ["rest@crm.example"]),
    ],
)
def test_an_address_map_looks_for_the_whole_address_before_the_domain(address, replaced_by):
    rules = policy(TABLE, delimiter="+")
    decision = run(rules, f"<{address}>")
    assert targets(decision) == replaced_by
    assert decision.remove == (address,)


def test_the_domain_of_an_address_map_spares_what_wildcards_spare():
    assert applying(policy(TABLE), "postmaster@a.example") is None
    assert applying(policy(TABLE), "x@b.example") is None


@pytest.mark.parametrize(
    ("value", "automatic"),
    [
        ("no", False),
        ("No", False),
        ("no; x=y", False),
        ("(really) no (a (nested) comment)", False),
        ("auto-replied", True),
        ("auto-generated; owner-email=x@y.example", True),
        ("auto-notified", True),
        ("\n\tauto-replied", True),
        ("", False),
        ("(" * 5000 + "no", False),
        ("((no)) auto-replied", True),
    ],
)
def test_automatic(value, automatic):
    rules = policy(rule("r", "help@solarmora.com", CRM, automatic=frozenset(AutomaticClass)), HELP)
    decision = run(rules, "<help@solarmora.com>", fields=[NO, ("auto-submitted", value)])
    fate = (Action.LEFT, Reason.AUTOMATIC) if automatic else (Action.REROUTED, None)
    assert fates(decision) == [fate]


def test_auto_submitted_is_wanted_only_where_a_rule_asks():
    leaving = rule("r", "help@solarmora.com", CRM, automatic=frozenset(AutomaticClass))
    assert "auto-submitted" in policy(leaving).wanted_fields
    assert "auto-submitted" not in policy(HELP).wanted_fields


@pytest.mark.parametrize(
    ("size", "on_oversize", "reply", "fate"),
    [
        (1000, OnOversize.LEAVE, Reply.ACCEPT, (Action.REROUTED, None)),
        (1001, OnOversize.LEAVE, Reply.ACCEPT, (Action.LEFT, Reason.OVERSIZE)),
        (1001, OnOversize.REJECT, Reply.REJECT_OVERSIZE, (Action.REJECTED, Reason.OVERSIZE)),
    ],
)
def test_size(size, on_oversize, reply, fate):
    limited = rule("r", "help@solarmora.com", CRM, max_size=1000, on_oversize=on_oversize)
    rules = policy(limited)
    assert rules.measures_size
    decision = run(rules, "<help@solarmora.com>", size=size)
    assert (decision.reply, fates(decision)) == (reply, [fate])


def test_an_oversize_reject_needs_all_recipients_and_smtp():
    limited = rule("r", "help@solarmora.com", CRM, max_size=1000, on_oversize=OnOversize.REJECT)
    rules = policy(limited, rule("spam", "x@solarmora.com", CRM, on_spam=OnSpam.REJECT))
    left = (Action.LEFT, Reason.OVERSIZE)
    mixed = run(rules, "<help@solarmora.com>", "<alice@x.example>", size=2000)
    assert (mixed.reply, fates(mixed)) == (Reply.ACCEPT, [left])
    local = run(rules, "help@solarmora.com", size=2000, by_smtp=False)
    assert (local.reply, fates(local)) == (Reply.ACCEPT, [left])
    # Two refusals for two reasons are not the same: neither is said.
    two = run(rules, "<help@solarmora.com>", "<x@solarmora.com>", size=2000, fields=[YES])
    assert two.reply is Reply.ACCEPT
    assert fates(two) == [left, (Action.LEFT, Reason.SPAM)]


def test_reasons_come_in_the_order_of_the_design():
    strict = rule("r", "help@solarmora.com", CRM, max_size=10, automatic=frozenset(AutomaticClass))
    automatic = ("auto-submitted", "auto-replied")
    loop = ("from", CRM)
    cases = [
        ([YES, automatic, loop], 20, Reason.LOOP),
        ([YES, automatic], 20, Reason.AUTOMATIC),
        ([YES], 20, Reason.OVERSIZE),
        ([YES], 5, Reason.SPAM),
    ]
    for fields, size, reason in cases:
        decision = run(policy(strict), "<help@solarmora.com>", fields=fields, size=size)
        assert fates(decision) == [(Action.LEFT, reason)]


@pytest.mark.parametrize(
    ("propagate", "address", "target"),
    [
        (True, "help+x@solarmora.com", "support+x@v1su.case.my-crm.com"),
        (True, "help@solarmora.com", CRM),
        (False, "help+x@solarmora.com", CRM),
        (True, "help+x+y@solarmora.com", "support+x+y@v1su.case.my-crm.com"),
        (True, "help-x+y@solarmora.com", "support-x+y@v1su.case.my-crm.com"),
    ],
)
def test_extensions_are_passed_on_where_asked(propagate, address, target):
    extending = rule("r", "help@solarmora.com", CRM, propagate_extension=propagate)
    assert targets(run(policy(extending, delimiter="+-"), f"<{address}>")) == [target]


BOUNCES = "bounces@solarmora.com"


@pytest.mark.parametrize(
    ("sender", "arguments", "expected"),
    [
        ("joe@customer.example", ["<help@solarmora.com>"], BOUNCES),
        ("", ["<help@solarmora.com>"], None),
        ("joe@customer.example", ["<help@solarmora.com>", "<alice@x.example>"], None),
        ("joe@customer.example", ["<help@solarmora.com>", "<info@solarmora.com>"], None),
    ],
)
def test_dead_letters_become_the_sender_if_all_recipients_are_ours(sender, arguments, expected):
    sending = rule("r", "help@solarmora.com", CRM, dead_letters=BOUNCES)
    keeping = rule("k", "info@solarmora.com", "info@crm.example")
    decision = run(policy(sending, keeping), *arguments, sender=sender)
    assert decision.envelope_sender == expected


FIELDS = (("X-Gm-Original-To", "{recipient}"), ("X-Why", "{rule} {spam} {{rule}}"))


def own(decision):
    return [each for each in decision.headers if each[0] != "X-CRM-Milter"]


def test_add_headers():
    adding = rule("r", "help@solarmora.com", CRM, add_headers=FIELDS)
    assert own(run(policy(adding), "<Help@solarmora.com>")) == [
        ("X-Gm-Original-To", "help@solarmora.com"),
        ("X-Why", "r ham {r}"),
    ]
    assert own(run(policy(adding), "<help@solarmora.com>", "<alice@x.example>")) == []


def test_one_crm_does_not_learn_what_was_sent_to_another():
    adding = rule("r", "help@solarmora.com", CRM, add_headers=FIELDS)
    other = rule("o", "info@solarmora.com", "info@crm.example", add_headers=FIELDS[:1])
    decision = run(policy(adding, other), "<help@solarmora.com>", "<info@solarmora.com>")
    assert own(decision) == []
    same = rule("o", "info@solarmora.com", "info@crm.example", add_headers=(("X-A", "b"),))
    both = rule("r", "help@solarmora.com", CRM, add_headers=(("X-A", "b"), *FIELDS))
    decision = run(policy(both, same), "<help@solarmora.com>", "<info@solarmora.com>")
    assert own(decision) == [("X-A", "b")]


def test_a_value_cannot_break_out_of_its_line():
    adding = rule("r", "@solarmora.com", CRM, add_headers=FIELDS)
    decision = run(policy(adding), '<"a\r\nBcc: x"@solarmora.com>')
    assert own(decision)[0] == ("X-Gm-Original-To", "a??bcc: x@solarmora.com")


def test_a_placeholder_in_an_address_is_no_placeholder():
    adding = rule("r", "@solarmora.com", CRM, add_headers=FIELDS)
    decision = run(policy(adding), "<{rule}@solarmora.com>")
    assert own(decision)[0] == ("X-Gm-Original-To", "{rule}@solarmora.com")


def test_a_message_has_one_marker_however_many_targets_it_has():
    decision = run(policy(TABLE), "<many@a.example>")
    assert len(decision.headers) == 1
    assert outcome_line("q", decision.outcomes[0], decision.judgement) == (
        "q: rerouted: to=<many@a.example> new=<one@crm.example>,<two@crm.example>"
        " rule=table copies=0 verdict=ham"
    )


@pytest.mark.parametrize(
    ("sender", "author", "left"),
    [
        ("joe@x.example", "two@crm.example", "one@crm.example"),
        ("one@crm.example", "joe@x.example", "two@crm.example"),
        ("one@crm.example", "TWO@crm.example", ""),
        ("joe@x.example", "one@crm.example, two@CRM.example", ""),
        ("joe@x.example", "three@crm.example", "one@crm.example two@crm.example"),
    ],
)
def test_of_several_targets_only_the_sender_is_passed_over(sender, author, left):
    decision = run(policy(TABLE), "<many@a.example>", sender=sender, fields=[("from", author)])
    assert targets(decision) == left.split()
    assert fates(decision) == [(Action.REROUTED, None) if left else (Action.LEFT, Reason.LOOP)]
    assert decision.remove == (("many@a.example",) if left else ())


def test_conditions_and_copies_hold_in_test_mode_as_well():
    tested = rule("t", "help@solarmora.com", CRM, mode=Mode.TEST, copies=(Copy("a@x.example"),))
    rules = policy(tested, HELP)
    decision = run(rules, recipient(rules, "<help@solarmora.com>"))
    assert targets(decision) == [CRM]
    assert [each.test for each in decision.outcomes] == [True, False]


@dataclass(frozen=True)
class Named(Condition):
    """A condition that nothing else knows of: the local part of the sender is this."""

    key = "named"
    unset = "anybody"
    depends_on_message = True
    name: str

    @classmethod
    def of(cls, value):
        return None if value == cls.unset else cls(value)

    def holds(self, occasion):
        return occasion.sender is None or occasion.sender.startswith(f"{self.name}@")

    @property
    def value(self):
        return self.name

    def refusal(self, occasion):
        return f"<{occasion.sender}> is not {self.name}"


ONLY_JOE = rule("only-joe", "help@solarmora.com", CRM, conditions=(Named("joe"),))


def test_a_new_condition_decides():
    rules = policy(ONLY_JOE, HELP)
    assert applying(rules, "help@solarmora.com", "joe@x.example") == "only-joe"
    assert applying(rules, "help@solarmora.com", "ann@x.example") == "support"
    assert [match.rule for match in rules.table.possible("help@solarmora.com")] == [ONLY_JOE, HELP]
    assert rules.table.depends_on_message


def test_a_new_condition_is_explained_and_listed(monkeypatch):
    story = explain(policy(ONLY_JOE, HELP), "ann@x.example", ["help@solarmora.com"], b"\n")
    assert "  rule only-joe: <ann@x.example> is not joe" in list(lines(story))
    assert "named joe" in list(table_lines((ONLY_JOE,)))[1]
    monkeypatch.setattr(listing, "CONDITIONS", (*conditions.CONDITIONS, Named))
    assert [rule_json(each)["named"] for each in (ONLY_JOE, HELP)] == ["joe", "anybody"]


@pytest.mark.parametrize(("named", "built"), [("joe", (Named("joe"),)), ("anybody", ())])
def test_a_new_condition_is_read_by_its_key(monkeypatch, tmp_path, named, built):
    monkeypatch.setattr(conditions, "CONDITIONS", (*conditions.CONDITIONS, Named))
    key = Key("named", Text("a name"), "anybody", "local part of the sender")
    monkeypatch.setitem(keys.RULE.keys, "named", key)
    monkeypatch.setitem(keys.RULE.defaults, "named", "anybody")
    path = tmp_path / "crm-milter.yaml"
    path.write_text(
        "unrouted_to: it@y.example\nspam: rspamd\nrules:\n"
        f"  - {{name: a, match: a@x.example, replace_with: a@crm.example, named: {named}}}\n"
    )
    assert load(path).policy.table.rules[0].conditions == built
