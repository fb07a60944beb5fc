"""Real mail followed through the log: who sent it, what was decided, what became of it.

A queue id leads to its message and to those that it became: re-injected by a content filter,
forwarded, bounced. An address leads to every message that names it, as sender or recipient.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from crm_milter import address as addresses
from crm_milter.trace.history import MessageHistory, group_by_message
from crm_milter.trace.lines import Line
from crm_milter.trace.sources import Source

_MAX_ROUNDS = 4  # from the message to its bounce, and a few more
_REFUSALS = ("reject:", "milter-reject:")
_AGO = re.compile(r"-?(\d{1,6})([mhdw])", re.ASCII)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class Found:
    """The messages that were asked for, and refusals that never got a queue id."""

    journeys: list[MessageHistory]
    refusals: list[Line]
    left_out: int = 0  # older messages, beyond the limit

    def __bool__(self) -> bool:
        return bool(self.journeys or self.refusals)


def since(text: str) -> datetime:
    """Return the time that a person means by ``2h``, ``yesterday`` or ``2026-11-22 10:00``.

    Raises ValueError with what is understood.
    """
    now = datetime.now().astimezone()
    today = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if text in ("today", "yesterday"):
        return today if text == "today" else today - timedelta(days=1)
    try:
        if ago := _AGO.fullmatch(text):
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):
        expected = '"30m", "2h", "3d", "1w", "today", "yesterday" or "2026-11-22 10:00"'
        raise ValueError(f'invalid time "{text}"; expected {expected}') from None


def by_address(sources: list[Source], address: str, limit: int) -> Found:
    """Return the newest messages, at most ``limit``, that name an address."""
    words = [f"<{each}>" for each in spellings(address)]
    queue_ids: dict[str, None] = {}
    refusals = []
    for source in sources:
        for line in source.lines(words, fold=True):
            if line.queue_id:
                queue_ids.pop(line.queue_id, None)  # to the end: seen last
                queue_ids[line.queue_id] = None
            elif "NOQUEUE: " in line.text and any(word in line.text for word in _REFUSALS):
                refusals.append(line)
    left_out = max(0, len(queue_ids) - limit)
    newest = frozenset(list(queue_ids)[left_out:])
    named = [
        each
        for each in by_queue_ids(sources, newest)
        if each.queue_id not in newest or _names(each, words)
    ]
    return Found(named, refusals[-limit:], left_out)


def spellings(address: str) -> list[str]:
    """Return how a log may write an address, in lower case: with A-labels and as it was given."""
    normal = addresses.written(addresses.normalise(address))
    return list(dict.fromkeys([normal, address.lower()]))


def _names(journey: MessageHistory, words: list[str]) -> bool:
    """Tell whether this message, not another one with its queue id, has one of the words."""
    return any(word in line.text.lower() for line in journey.lines for word in words)


def by_queue_ids(sources: list[Source], queue_ids: frozenset[str]) -> list[MessageHistory]:
    """Return messages, and those that they lead to or that led to them."""
    known: set[str] = set()
    lines: list[Line] = []
    for _ in range(_MAX_ROUNDS):
        new = queue_ids - known
        if not new:
            break
        known |= new
        leading = set()
        for source in sources:
            for line in source.entries(new):
                if line.queue_id in new:
                    lines.append(line)
                    leading.update(line.links)
                elif line.queue_id and new.intersection(line.links):
                    leading.add(line.queue_id)
        queue_ids = queue_ids | leading
    return group_by_message(lines)
