"""The flood guard: what happens to mail that a rule would route, and of which there is too much.

It is asked last, and only for what would be routed: mail that is left for another reason is not
counted. The meter, which remembers, is passed in; it is asked once a message and rule.
"""

from collections.abc import Callable

from crm_milter.routing.agreement import settled
from crm_milter.routing.decision import Action, Envelope, Outcome, Reason
from crm_milter.routing.facts import Facts
from crm_milter.rules.flood import OnFlood, Per
from crm_milter.rules.rule import Rule

# Tells whether there is too much of what these words name, and counts one more if there is not.
Meter = Callable[[Rule, str, str], bool]

_NONE: frozenset[str] = frozenset()
_ROUTED = (Action.REROUTED, Action.COPIED)
_ACTIONS = {
    OnFlood.TEMPFAIL: Action.TEMPFAILED,
    OnFlood.LEAVE: Action.LEFT,
    OnFlood.HOLD: Action.QUARANTINED,
}


def within_limits(
    outcomes: tuple[Outcome, ...],
    ask: Callable[[tuple[Rule, ...]], frozenset[str]],
    without: Callable[[frozenset[str]], tuple[Outcome, ...]],
) -> tuple[Outcome, ...]:
    """Return the outcomes, ``without`` what is over the limit of its rule.

    What was merged into such a one may be routed in its place, and its rule is asked then.
    """
    over, rules = _NONE, limited(outcomes)
    known = {each.name for each in rules}
    while rules and (more := ask(rules)):
        over |= more
        outcomes = without(over)
        rules = tuple([each for each in limited(outcomes) if each.name not in known])
        known |= {each.name for each in rules}
    return outcomes


def limited(outcomes: tuple[Outcome, ...]) -> tuple[Rule, ...]:
    """Return the rules with a limit that would route something, each once."""
    rules = {each.rule.name: each.rule for each in outcomes if _is_counted(each)}
    return tuple(rules.values())


def asked(
    rules: tuple[Rule, ...], envelope: Envelope, facts: Facts, meter: Meter
) -> frozenset[str]:
    """Return the names of those that have routed enough of this; the others count it."""
    over = _NONE
    for rule in rules:
        if _counts(rule, envelope) and meter(rule, *_counted_by(rule, envelope, facts)):
            over |= {rule.name}
    return over


def guarded(
    outcomes: tuple[Outcome, ...], envelope: Envelope, over: frozenset[str]
) -> tuple[Outcome, ...]:
    """Return the outcomes, those over the limit of their rule as it says."""
    wished = [
        _over(each) if each.rule.name in over and _is_counted(each) else each for each in outcomes
    ]
    return settled(wished, envelope)


def _is_counted(outcome: Outcome) -> bool:
    return outcome.rule.flood is not None and outcome.action in _ROUTED


def _counts(rule: Rule, envelope: Envelope) -> bool:
    return rule.flood is not None and not rule.flood.exempts(envelope.sender)


def _counted_by(rule: Rule, envelope: Envelope, facts: Facts) -> tuple[str, str]:
    """Return the sender and, if the rule tells subjects apart, the subject.

    The null sender is that of all bounces and many automatic replies: the author tells them apart.
    """
    sender = envelope.sender or min(facts.authors, default="")
    by_subject = rule.flood is not None and rule.flood.per is Per.SUBJECT
    return sender, facts.subject if by_subject else ""


def _over(outcome: Outcome) -> Outcome:
    then = outcome.rule.flood.then if outcome.rule.flood else OnFlood.COUNT
    action = _ACTIONS.get(then, outcome.action)
    copies = () if action in (Action.LEFT, Action.TEMPFAILED) else outcome.copies
    return outcome._replace(action=action, reason=Reason.FLOOD, copies=copies)
