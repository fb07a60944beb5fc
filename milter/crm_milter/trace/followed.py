"""A message whose recipients are followed through the log, and how it outlives the process."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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


def all_written(messages: Mapping[str, Message]) -> list[Any]:
    """Return messages, by their queue ids, as JSON has them."""
    return [[queue_id, each.written()] for queue_id, each in messages.items()]


def all_read(entries: list[Any]) -> OrderedDict[str, Message]:
    """Return the messages that were written."""
    return OrderedDict((str(queue_id), read(state)) for queue_id, state in entries)


def _parts(entries: dict[str, Any]) -> dict[str, Part]:
    return {address: (str(rule), str(kind)) for address, (rule, kind) in entries.items()}
