"""One case for a message: of the recipients whose rules share a group, one is routed.

Several of a message's addresses may lead to one CRM, which would open a case for each. The others
are merged: removed, because the one that is routed is sure to be; what their rules copy is copied.
"""

from collections.abc import Iterable, Mapping

from crm_milter.routing.agreement import as_if_enforced
from crm_milter.routing.decision import Action, Outcome
from crm_milter.rules.rule import key

_ROUTED = (Action.REROUTED, Action.QUARANTINED)


def merged(outcomes: tuple[Outcome, ...], order: Mapping[str, int]) -> tuple[Outcome, ...]:
    """Return the outcomes with those merged that are not the first of their group.

    ``order`` has the place in the file of each rule that has a group. The first is that of the
    first rule and, of several addresses of one rule, that of the first in the alphabet: the order
    of recipients does not matter. What a test rule would come to is told as if it were enforced.
    """
    into = _merged([each for each in outcomes if not each.test], order)
    if any(each.test for each in outcomes):
        tested = _merged(as_if_enforced(outcomes), order)
        into |= {
            id(each): tested[id(each)] for each in outcomes if each.test and id(each) in tested
        }
    return tuple(_merge(each, into[id(each)]) if id(each) in into else each for each in outcomes)


def _merged(outcomes: Iterable[Outcome], order: Mapping[str, int]) -> dict[int, str]:
    """Return the outcomes to merge, by id, with the name of the rule that is routed instead."""
    groups: dict[object, list[Outcome]] = {}
    for each in outcomes:
        if each.rule.case_group and each.action in _ROUTED and each.targets:
            groups.setdefault((each.rule.case_group, each.rule.fence), []).append(each)
    into: dict[int, str] = {}
    for members in groups.values():
        first = min(members, key=lambda each: _rank(each, order))
        for each in members:
            if each is not first and not _is_same_case(each, first):
                into[id(each)] = first.rule.name
    return into


def _rank(outcome: Outcome, order: Mapping[str, int]) -> tuple[int, str, str]:
    return order[outcome.rule.name], outcome.recipient.address, outcome.recipient.raw


def _is_same_case(outcome: Outcome, first: Outcome) -> bool:
    """Tell whether both lead to the same: two spellings of an address, two addresses of a rule."""
    return outcome.rule is first.rule and {*map(key, outcome.targets)} == {*map(key, first.targets)}


def _merge(outcome: Outcome, into: str) -> Outcome:
    return outcome._replace(action=Action.MERGED, targets=(), into=into)
