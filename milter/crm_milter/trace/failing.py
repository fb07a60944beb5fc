"""Targets that mail does not reach, such as a CRM that is down, which goes unnoticed otherwise.

Decisions of crm-milter are joined with Postfix's deliveries by queue id. A target fails for a
message if the last attempt was deferred or bounced; one that was reached in the end does not.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from crm_milter import address as addresses
from crm_milter.trace.file import LogError
from crm_milter.trace.history import in_order
from crm_milter.trace.lines import Delivery, Line, decided, delivery
from crm_milter.trace.sources import Source
from crm_milter.wording import printable

_OURS = (": rerouted: to=<", ": quarantined: to=<")
_MANY = 32  # targets; beyond, every delivery is looked at
_SHOWN_IDS = 5
_EXPIRED = re.compile(r"from=<.*?>, status=(?:force-)?expired")


@dataclass(slots=True)
class Failing:
    """One target, and its messages that have not reached it, by queue id."""

    target: str
    rules: set[str] = field(default_factory=set)
    recipients: set[str] = field(default_factory=set)
    sent: int = 0
    last_sent: datetime | None = None
    waiting: dict[str, Delivery] = field(default_factory=dict)
    bounced: dict[str, Delivery] = field(default_factory=dict)

    @property
    def last(self) -> Delivery:
        """Return the newest of the failures."""
        return list((self.waiting or self.bounced).values())[-1]

    def take(self, queue_id: str, attempt: Delivery) -> None:
        """Count an attempt."""
        self.waiting.pop(queue_id, None)
        if attempt.status == "sent":
            self.sent += 1
            self.last_sent = attempt.time
        elif attempt.status == "deferred":
            self.waiting[queue_id] = attempt
        elif attempt.failed:
            self.bounced[queue_id] = attempt


def failing(sources: list[Source], address: str | None = None) -> list[Failing]:
    """Return the targets that fail, the worst first; those of one address, old or new.

    Raises LogError if the log cannot show what became of the messages.
    """
    targets, routed = _routed(sources, addresses.normalise(address) if address else None)
    if routed:
        if not any(each.holds(_is_of_postfix) for each in sources):
            raise LogError("no line of Postfix in the log, only those of crm-milter; see --log")
        _deliveries(sources, targets, routed)
    failed = [each for each in targets.values() if each.waiting or each.bounced]
    return sorted(failed, key=lambda each: -len(each.waiting) - len(each.bounced))


def is_ours(line: Line) -> bool:
    """Tell whether a line is a decision of crm-milter."""
    return decided(line) is not None


def _is_of_postfix(line: Line) -> bool:
    return line.is_of_mail and line.program != "crm-milter" and not decided(line)


def _routed(
    sources: list[Source], address: str | None
) -> tuple[dict[str, Failing], dict[str, tuple[str, ...]]]:
    """Return the targets by address, and what each message was rerouted to."""
    targets: dict[str, Failing] = {}
    routed: dict[str, tuple[str, ...]] = {}
    for source in sources:
        for line in source.lines(_OURS):
            what = decided(line)
            if what is None or what.test:
                continue
            new = tuple(addresses.normalise(each) for each in what.new)
            if address and address not in (*new, addresses.normalise(what.to)):
                continue
            routed[line.queue_id] = tuple({*routed.get(line.queue_id, ()), *new})
            for target in new:
                known = targets.setdefault(target, Failing(target))
                known.rules.add(what.rule or "?")
                known.recipients.add(what.to)
    return targets, routed


def _deliveries(
    sources: list[Source], targets: dict[str, Failing], routed: dict[str, tuple[str, ...]]
) -> None:
    few = len(targets) <= _MANY
    words = [f"to=<{addresses.written(each)}>" for each in targets] if few else [", status="]
    found = (
        line
        for source in sources
        for line in source.lines([*words, "expired, returned"], fold=True)
        if line.queue_id in routed
    )
    for line in in_order(found):
        own = routed[line.queue_id]
        attempt = delivery(line)
        if attempt:
            _take(targets, own, line.queue_id, attempt)
        elif _EXPIRED.match(line.text):
            _expire(targets, own, line.queue_id)


def _take(
    targets: dict[str, Failing], own: tuple[str, ...], queue_id: str, attempt: Delivery
) -> None:
    for name in (attempt.to, attempt.original):
        target = addresses.normalise(name)
        if target in own:
            targets[target].take(queue_id, attempt)
            return


def _expire(targets: dict[str, Failing], own: tuple[str, ...], queue_id: str) -> None:
    for target in own:
        waiting = targets[target].waiting.pop(queue_id, None)
        if waiting:
            targets[target].bounced[queue_id] = waiting


def text(failed: list[Failing]) -> Iterator[str]:
    """Yield the targets as a person reads them."""
    for number, each in enumerate(failed):
        if number:
            yield ""
        counts = [f"{len(each.waiting)} deferred"] if each.waiting else []
        counts += [f"{len(each.bounced)} bounced"] if each.bounced else []
        yield f"<{each.target}>: {', '.join(counts)}, {each.sent} sent{_last_sent(each)}"
        recipients = ", ".join(f"<{printable(to)}>" for to in sorted(each.recipients))
        yield f"    rule {', '.join(sorted(each.rules))}, for {recipients}"
        yield f"    {each.last.status} by {each.last.relay}: {printable(each.last.words)}"
        queue_ids = [*each.waiting, *each.bounced]
        more = f" and {len(queue_ids) - _SHOWN_IDS} more" if len(queue_ids) > _SHOWN_IDS else ""
        yield f"    messages {', '.join(queue_ids[-_SHOWN_IDS:])}{more}"


def _last_sent(failed: Failing) -> str:
    return f", last sent at {failed.last_sent:%Y-%m-%d %H:%M:%S}" if failed.last_sent else ""


def as_json(failed: list[Failing]) -> list[dict[str, Any]]:
    """Return the targets as what json.dumps takes."""
    return [
        {
            "target": each.target,
            "rules": sorted(each.rules),
            "recipients": sorted(each.recipients),
            "sent": each.sent,
            "last_sent": each.last_sent.isoformat() if each.last_sent else None,
            "deferred": list(each.waiting),
            "bounced": list(each.bounced),
            "status": each.last.status,
            "relay": each.last.relay,
            "reply": each.last.words,
        }
        for each in failed
    ]
