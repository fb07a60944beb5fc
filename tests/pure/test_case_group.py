"""One case for a message: of the recipients whose rules share a group one is routed."""

from pathlib import Path

import pytest
from rows import CRM, HELP, NO, YES, fates, policy, recipient, rule, run, targets

from crm_milter.cli.explain import as_json, explain, lines
from crm_milter.cli.rules import rule_json
from crm_milter.config.load import parse
from crm_milter.metrics.counting import message_outcome, recipient_outcome
from crm_milter.routing.decision import Action, Reason, Reply
from crm_milter.routing.logline import outcome_line
from crm_milter.rules.conditions import Addressed
from crm_milter.rules.rule import Copy, Mode, OnSpam
from crm_milter.trace.lines import Line, decided

SALES, INFO = "sales@crm.example", "info@crm.example"
ROUTED, MERGED = (Action.REROUTED, None), (Action.MERGED, None)


def grouped(name, target=None, group="zendesk", **settings):
    address = f"{name}@solarmora.com"
    return rule(name, address, target or f"{name}@crm.example", case_group=group, **settings)


FIRST, SECOND, THIRD = grouped("help", CRM), grouped("sales"), grouped("info")


def test_only_the_first_rule_of_the_file_opens_a_case():
    rules = policy(FIRST, SECOND, THIRD)
    decision = run(rules, "<info@solarmora.com>", "<sales@solarmora.com>")
    assert targets(decision) == [SALES]
    assert decision.remove == ("info@solarmora.com", "sales@solarmora.com")
    assert fates(decision) == [MERGED, ROUTED]
    assert [each.into for each in decision.outcomes] == ["sales", ""]


@pytest.mark.parametrize("names", ["help", "sales", "help alice", "info x"])
def test_one_alone_is_routed(names):
    arguments = [f"<{name}@solarmora.com>" for name in names.split()]
    decision = run(policy(FIRST, SECOND, THIRD), *arguments)
    assert fates(decision) == [ROUTED]


def test_other_groups_and_rules_without_one_are_not_concerned():
    rules = policy(FIRST, grouped("sales", group="jira"), grouped("info", group=None), SECOND)
    names = ("help", "sales", "info")
    decision = run(rules, *(f"<{name}@solarmora.com>" for name in names))
    assert sorted(targets(decision)) == sorted([CRM, SALES, INFO])


@pytest.mark.parametrize(
    ("fields", "settings", "fate"),
    [
        ([YES], {}, (Action.LEFT, Reason.SPAM)),
        ([("from", CRM), NO], {}, (Action.LEFT, Reason.LOOP)),
        ([NO], {"max_size": 10}, (Action.LEFT, Reason.OVERSIZE)),
        ([YES], {"on_spam": OnSpam.DISCARD}, (Action.DISCARDED, Reason.SPAM)),
        ([YES], {"on_spam": OnSpam.REJECT}, (Action.LEFT, Reason.SPAM)),
        ([YES], {"on_spam": OnSpam.QUARANTINE}, (Action.LEFT, Reason.SPAM)),
    ],
)
def test_nothing_is_merged_into_what_is_not_routed(fields, settings, fate):
    rules = policy(grouped("help", CRM, **settings), grouped("sales", bypass_spam_filter=True))
    arguments = ["<help@solarmora.com>", "<sales@solarmora.com>"]
    decision = run(rules, *arguments, fields=fields, size=20)
    assert fates(decision) == [fate, ROUTED]
    assert targets(decision) == [SALES]


def test_what_is_left_is_not_merged():
    rules = policy(grouped("help", CRM, bypass_spam_filter=True), SECOND)
    decision = run(rules, "<help@solarmora.com>", "<sales@solarmora.com>", fields=[YES])
    assert fates(decision) == [ROUTED, (Action.LEFT, Reason.SPAM)]
    assert decision.remove == ("help@solarmora.com",)  # sales@ keeps its mailbox


def test_a_rule_that_only_copies_is_neither():
    copying = rule("help", "help@solarmora.com", copies=("a@x.example",), case_group="zendesk")
    decision = run(policy(copying, SECOND), "<help@solarmora.com>", "<sales@solarmora.com>")
    assert fates(decision) == [(Action.COPIED, None), ROUTED]
    assert decision.remove == ("sales@solarmora.com",)


def test_what_a_merged_rule_copies_is_copied():
    copying = grouped("sales", copies=(Copy("team@x.example"), Copy("boss@x.example", True)))
    rules = policy(FIRST, copying)
    arguments = ["<help@solarmora.com>", "<sales@solarmora.com>"]
    decision = run(rules, *arguments)
    assert targets(decision) == ["boss@x.example", CRM, "team@x.example"]
    opened = policy(grouped("help", CRM, bypass_spam_filter=True), copying)
    assert targets(run(opened, *arguments, fields=[YES])) == [CRM]


