"""The lines to write into rules, by what old mail would have done to the CRM."""

from collections.abc import Iterator
from typing import NamedTuple

from crm_milter.dryrun.rates import Peak
from crm_milter.dryrun.tally import MINUTE, RuleTally
from crm_milter.rules.rule import AutomaticClass
from crm_milter.wording import printable

# More than a person writes in a minute.
_FEWEST = 10


class Line(NamedTuple):
    """A key of a rule, its value in YAML, and why."""

    key: str
    value: str
    why: str


def lines(tally: RuleTally) -> Iterator[Line]:
    """Yield what a rule ought to have."""
    if not tally.total:
        return
    yield from _size(tally)
    yield from _automatic(tally)
    yield from _flood(tally)


def _size(tally: RuleTally) -> Iterator[Line]:
    largest = tally.crm.largest if tally.crm else None
    biggest = max(tally.biggest)[0] if tally.biggest else 0
    if tally.crm and largest and tally.rule.max_size is None and biggest > largest:
        why = f"{tally.crm.name} rejects larger ones; the biggest had {megabytes(biggest)}"
        yield Line("max_size", f"{largest >> 20}M", why)


def _automatic(tally: RuleTally) -> Iterator[Line]:
    """Yield the classes that answer to an answer: those make loops and cases without a question."""
    found = [
        each for each in (AutomaticClass.REPLY, AutomaticClass.BOUNCE) if tally.automatic[each]
    ]
    if found and not tally.rule.automatic:
        value = ", ".join(f"{each.value}: leave" for each in found)
        counts = ", ".join(f"{tally.automatic[each]} {each.value}" for each in found)
        yield Line("automatic", f"{{{value}}}", f"{counts} of {tally.total}")


def _flood(tally: RuleTally) -> Iterator[Line]:
    rate = tally.crm.rate if tally.crm else None
    seconds = rate.seconds if rate else MINUTE
    first, *others = [*tally.rates.peaks(seconds), Peak("", 0, seconds)]
    if tally.rule.flood is not None or not first.sender:
        return
    second = others[0].messages if others else 0
    sent = f"{written(first.sender)} sent {first.messages} in {seconds}s"
    if tally.crm and rate:
        if first.messages > rate.count:
            yield Line("flood", "auto", f"{sent}; {tally.crm.name} takes {rate.count}")
    elif first.messages > (limit := max(_FEWEST, 2 * second)):
        value = f"{{limit: {limit} in {seconds}s, per: sender, then: leave}}"
        yield Line("flood", value, f"{sent}, the others at most {second}")


def megabytes(size: int) -> str:
    """Return a size as the configuration has it, with one decimal."""
    return f"{size / (1 << 20):.1f}M" if size >= 1 << 20 else f"{-(-size // 1024)}k"


def written(sender: str) -> str:
    """Return a sender for a person."""
    return f"<{printable(sender)}>"
