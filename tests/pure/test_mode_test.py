"""A rule in mode test is decided, logged and counted, and changes nothing for the others."""

from dataclasses import replace

import pytest
from rows import CRM, HELP, ID, NO, YES, fates, mark, policy, recipient, rule, run, targets

from crm_milter.routing.decision import Action, Reason, Reply
from crm_milter.routing.logline import outcome_line
from crm_milter.rules.conditions import ApplyTo
from crm_milter.rules.rule import Copy, Mode, OnOversize, OnSpam

TEST = {"mode": Mode.TEST}
VIP = rule("vip", "help@solarmora.com", "vip@crm.example", senders="vip@x.example", **TEST)
NEW = rule("new", "@solarmora.com", "new@crm.example", copies=("c@x.example",), **TEST)
BEHIND = rule("behind", "@solarmora.com", "all@crm.example")


def told(decision):
    return [(each.rule.name, each.test) for each in decision.outcomes]


@pytest.mark.parametrize("fields", [[NO], [YES], [], [NO, ID, ("x-crm-milter", mark("new", ID))]])
@pytest.mark.parametrize("sender", ["vip@x.example", "joe@x.example", ""])
@pytest.mark.parametrize("names", ["help", "help alice", "alice help bob", "help postmaster"])
@pytest.mark.parametrize("size", [0, 5000])
def test_mail_is_treated_as_if_the_test_rules_were_not_there(fields, sender, names, size):
    acting = [
        replace(HELP, max_size=2000, on_oversize=OnOversize.REJECT, on_spam=OnSpam.REJECT),
        replace(BEHIND, on_spam=OnSpam.REJECT),
    ]
    refusing = replace(NEW, on_spam=OnSpam.REJECT, max_size=1000, on_oversize=OnOversize.REJECT)
    arguments = [f"<{name}@solarmora.com>" for name in names.split()]
    without = run(policy(*acting), *arguments, fields=fields, sender=sender, size=size)
    for tested in ([VIP], [refusing], [VIP, refusing, NEW]):
        for at in range(3):
            rules = policy(*acting[:at], *tested, *acting[at:])
            decision = run(rules, *arguments, fields=fields, sender=sender, size=size)
            real = tuple(
                each._replace(recipient=None) for each in decision.outcomes if not each.test
            )
            assert real == tuple(each._replace(recipient=None) for each in without.outcomes)
            assert decision._replace(outcomes=()) == without._replace(outcomes=())


def test_each_is_told_before_the_rule_that_acts():
    rules = policy(VIP, NEW, HELP, BEHIND)
    decision = run(rules, "<help@solarmora.com>", "<alice@solarmora.com>", sender="vip@x.example")
    assert told(decision) == [
        ("vip", True),
        ("new", True),
        ("support", False),
        ("new", True),
        ("behind", False),
    ]
    assert targets(decision) == ["all@crm.example", CRM]
    line = outcome_line("q", decision.outcomes[0], decision.judgement)
    assert "vip@crm.example" in line
    assert "rule=vip" in line


def test_a_rule_behind_the_one_that_acts_is_not_reached():
    assert told(run(policy(HELP, NEW), "<help@solarmora.com>")) == [("support", False)]


def test_alone_it_is_told_and_nothing_is_done():
    decision = run(policy(NEW), "<help@solarmora.com>", "<alice@x.example>")
    assert told(decision) == [("new", True)]
    assert (decision.add, decision.remove, decision.headers, decision.reply) == (
        (),
        (),
        (),
        Reply.ACCEPT,
    )


def test_it_makes_no_loop_of_another_rule():
    cases = rule("cases", "case-*@solarmora.com", r"\1@crm.example")
    trial = rule("trial", "@crm.example", "x@y.example", **TEST)
    assert targets(run(policy(cases, trial), "<case-7@solarmora.com>")) == ["7@crm.example"]
    assert fates(
        run(policy(cases, replace(trial, mode=Mode.ENFORCE)), "<case-7@solarmora.com>")
    ) == [(Action.LEFT, Reason.LOOP)]


def test_it_is_told_what_it_would_come_to_if_it_were_enforced():
    refusing = replace(NEW, on_spam=OnSpam.REJECT)
    both = run(
        policy(refusing, replace(HELP, on_spam=OnSpam.REJECT)), "<help@solarmora.com>", fields=[YES]
    )
    assert both.reply is Reply.REJECT_SPAM
    assert [each.action for each in both.outcomes] == [Action.REJECTED, Action.REJECTED]
    mixed = run(policy(refusing, HELP), "<help@solarmora.com>", fields=[YES])
    assert mixed.reply is Reply.ACCEPT
    assert [each.action for each in mixed.outcomes] == [Action.REJECTED, Action.LEFT]
    alone = run(policy(refusing), "<help@solarmora.com>", "<alice@x.example>", fields=[YES])
    assert [each.action for each in alone.outcomes] == [Action.LEFT]


@pytest.mark.parametrize("match", ["help@solarmora.com", "@solarmora.com", "h*@solarmora.com", "*"])
def test_the_look_up_skips_it_however_it_matches(match):
    tested = rule("t", match, None, copies=(Copy("c@x.example"),), apply_to=ApplyTo.ALL, **TEST)
    table = policy(tested, HELP).table
    assert [each.rule.name for each in table.match("help@solarmora.com").chain()] == [
        "t",
        "support",
    ]
    assert [each.rule.name for each in table.possible("help@solarmora.com")] == ["support"]
    assert table.match("help@solarmora.com").behind.behind is None


def test_a_message_is_looked_at_for_the_sake_of_a_test_rule_alone():
    only = recipient(policy(NEW), "<help@solarmora.com>")
    assert only.match is not None
    assert only.match.behind is None