def test_one_that_is_held_is_one_case_when_it_is_released():
    holding = [grouped(name, on_spam=OnSpam.QUARANTINE) for name in ("help", "sales")]
    decision = run(policy(*holding), "<help@solarmora.com>", "<sales@solarmora.com>", fields=[YES])
    assert decision.hold
    assert targets(decision) == ["help@crm.example"]
    assert [action for action, _ in fates(decision)] == [Action.QUARANTINED, Action.MERGED]


def test_a_refusal_is_for_the_whole_message():
    rejecting = [grouped(name, on_spam=OnSpam.REJECT) for name in ("help", "sales")]
    decision = run(
        policy(*rejecting), "<help@solarmora.com>", "<sales@solarmora.com>", fields=[YES]
    )
    assert decision.reply is Reply.REJECT_SPAM


@pytest.mark.parametrize(
    "arguments",
    [
        ["<help@solarmora.com>", "<Help@solarmora.com>"],
        ["<help@solarmora.com>", "<help+x@solarmora.com>"],
        ["<help@solarmora.com>", "<help@solarmora.com>"],
        ["<help@solarmora.com>", "<hilfe@solarmora.com>"],
    ],
)
def test_addresses_of_one_rule_with_one_target_are_one_case_already(arguments):
    both = rule("r", "help@solarmora.com hilfe@solarmora.com", CRM, case_group="zendesk")
    decision = run(policy(both, delimiter="+"), *arguments)
    assert {*fates(decision)} == {ROUTED}
    assert targets(decision) == [CRM]


def test_addresses_of_one_rule_with_several_targets_are_merged():
    wide = rule("r", "@solarmora.com", "@zendesk.example", case_group="zendesk")
    arguments = [f"<{name}@solarmora.com>" for name in ("b", "a", "B", "c", "a")]
    decision = run(policy(wide), *arguments)
    assert targets(decision) == ["a@zendesk.example"]
    assert [action for action, _ in fates(decision)] == [
        Action.MERGED, Action.REROUTED, Action.MERGED, Action.MERGED, Action.REROUTED
    ]  # fmt: skip
    assert {*decision.remove} == {f"{name}@solarmora.com" for name in "abcB"}


def test_two_rules_with_one_target_are_merged_as_well():
    decision = run(
        policy(FIRST, grouped("sales", CRM)), "<help@solarmora.com>", "<sales@solarmora.com>"
    )
    assert targets(decision) == [CRM]
    assert fates(decision) == [ROUTED, MERGED]


def test_an_address_that_is_owed_a_copy_stays():
    rules = policy(grouped("help", CRM, copies=("sales@solarmora.com",)), SECOND)
    decision = run(rules, "<help@solarmora.com>", "<sales@solarmora.com>")
    assert decision.remove == ("help@solarmora.com",)
    assert targets(decision) == [CRM]


def test_a_test_rule_merges_nothing_and_is_told_as_if_it_were_enforced():
    tested = grouped("help", CRM, mode=Mode.TEST)
    rules = policy(tested, SECOND, THIRD)
    arguments = [f"<{name}@solarmora.com>" for name in ("help", "sales", "info")]
    decision = run(rules, *arguments)
    assert targets(decision) == [SALES]
    assert decision.remove == ("info@solarmora.com", "sales@solarmora.com")
    assert [(each.action, each.into, each.test) for each in decision.outcomes] == [
        (Action.REROUTED, "", True), (Action.REROUTED, "", False), (Action.MERGED, "sales", False)
    ]  # fmt: skip
    later = policy(FIRST, grouped("sales", mode=Mode.TEST))
    decision = run(later, *arguments[:2])
    assert [each.action for each in decision.outcomes] == [Action.REROUTED, Action.MERGED]
    assert decision.remove == ("help@solarmora.com",)
    line = outcome_line("q", decision.outcomes[1], decision.judgement)
    assert line.startswith("q: would_merge: to=<sales@solarmora.com> rule=sales into=help ")
    assert recipient_outcome(decision.outcomes[1]) == "test"


GROUP = "unrouted_to: it@y.example\nspam: rspamd\ndead_letters: d@mailboxes.example\nrules:\n"
MEMBER = (
    "  - {{name: {0}, match: {0}@solarmora.com, replace_with: {0}@crm.example, case_group: g{1}}}\n"
)
TEST = ", mode: test"


