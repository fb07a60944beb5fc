"""The result of a replay, as text and as what json.dumps takes."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

from crm_milter.dryrun import advice
from crm_milter.dryrun.envelopes import day
from crm_milter.dryrun.tally import RuleTally, Tally
from crm_milter.routing.decision import WOULD, Action
from crm_milter.wording import counted

_SENDERS = 3
_AS_ROUTED = {
    Action.REROUTED.value,
    Action.COPIED.value,
    WOULD[Action.REROUTED],
    WOULD[Action.COPIED],
}


def text(tally: Tally) -> Iterator[str]:
    """Yield the report."""
    yield _summary(tally)
    for each in tally.rules.values():
        yield ""
        yield from _rule(each)
    written = list(_written(tally))
    if written:
        yield ""
        yield "Lines to write:"
        yield from written


def _summary(tally: Tally) -> str:
    when = ""
    if tally.first is not None and tally.last is not None:
        when = f", {day(tally.first)} to {day(tally.last)}"
    guessed = f" ({tally.guessed} by To or Cc)" if tally.guessed else ""
    messages = counted(tally.messages, "message")
    return f"{messages}{when}; rules match {tally.matched} of them{guessed}"


def _rule(tally: RuleTally) -> Iterator[str]:
    crm = f" ({tally.crm.name})" if tally.crm else ""
    actions = ", ".join(f"{count} {name}" for name, count in sorted(tally.actions.items()))
    reasons = ", ".join(f"{name} {count}" for name, count in tally.reasons.most_common())
    why = f" ({reasons})" if reasons else ""
    yield f"rule {tally.rule.name}{crm}: {actions or 'no message'}{why}"
    if not tally.total:
        return
    biggest = sorted(tally.biggest, reverse=True)
    yield f"  biggest: {', '.join(f'{advice.megabytes(size)} {where}' for size, where in biggest)}"
    if tally.any_automatic:
        share = round(100 * tally.any_automatic / tally.total)
        classes = ", ".join(f"{each.value} {n}" for each, n in tally.automatic.most_common())
        yield f"  automatic: {tally.any_automatic} ({share} %): {classes}"
    if tally.forged:
        yield f"  DMARC failures: {tally.forged}"
    if tally.duplicates:
        yield f"  duplicates: {tally.duplicates}"
    yield from _fastest(tally)


def _fastest(tally: RuleTally) -> Iterator[str]:
    rate = tally.crm.rate if tally.crm else None
    for seconds in tally.windows:
        peaks = [each for each in islice(tally.rates.peaks(seconds), _SENDERS) if each.messages > 1]
        if peaks:
            found = ", ".join(f"{each.messages} {advice.written(each.sender)}" for each in peaks)
            known = rate is not None and rate.seconds == seconds
            limit = (
                f" ({tally.crm.name} takes {rate.count})" if tally.crm and rate and known else ""
            )
            yield f"  most in {seconds}s{limit}: {found}"


def _written(tally: Tally) -> Iterator[str]:
    for each in tally.rules.values():
        lines = list(advice.lines(each))
        if lines:
            yield f"  - name: {each.rule.name}"
            yield from (f"    {line.key}: {line.value}  # {line.why}" for line in lines)


def as_json(tally: Tally) -> dict[str, Any]:
    """Return the same."""
    return {
        "messages": tally.messages,
        "matched": tally.matched,
        "recipient_guessed": tally.guessed,
        "first": tally.first,
        "last": tally.last,
        "rules": [_rule_json(each) for each in tally.rules.values()],
    }


def _rule_json(tally: RuleTally) -> dict[str, Any]:
    return {
        "rule": tally.rule.name,
        "crm": tally.crm.name if tally.crm else None,
        "actions": dict(tally.actions),
        "reasons": dict(tally.reasons),
        "biggest": [
            {"size": size, "message": where} for size, where in sorted(tally.biggest, reverse=True)
        ],
        "automatic": tally.any_automatic,
        "automatic_by_class": {each.value: count for each, count in tally.automatic.items()},
        "dmarc_failures": tally.forged,
        "duplicates": tally.duplicates,
        "peaks": [
            {"sender": each.sender, "messages": each.messages, "seconds": seconds}
            for seconds in tally.windows
            for each in islice(tally.rates.peaks(seconds), _SENDERS)
        ],
        "write": {line.key: line.value for line in advice.lines(tally)},
    }


def by_hour(tally: Tally) -> tuple[list[float], list[int]]:
    """Return, for each hour of the day (UTC), the mean and the most messages that were routed."""
    hours = tally.hours
    if not hours:
        return [0.0] * 24, [0] * 24
    days = (max(hours) // 24) - (min(hours) // 24) + 1
    totals, peaks = [0] * 24, [0] * 24
    for hour, count in hours.items():
        totals[hour % 24] += count
        peaks[hour % 24] = max(peaks[hour % 24], count)
    return [total / days for total in totals], peaks
