"""What is remembered of the log: messages whose recipients are followed, and recent lines.

All of it is bounded, and what is oldest goes first; it is written as JSON has it, and read again.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_RECIPIENTS = 50_000  # that are followed
MAX_OVER = 2000  # messages that Postfix has removed, for lines of ours that come late
MAX_RECENT = 4000  # lines of Postfix, and messages, that a line of ours may be behind

Part = tuple[str, str]  # the rule, and what the recipient is to it


@dataclass(slots=True)
class Message:
    """What is followed of one; ``due`` is not delivered yet, once Postfix has it in its queue."""

    arrived: float  # Unix time
    parts: dict[str, Part] = field(default_factory=dict)
    due: dict[str, Part] = field(default_factory=dict)
    is_active: bool = False
    spoken_of: float = 0.0  # when there was a line of it last
    refused: str = ""  # the first rule whose target did

    def written(self) -> list[Any]:
        """Return it as JSON has it."""
        facts = [self.arrived, self.is_active, self.spoken_of, self.refused]
        return [*facts, self.parts, self.due]


def read(state: list[Any]) -> Message:
    """Return what was written; raises TypeError or ValueError if it is something else."""
    arrived, is_active, spoken_of, refused, parts, due = state
    return Message(
        *(float(arrived), _parts(parts), _parts(due)),
        *(bool(is_active), float(spoken_of), str(refused)),
    )


class Messages:
    """The messages that are followed, by queue id, and for a while those that are over."""

    def __init__(self) -> None:
        self._followed: OrderedDict[str, Message] = OrderedDict()
        self._recipients = 0  # of all of these
        self._over: OrderedDict[str, Message] = OrderedDict()

    def __iter__(self) -> Iterator[Message]:
        return iter(self._followed.values())

    def get(self, queue_id: str) -> Message | None:
        """Return a message, None if it is not followed."""
        return self._followed.get(queue_id)

    def open(self, queue_id: str, arrived: float) -> tuple[Message, bool]:
        """Return a message that is followed from now on, and whether it was over."""
        over = self._over.pop(queue_id, None)
        message = self.get(queue_id) or over or Message(arrived)
        if queue_id not in self._followed:
            self._followed[queue_id] = message
            self._recipients += len(message.parts)
        return message, over is not None

    def add(self, message: Message, parts: Mapping[str, Part]) -> None:
        """Follow more recipients of one of the messages."""
        self._recipients += len(parts.keys() - message.parts.keys())
        message.parts.update(parts)

    def end(self, queue_id: str, message: Message) -> None:
        """Take note that Postfix is done with a message."""
        self.drop(queue_id)
        message.due.clear()
        self._over[queue_id] = message
        if len(self._over) > MAX_OVER:
            self._over.popitem(last=False)

    def drop(self, queue_id: str) -> Message | None:
        """Follow a message no longer, and return it."""
        message = self._followed.pop(queue_id, None)
        if message:
            self._recipients -= len(message.parts)
        return message

    def forget(self, queue_id: str) -> None:
        """Let the queue id be that of another message, unless ours was followed before its time."""
        before = self.get(queue_id)
        if before and before.is_active:
            self.drop(queue_id)
        self._over.pop(queue_id, None)

    def shrink(self) -> int:
        """Drop the oldest messages until there are not too many recipients; return how many."""
        before = len(self._followed)
        while self._recipients > MAX_RECIPIENTS:
            self.drop(next(iter(self._followed)))
        return before - len(self._followed)

    def written(self) -> dict[str, Any]:
        """Return them as JSON has them."""
        return {"messages": _all_written(self._followed), "over": _all_written(self._over)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take what was written; raises as ``read``, or LookupError."""
        self._followed, self._over = _all_read(state["messages"]), _all_read(state["over"])
        self._recipients = sum(len(each.parts) for each in self)


class RecentLines:
    """What Postfix said lately, by queue id."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, list[str]] = OrderedDict()
        self._number = 0  # of all lines

    def __contains__(self, queue_id: str) -> bool:
        return queue_id in self._lines

    def of(self, queue_id: str) -> tuple[str, ...]:
        """Return the lines of a message, the first one first."""
        return tuple(self._lines.get(queue_id, ()))

    def add(self, queue_id: str, text: str) -> None:
        """Remember a line."""
        self._lines.setdefault(queue_id, []).append(text)
        self._number += 1
        while self._number > MAX_RECENT or len(self._lines) > MAX_RECENT:
            self._number -= len(self._lines.popitem(last=False)[1])

    def forget(self, queue_id: str) -> None:
        """Forget the lines of a message."""
        self._number -= len(self._lines.pop(queue_id, ()))

    def written(self) -> list[Any]:
        """Return them as JSON has them."""
        return list(self._lines.items())

    def restore(self, state: list[Any]) -> None:
        """Take what was written; raises TypeError or ValueError if it is something else."""
        self._lines = OrderedDict((queue_id, list(lines)) for queue_id, lines in state)
        self._number = sum(map(len, self._lines.values()))


def _all_written(messages: Mapping[str, Message]) -> list[Any]:
    return [[queue_id, each.written()] for queue_id, each in messages.items()]


def _all_read(entries: list[Any]) -> OrderedDict[str, Message]:
    return OrderedDict((str(queue_id), read(state)) for queue_id, state in entries)


def _parts(entries: dict[str, Any]) -> dict[str, Part]:
    return {address: (str(rule), str(kind)) for address, (rule, kind) in entries.items()}
