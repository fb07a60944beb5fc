"""Real mail followed through the log: who sent it, what we decided, what became of it.

A queue id leads to its message and to those that it became: re-injected by a content filter,
forwarded, bounced. An address leads to every message that names it, as sender or recipient.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from crm_milter import address as addresses
from crm_milter.journey import Journey, journeys
from crm_milter.logsource import Source
from crm_milter.maillog import Delivery, Line, decided, delivery
from crm_milter.wording import printable

_MOST_ROUNDS = 4  # from the message to its bounce, and a few more
_MARGIN = 4 * " "
_REFUSALS = ("reject:", "milter-reject:")
_AGO = re.compile(r"-?(\d{1,6})([mhdw])", re.ASCII)
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class Found:
    """The messages that were asked for, and refusals that never got a queue id."""

    journeys: list[Journey]
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


def _names(journey: Journey, words: list[str]) -> bool:
    """Tell whether this message, not another one with its queue id, has one of the words."""
    return any(word in line.text.lower() for line in journey.lines for word in words)


def by_queue_ids(sources: list[Source], queue_ids: frozenset[str]) -> list[Journey]:
    """Return messages, and those that they lead to or that led to them."""
    known: set[str] = set()
    lines: list[Line] = []
    for _ in range(_MOST_ROUNDS):
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
    return journeys(lines)


def text(found: Found) -> Iterator[str]:
    """Yield the messages as a person reads them."""
    if found.left_out:
        yield f"{found.left_out} older messages not shown; see --limit and --since"
        yield ""
    for line in found.refusals:
        yield f"{_when(line.time)}  refused: {printable(line.text.removeprefix('NOQUEUE: '))}"
    if found.refusals and found.journeys:
        yield ""
    for number, journey in enumerate(found.journeys):
        if number:
            yield ""
        yield from _story(journey)


def _story(journey: Journey) -> Iterator[str]:
    size = f", {journey.size} bytes" if journey.size is not None else ""
    sender = f" from <{printable(journey.sender)}>" if journey.sender is not None else ""
    yield f"{journey.queue_id}{sender}{size}"
    for time, words in _steps(journey.lines):
        yield f"{_MARGIN}{_when(time)}  {printable(words)}"
    if journey.is_held:
        yield (
            f"{_MARGIN}on hold; postsuper -H {journey.queue_id} releases it, postsuper -d"
            f" {journey.queue_id} deletes it"
        )
    elif not journey.is_over:
        yield f"{_MARGIN}not finished yet, as far as this log shows"


def _when(time: datetime | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S") if time else 19 * " "


def _steps(lines: Iterable[Line]) -> Iterator[tuple[datetime | None, str]]:
    """Yield what happened; attempts that came to the same are told once."""
    last: dict[str, str] = {}
    again = 0
    until = None
    queued = False
    for line in lines:
        attempt = delivery(line)
        if attempt:
            words = delivery_words(attempt)
            if last.get(attempt.to) == words:
                again += 1
                until = line.time
                continue
            last[attempt.to] = words
        elif line.text.endswith("(queue active)"):
            if queued:
                continue
            queued = True
            words = "queued"
        else:
            words = _words(line)
        if again:
            yield until, f"same result {again} more {'time' if again == 1 else 'times'}"
            again = 0
        yield line.time, words
    if again:
        yield until, f"same result {again} more {'time' if again == 1 else 'times'}"


def delivery_words(attempt: Delivery) -> str:
    """Return an attempt to deliver in words."""
    original = f" (for <{attempt.original}>)" if attempt.original else ""
    via = f", by {attempt.relay}" if attempt.relay != "none" else ""
    return f"to <{attempt.to}>{original}: {attempt.status}{via}: {attempt.words}"


def _words(line: Line) -> str:
    text = line.text
    if decided(line):
        return f"crm-milter: {text}"
    if text.startswith("client="):
        return f"accepted from {text.removeprefix('client=')}"
    if text.startswith("uid="):
        return f"accepted from sendmail, {text}"
    if text == "removed":
        return "removed from the queue" if line.program != "postsuper" else "deleted by postsuper"
    return text


def as_json(found: Found) -> dict[str, Any]:
    """Return the messages as what json.dumps takes."""
    return {
        "left_out": found.left_out,
        "refusals": [{"time": _iso(each.time), "text": each.text} for each in found.refusals],
        "messages": [_journey_json(each) for each in found.journeys],
    }


def _journey_json(journey: Journey) -> dict[str, Any]:
    return {
        "queue_id": journey.queue_id,
        "sender": journey.sender,
        "size": journey.size,
        "message_id": journey.message_id,
        "over": journey.is_over,
        "held": journey.is_held,
        "decisions": [
            {
                "time": _iso(each.time),
                "action": each.action,
                "to": each.to,
                "new": list(each.new),
                "rule": each.rule,
                "reason": each.reason or None,
                "verdict": each.verdict or None,
                "test": each.test,
            }
            for each in journey.decided
        ],
        "deliveries": [
            {
                "time": _iso(each.time),
                "to": each.to,
                "orig_to": each.original or None,
                "relay": each.relay,
                "status": each.status,
                "reply": each.words,
            }
            for each in journey.deliveries
        ],
    }


def _iso(time: datetime | None) -> str | None:
    return time.isoformat() if time else None
