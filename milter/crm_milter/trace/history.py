"""The way of one message through Postfix, put together from the lines of the log.

Postfix reuses short queue ids: lines after "removed", or after a second beginning, belong to
another message. Lines of crm-milter may have no time, or one from another clock, so they are
placed after the message's arrival and before Postfix acts on them.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from crm_milter.trace.lines import DecisionLine, Delivery, Line, decided, delivery

_BEGINNING = ("client=", "uid=")
_FROM = re.compile(r"from=<(?P<sender>.*?)>, size=(?P<size>\d+), nrcpt=\d+")
_MESSAGE_ID = re.compile(r"(?:resent-)?message-id=(?P<id>.*)")
_FIRST_ACT = re.compile(
    r"from=<.*?>, (?:size|status)=|to=<.*>, (?:orig_to=|relay=)|removed$|milter-[a-z]+: END-OF"
)
_EARLY = datetime.min.replace(tzinfo=datetime.now().astimezone().tzinfo)


@dataclass(frozen=True)
class MessageHistory:
    """All lines of one message in order, and what they tell."""

    queue_id: str
    lines: tuple[Line, ...]

    @cached_property
    def deliveries(self) -> tuple[Delivery, ...]:
        """Return every attempt to deliver, in order."""
        return tuple(found for line in self.lines if (found := delivery(line)))

    @cached_property
    def decided(self) -> tuple[DecisionLine, ...]:
        """Return our own lines."""
        return tuple(found for line in self.lines if (found := decided(line)))

    @cached_property
    def sender(self) -> str | None:
        """Return the envelope sender, None where the message did not come to the queue."""
        return next((m["sender"] for line in self.lines if (m := _FROM.match(line.text))), None)

    @cached_property
    def size(self) -> int | None:
        """Return the size in bytes, None as for the sender."""
        return next((int(m["size"]) for line in self.lines if (m := _FROM.match(line.text))), None)

    @cached_property
    def message_id(self) -> str:
        """Return the value of Message-ID, "" where it was not logged."""
        return next((m["id"] for line in self.lines if (m := _MESSAGE_ID.match(line.text))), "")

    @cached_property
    def last(self) -> dict[str, Delivery]:
        """Return the last attempt for each recipient."""
        return {each.to: each for each in self.deliveries}

    @property
    def is_finished(self) -> bool:
        """Tell whether Postfix is done with it."""
        return any(_ends(line) for line in self.lines)

    @property
    def is_held(self) -> bool:
        """Tell whether it was put on hold and not released."""
        held = False
        for line in self.lines:
            if line.text.startswith(("milter-hold: END-OF", "placed on hold")):
                held = True
            elif line.text.startswith("released from hold"):
                held = False
        return held and not self.is_finished


def _ends(line: Line) -> bool:
    text = line.text
    refused = text.startswith(("milter-reject: END-OF", "milter-discard: END-OF"))
    return refused or text == "removed"


def group_by_message(lines: Iterable[Line]) -> list[MessageHistory]:
    """Return the messages that lines with queue ids belong to, in order of their beginnings."""
    by_id: dict[str, list[Line]] = {}
    for line in lines:
        by_id.setdefault(line.queue_id, []).append(line)
    made = [each for queue_id, own in by_id.items() for each in _of_one_id(queue_id, own)]
    return sorted(made, key=lambda each: _begin(each.lines))


def in_order(lines: Iterable[Line]) -> list[Line]:
    """Return lines by time, those of each source in its own order, none of two sources twice."""
    sources: dict[tuple[object, ...], str] = {}
    latest: dict[str, datetime] = {}
    keyed = []
    for line in lines:
        what = (line.time, line.program, line.pid, line.queue_id, line.text)
        if sources.setdefault(what, line.source) != line.source:
            continue
        latest[line.source] = max(line.time or _EARLY, latest.get(line.source, _EARLY))
        keyed.append((latest[line.source], line))
    return [line for _, line in sorted(keyed, key=lambda each: each[0])]


def _of_one_id(queue_id: str, lines: list[Line]) -> Iterator[MessageHistory]:
    for own in _by_host(in_order(lines)):
        yield from _messages(queue_id, own)


def _by_host(lines: list[Line]) -> list[list[Line]]:
    """Return the lines of each host where a message with this queue id began."""
    hosts = list(dict.fromkeys(each.host for each in lines if each.text.startswith(_BEGINNING)))
    if len(hosts) < 2:
        return [lines]
    return [
        [line for line in lines if (line.host if line.host in hosts else hosts[0]) == host]
        for host in hosts
    ]


def _messages(queue_id: str, lines: list[Line]) -> Iterator[MessageHistory]:
    ours: list[Line] = []
    theirs: list[Line] = []
    for line in lines:
        (ours if decided(line) else theirs).append(line)
    messages = list(_split(theirs)) or [[]]
    said: list[set[str]] = [set() for _ in messages]
    for line in ours:
        number = _message_of(line, messages)
        # The same line may be in the journal and in a file.
        if line.text not in said[number]:
            said[number].add(line.text)
            _insert(line, messages[number])
    yield from (MessageHistory(queue_id, tuple(each)) for each in messages)


def _split(lines: list[Line]) -> Iterator[list[Line]]:
    message: list[Line] = []
    begun = over = False
    for line in lines:
        beginning = line.text.startswith(_BEGINNING)
        if message and (over or (beginning and begun)):
            yield message
            message, begun, over = [], False, False
        message.append(line)
        begun = begun or beginning
        over = over or _ends(line)
    if message:
        yield message


def _message_of(ours: Line, messages: list[list[Line]]) -> int:
    """Return the number of the message that a line of ours is about: the last that can be."""
    what = decided(ours)
    if len(messages) == 1 or what is None:
        return 0
    numbers = range(len(messages))
    if ours.time:
        begun = [n for n in numbers if _begin(messages[n]).timestamp() <= ours.time.timestamp() + 1]
        return begun[-1] if begun else 0
    names = {f"<{each}>" for each in (*what.new, what.to)}
    named = [n for n in numbers if any(name in each.text for each in messages[n] for name in names)]
    return named[-1] if named else numbers[-1]


def _insert(ours: Line, message: list[Line]) -> None:
    for at, line in enumerate(message):
        if _FIRST_ACT.match(line.text):
            message.insert(at, ours)
            return
    message.append(ours)


def _begin(lines: Iterable[Line]) -> datetime:
    return next((line.time for line in lines if line.time), _EARLY)
