"""Messages of the mail log as text and as JSON."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from crm_milter.trace.history import MessageHistory
from crm_milter.trace.lines import Delivery, Line, decided, delivery
from crm_milter.trace.search import Found
from crm_milter.wording import counted, printable

_MARGIN = 4 * " "


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


def _story(journey: MessageHistory) -> Iterator[str]:
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
    elif not journey.is_finished:
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
            yield until, f"same result {counted(again, 'more time')}"
            again = 0
        yield line.time, words
    if again:
        yield until, f"same result {counted(again, 'more time')}"


def delivery_words(attempt: Delivery) -> str:
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


def _journey_json(journey: MessageHistory) -> dict[str, Any]:
    return {
        "queue_id": journey.queue_id,
        "sender": journey.sender,
        "size": journey.size,
        "message_id": journey.message_id,
        "over": journey.is_finished,
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
