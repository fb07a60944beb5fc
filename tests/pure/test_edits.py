"""The net change by itself: what no decision may lead to is refused there, whoever asks for it."""

import itertools

import pytest
from rows import NO, policy, recipient, rule, run

from crm_milter.routing.decision import Action, Envelope, Outcome
from crm_milter.routing.edits import edits
from crm_milter.spam.verdict import UNJUDGED


def test_the_last_recipient_is_never_removed():
    """It would be accepted with 250 and gone (doc/postfix-milter.md 2.7): rather 451."""
    rules = policy(drop := rule("drop", "help@solarmora.com", "d@crm.example"))
    lone = recipient(rules, "<help@solarmora.com>")
    for discarded in ((lone,), (lone, lone._replace(raw="Help@solarmora.com"))):
        outcomes = tuple(Outcome(each, drop, Action.DISCARDED) for each in discarded)
        with pytest.raises(RuntimeError, match="envelope empty"):
            edits(Envelope("joe@x.example", discarded), outcomes, UNJUDGED)
        stays = recipient(rules, "<alice@solarmora.com>")
        decision = edits(Envelope("joe@x.example", (*discarded, stays)), outcomes, UNJUDGED)
        assert decision.remove == tuple(sorted(each.raw for each in discarded))


SALES = rule("sales", "sales@solarmora.com", "s@crm.example")
HELP = rule("help", "help@solarmora.com", "h@crm.example", copies=("sales@solarmora.com",))


def local(rules, raw, address):
    """A recipient of sendmail(1): Postfix says which address a bare local part stands for."""
    return recipient(rules, address)._replace(raw=raw, address=address, bracketed=False)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_bare_spelling_of_a_record_that_is_kept_is_not_deleted(order):
    """The record "sales" stays for the copy; deleted as the bare form of the other it is lost."""
    rules = policy(SALES, HELP)
    typed = [
        local(rules, "sales", "sales@solarmora.com"),
        local(rules, "sales@solarmora.com", "sales@solarmora.com"),
        local(rules, "help@solarmora.com", "help@solarmora.com"),
    ]
    decision = run(rules, *(typed[number] for number in order), by_smtp=False)
    assert decision.remove == ("help", "help@solarmora.com", "sales@solarmora.com")
    assert [each.address for each in decision.add] == ["h@crm.example", "s@crm.example"]


@pytest.mark.parametrize("order", list(itertools.permutations(("sales", "help"))))
def test_a_record_that_is_kept_with_its_domain_keeps_its_bare_spelling(order):
    decision = run(policy(SALES, HELP), *(f"{name}@solarmora.com" for name in order), by_smtp=False)
    assert decision.remove == ("help", "help@solarmora.com")


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_bare_spelling_of_a_kept_record_in_another_spelling_is_not_deleted(order):
    """It was perhaps typed "sales", shown as sales@solarmora.com, and is what stays."""
    typed = ["sales@solarmora.com", "sales@solarmora.com.", "help@solarmora.com"]
    decision = run(policy(SALES, HELP), *(typed[number] for number in order), by_smtp=False)
    assert decision.remove == ("help", "help@solarmora.com", "sales@solarmora.com.")


def test_a_local_part_without_a_domain_that_no_rule_matches_is_not_deleted():
    for order in (["help", "help@solarmora.com"], ["help@solarmora.com", "help"]):
        decision = run(policy(HELP), *order, by_smtp=False)
        assert decision.remove == ("help@solarmora.com",)


def test_a_field_of_one_rule_is_not_added_to_the_mail_of_all():
    fields = (("X-Original", "help"),)
    one = rule("one", "help@solarmora.com", "h@crm.example", add_headers=fields)
    for other_fields in ((), (("X-Original", "info"),), (("X-Other", "help"),)):
        other = rule("two", "info@solarmora.com", "i@crm.example", add_headers=other_fields)
        for names in (("help", "info"), ("info", "help")):
            arguments = [f"<{name}@solarmora.com>" for name in names]
            for rules in (policy(one, other), policy(other, one)):
                added = {name for name, _ in run(rules, *arguments, fields=[NO]).headers}
                assert added == {"X-CRM-Milter"}


@pytest.mark.parametrize(
    ("argument", "removed"),
    [
        ("<@relay.example:help@solarmora.com>", "help@solarmora.com"),
        ('<@relay.example:"a:help"@solarmora.com>', '"a:help"@solarmora.com'),
        ("<@a.example,@b.example:help@solarmora.com>", "help@solarmora.com"),
        ('<@a.example:"b:c:d"@solarmora.com>', '"b:c:d"@solarmora.com'),
    ],
)
def test_a_source_route_ends_at_its_first_colon(argument, removed):
    rules = policy(rule("all", "@solarmora.com", "h@crm.example"))
    assert run(rules, argument).remove == (removed,)


def test_fields_are_added_where_the_target_itself_is_the_only_other_recipient():
    adding = rule("one", "help@solarmora.com", "h@crm.example", add_headers=(("X-A", "b"),))
    decision = run(policy(adding), "<help@solarmora.com>", "<h@crm.example>", fields=[NO])
    assert [name for name, _ in decision.headers] == ["X-CRM-Milter", "X-A"]