@pytest.mark.parametrize(
    ("modes", "warned"),
    [
        (("", ""), []),
        (("", TEST), ["a"]),
        ((TEST, "", TEST), ["b"]),
        (("", TEST, ""), []),
        ((TEST, TEST), []),  # both go live together
    ],
)
def test_a_group_whose_other_members_are_in_test_mode_has_no_effect(modes, warned):
    members = [MEMBER.format(name, mode) for name, mode in zip("abc", modes, strict=False)]
    found = parse(GROUP + "".join(members), Path("/etc/c.yaml")).warnings
    told = [each for each in found if each.key.endswith("case_group")]
    assert [members[each.line - 5].partition(",")[0][-1] for each in told] == warned
    assert all("has no effect: all other rules" in each.message for each in told)


def test_it_is_said():
    rules = policy(FIRST, grouped("sales", copies=("team@x.example",)))
    arguments = ["<help@solarmora.com>", "<sales@solarmora.com>"]
    decision = run(rules, *arguments)
    line = outcome_line("4bXq1Z", decision.outcomes[1], decision.judgement)
    assert line == (
        "4bXq1Z: merged: to=<sales@solarmora.com> rule=sales into=help copies=1 verdict=ham"
    )
    read = decided(Line(None, "crm-milter", "4bXq1Z", line.removeprefix("4bXq1Z: ")))
    assert (read.action, read.to, read.rule) == ("merged", "sales@solarmora.com", "sales")
    assert [*map(recipient_outcome, decision.outcomes)] == ["replaced", "merged"]
    assert message_outcome(decision) == "rerouted"
    story = explain(rules, "<joe@x.example>", [each.strip("<>") for each in arguments], b"\n")
    assert "explain: merged: to=<sales@solarmora.com> rule=sales into=help" in "\n".join(
        lines(story)
    )
    assert [each["action"] for each in as_json(story)["decision"]["outcomes"]] == [
        "rerouted", "merged"
    ]  # fmt: skip
    assert [rule_json(each)["case_group"] for each in (FIRST, HELP)] == ["zendesk", None]


def own(decision):
    return [each for each in decision.headers if each[0] != "X-CRM-Milter"]


FIELDS = (("X-Original", "{recipient}"), ("X-Rule", "{rule}"), ("X-All", "1"))


def test_the_crm_is_told_of_the_address_that_was_routed_and_no_other():
    adding = [grouped(name, add_headers=FIELDS) for name in ("help", "sales")]
    arguments = ["<help@solarmora.com>", "<sales@solarmora.com>"]
    assert own(run(policy(*adding), *arguments)) == [
        ("X-Original", "help@solarmora.com"), ("X-Rule", "help"), ("X-All", "1")
    ]  # fmt: skip
    # Who gets the copy of sales@ must not learn that the mail was for help@ as well.
    copying = [adding[0], grouped("sales", add_headers=FIELDS, copies=("team@x.example",))]
    assert own(run(policy(*copying), *arguments)) == [("X-All", "1")]


def test_dead_letters_are_those_of_the_rule_that_is_routed():
    boxes = [grouped(name, dead_letters=f"lost-{name}@x.example") for name in ("help", "sales")]
    arguments = ["<help@solarmora.com>", "<sales@solarmora.com>"]
    assert run(policy(*boxes), *arguments).envelope_sender == "lost-help@x.example"
    beside = run(policy(*boxes), *arguments, "<alice@x.example>")
    assert targets(beside) == ["help@crm.example", "lost-help@x.example"]
    assert [each.insured for each in beside.outcomes] == ["lost-help@x.example", ""]


def test_mail_that_was_merged_does_not_come_round():
    rules = policy(FIRST, SECOND)
    decision = run(rules, "<help@solarmora.com>", "<sales@solarmora.com>")
    marked = [(name.lower(), value) for name, value in decision.headers]
    for name in ("help", "sales"):
        again = run(rules, f"<{name}@solarmora.com>", fields=[*marked, NO])
        assert fates(again) == [(Action.LEFT, Reason.LOOP)]


def test_a_header_condition_decides_first_which_rule_it_is():
    direct = grouped("help", CRM, addressed=Addressed.TO)
    rules = policy(direct, SECOND)
    waits = recipient(rules, "<help@solarmora.com>")._replace(waits=True)
    for to, expected in (("help@solarmora.com", CRM), ("sales@solarmora.com", SALES)):
        decision = run(rules, waits, "<sales@solarmora.com>", fields=[("to", to), NO])
        assert targets(decision) == [expected]


def test_mail_from_sendmail_is_merged_by_its_bare_name():
    decision = run(
        policy(FIRST, SECOND), "help@solarmora.com", "sales@solarmora.com", by_smtp=False
    )
    assert targets(decision) == [CRM]
    assert {*decision.remove} == {"help", "help@solarmora.com", "sales", "sales@solarmora.com"}
