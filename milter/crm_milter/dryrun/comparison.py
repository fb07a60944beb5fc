"""What a case expects, compared with what was decided: the differences, as lines."""

from collections.abc import Iterator
from dataclasses import dataclass

from crm_milter import address as addresses
from crm_milter.dryrun.cases import NONE, Case, Expected
from crm_milter.dryrun.decided import Decided, DryRun
from crm_milter.routing.decision import WOULD, Outcome, Recipient
from crm_milter.wording import printable

_ADDRESSES = ("targets", "copies")


@dataclass(frozen=True, slots=True)
class Result:
    """A case that was run; no differences, no failure."""

    case: Case
    differences: tuple[str, ...] = ()


def run(case: Case, rules: DryRun) -> Result:
    """Return what a case comes to."""
    decided = rules.decided(case.mail)
    lines: list[str] = []
    for expected in case.expected:
        for recipient in decided.envelope.recipients:
            if expected.to in ("", recipient.address):
                lines += _compared(expected, recipient, decided)
    return Result(case, tuple(lines))


def _compared(expected: Expected, recipient: Recipient, decided: Decided) -> Iterator[str]:
    """Yield nothing if all is as expected, else each word, with - and + where it differs."""
    actual = _words(_meant(expected, recipient, decided))
    if all(_same(key, value, actual[key]) for key, value in expected.words.items()):
        return
    yield f"  to: {printable(recipient.address)}"
    for key, value in actual.items():
        wanted = expected.words.get(key)
        if wanted is not None and not _same(key, wanted, value):
            yield f"- {key}: {_written(key, wanted)}"
            yield f"+ {key}: {_written(key, value)}"
        elif wanted is not None or value not in ((), (NONE,)):
            yield f"  {key}: {_written(key, value)}"


def _meant(expected: Expected, recipient: Recipient, decided: Decided) -> Outcome | None:
    """Return the outcome that is meant: of the rules that act, the one that is named.

    Rules in mode test are meant only by an action that they have: what they do is not done.
    """
    every = decided.decision.outcomes if decided.decision else ()
    outcomes = [each for each in every if each.recipient is recipient]
    if not set(WOULD.values()) & set(expected.words.get("action", ())):
        outcomes = [each for each in outcomes if not each.test]
    named = [each for each in outcomes if (each.rule.name,) == expected.words.get("rule")]
    return next(iter([*named, *outcomes]), None)


def _words(outcome: Outcome | None) -> dict[str, tuple[str, ...]]:
    """Return the words of the log for an outcome, None for a recipient without a rule."""
    if outcome is None:
        return {"rule": (NONE,), "action": (NONE,), "reason": (NONE,), "targets": (), "copies": ()}
    action = WOULD[outcome.action] if outcome.test else outcome.action.value
    return {
        "rule": (outcome.rule.name,),
        "action": (action,),
        "reason": (outcome.reason.value if outcome.reason else NONE,),
        "targets": outcome.targets if outcome.reason is None else (),
        "copies": tuple(each.address for each in outcome.copies),
    }


def _same(key: str, one: tuple[str, ...], other: tuple[str, ...]) -> bool:
    if key in _ADDRESSES:
        return {addresses.normalise(e) for e in one} == {addresses.normalise(e) for e in other}
    return one == other


def _written(key: str, value: tuple[str, ...]) -> str:
    text = ", ".join(map(printable, value))
    return f"[{text}]" if key in _ADDRESSES and len(value) != 1 else text
