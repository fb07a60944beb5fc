"""The conditions of a rule: a class each, with its key, when it holds, and its words.

To add one, write its class here and name it in ``CONDITIONS``, and its key in ``config/keys.py``:
the look-up, ``explain``, ``rules`` and the checks of the configuration ask the class.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, NamedTuple

from crm_milter.rules.pattern import AddressList, Everyone, Exact, Glob, InDomain, Pattern, Regex
from crm_milter.rules.wildcards import Wildcards
from crm_milter.wording import abridged, printable


class Occasion(NamedTuple):
    """What conditions ask for: the message (None for what is not known of it), the recipient."""

    sender: str | None = ""  # in normal form
    known: bool = False  # whether the recipient has an account; the table fills this in


ANY_MESSAGE = Occasion(sender=None)


class Condition(ABC):
    """What must hold besides the address for a rule to apply."""

    key: ClassVar[str]
    unset: ClassVar[list[str] | str]  # the value of a rule without this condition
    depends_on_message: ClassVar[bool] = False
    patterns: tuple[Pattern, ...] = ()

    @classmethod
    @abstractmethod
    def of(cls, value: Any) -> "Condition | None":
        """Return the condition for a value of the key, None for the value that means none."""

    @abstractmethod
    def holds(self, occasion: Occasion) -> bool:
        """Tell whether the rule may apply; what depends on something unknown (None) holds."""

    @property
    @abstractmethod
    def value(self) -> list[str] | str:
        """The value as the configuration writes it."""

    @abstractmethod
    def refusal(self, occasion: Occasion) -> str:
        """Return why the condition does not hold."""

    def __str__(self) -> str:
        return f"{self.key} {abridged(self.value)}"


class SenderSet:
    """Envelope senders: answers whether one is among them."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        exact: set[str] = set()
        lists: list[frozenset[str]] = []  # not copied: many rules may share a long one
        wild: list[tuple[int, Pattern]] = []
        for pattern in patterns:
            match pattern:
                case Exact(address):
                    exact.add(address)
                case AddressList(_, listed):
                    lists.append(listed)
                case Everyone() | InDomain() | Glob() | Regex():
                    wild.append((0, pattern))
                case _:  # the null sender
                    exact.add("")
        self._exact = (exact, *lists)
        self._wild = Wildcards(wild)

    def __contains__(self, sender: str) -> bool:
        """Tell whether a sender in normal form is meant; ``*`` means the null sender as well."""
        return any(sender in each for each in self._exact) or any(self._wild.takers(sender))


@dataclass(frozen=True)
class Senders(Condition):
    """The envelope sender is one of these."""

    key = "senders"
    unset: ClassVar[list[str]] = []
    depends_on_message = True
    patterns: tuple[Pattern, ...]
    among: SenderSet = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "among", SenderSet(self.patterns))

    @classmethod
    def of(cls, value: tuple[Pattern, ...]) -> "Condition | None":
        return cls(value) if value else None

    def holds(self, occasion: Occasion) -> bool:
        return occasion.sender is None or occasion.sender in self.among

    @property
    def value(self) -> list[str]:
        return [str(pattern) for pattern in self.patterns]

    def refusal(self, occasion: Occasion) -> str:
        return f"sender <{printable(occasion.sender or '')}> is not in its {self.key}"


@dataclass(frozen=True)
class ExceptSenders(Senders):
    """The envelope sender is none of these."""

    key = "except_senders"

    def holds(self, occasion: Occasion) -> bool:
        return occasion.sender is None or occasion.sender not in self.among

    def refusal(self, occasion: Occasion) -> str:
        return f"sender <{printable(occasion.sender or '')}> is in its {self.key}"


class ApplyTo(Enum):
    """Which recipients a rule is for: all, or those with or without an account."""

    ALL = "all"
    KNOWN = "known"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Accounts(Condition):
    """The recipient has an account, or has none."""

    key = "apply_to"
    unset = ApplyTo.ALL.value
    apply_to: ApplyTo

    @classmethod
    def of(cls, value: ApplyTo) -> "Condition | None":
        return None if value is ApplyTo.ALL else cls(value)

    def holds(self, occasion: Occasion) -> bool:
        return occasion.known is (self.apply_to is ApplyTo.KNOWN)

    @property
    def value(self) -> str:
        return str(self.apply_to.value)

    def refusal(self, _occasion: Occasion) -> str:
        return "apply_to excludes it (see known_recipients)"


# In the order in which they are tried.
CONDITIONS: tuple[type[Condition], ...] = (Senders, ExceptSenders, Accounts)


def take(values: dict[str, Any]) -> tuple[Condition, ...]:
    """Return the conditions of a rule, and take their keys from its values."""
    found = (kind.of(values.pop(kind.key)) for kind in CONDITIONS if kind.key in values)
    return tuple(condition for condition in found if condition is not None)
