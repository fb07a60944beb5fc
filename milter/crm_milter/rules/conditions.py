"""The conditions of a rule: a class each, with its key, when it holds, and its words.

To add one, write its class here and name it in ``CONDITIONS``, and its key in ``config/keys.py``:
the look-up, ``explain``, ``rules`` and the checks of the configuration ask the class.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar, NamedTuple

from crm_milter.rules.fieldpattern import FieldPattern, FieldTest, Header
from crm_milter.rules.moment import Moment
from crm_milter.rules.pattern import Pattern
from crm_milter.rules.senderset import SenderSet
from crm_milter.wording import abridged, printable


class Occasion(NamedTuple):
    """What conditions ask for: the message (None for what is not known of it), the recipient."""

    sender: str | None = ""  # in normal form
    known: bool = False  # whether the recipient has an account; the table fills this in
    header: Header | None = None  # not known before the end of the message
    now: float | None = None  # seconds since 1970
    address: str = ""  # of the recipient, as the rule takes it; the table fills this in
    plain: str = ""  # that address without extension, if the rule takes it so as well


ANY_MESSAGE = Occasion(sender=None)


class Condition(ABC):
    """What must hold besides the address for a rule to apply."""

    key: ClassVar[str]
    unset: ClassVar[Any]  # the value of a rule without this condition, as ``value``
    depends_on_message: ClassVar[bool] = False
    patterns: tuple[Pattern, ...] = ()

    @property
    def reads(self) -> frozenset[str]:
        """The names, in lower case, of the header fields that it needs."""
        return frozenset()

    @classmethod
    @abstractmethod
    def of(cls, value: Any) -> "Condition | None":
        """Return the condition for a value of the key, None for the value that means none."""

    @abstractmethod
    def holds(self, occasion: Occasion) -> bool:
        """Tell whether the rule may apply; what depends on something unknown (None) holds."""

    @property
    @abstractmethod
    def value(self) -> Any:
        """The value as the configuration writes it: what json.dumps takes."""

    @abstractmethod
    def refusal(self, occasion: Occasion) -> str:
        """Return why the condition does not hold."""

    def __str__(self) -> str:
        return f"{self.key} {abridged(self.value)}"


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


@dataclass(frozen=True)
class Headers(Condition):
    """Of each of these header fields, one at least matches."""

    key = "headers"
    unset: ClassVar[dict[str, Any]] = {}
    depends_on_message = True
    fields: tuple[FieldTest, ...]

    @classmethod
    def of(cls, value: tuple[tuple[str, tuple[FieldPattern, ...]], ...]) -> "Condition | None":
        return cls(tuple(FieldTest(*each) for each in value)) if value else None

    @property
    def reads(self) -> frozenset[str]:
        return frozenset(each.name.lower() for each in self.fields)

    def holds(self, occasion: Occasion) -> bool:
        return occasion.header is None or self._first(occasion.header, False) is None

    def _first(self, header: Header, matches: bool) -> FieldTest | None:
        """Return the first field that matches, or that does not, None if there is none."""
        return next((each for each in self.fields if each.matches(header) is matches), None)

    @property
    def value(self) -> dict[str, list[str]]:
        return {each.name: [str(pattern) for pattern in each.patterns] for each in self.fields}

    def __str__(self) -> str:
        return f"{self.key} {abridged([str(each) for each in self.fields])}"

    def refusal(self, occasion: Occasion) -> str:
        found = occasion.header and self._first(occasion.header, False)
        return f'no header field matches "{found}"'


@dataclass(frozen=True)
class ExceptHeaders(Headers):
    """None of these header fields matches."""

    key = "except_headers"

    def holds(self, occasion: Occasion) -> bool:
        return occasion.header is None or self._first(occasion.header, True) is None

    def refusal(self, occasion: Occasion) -> str:
        found = occasion.header and self._first(occasion.header, True)
        return f'a header field matches "{found}"'


class Addressed(Enum):
    """Where the address of the recipient stands in the header."""

    ANY = "any"
    TO = "to"
    TO_OR_CC = "to_or_cc"


# The person who resends a message addresses it again (RFC 5322 section 3.6.6).
_TO = ("to", "resent-to")
_ADDRESSED = {Addressed.TO: _TO, Addressed.TO_OR_CC: (*_TO, "cc", "resent-cc")}


@dataclass(frozen=True)
class AddressedIn(Condition):
    """The address stands in To, or in To or Cc: not a Bcc, and not through a list."""

    key = "addressed"
    unset = Addressed.ANY.value
    depends_on_message = True
    addressed: Addressed

    @classmethod
    def of(cls, value: Addressed) -> "Condition | None":
        return None if value is Addressed.ANY else cls(value)

    @property
    def reads(self) -> frozenset[str]:
        return frozenset(_ADDRESSED[self.addressed])

    def holds(self, occasion: Occasion) -> bool:
        header = occasion.header
        if header is None:
            return True
        fields = _ADDRESSED[self.addressed]
        wanted = dict.fromkeys((occasion.address, occasion.plain))
        return any(header.names(fields, each) for each in wanted)

    @property
    def value(self) -> str:
        return str(self.addressed.value)

    def refusal(self, occasion: Occasion) -> str:
        fields = "To" if self.addressed is Addressed.TO else "To or Cc"
        return f"<{printable(occasion.address)}> is not in {fields}"


@dataclass(frozen=True)
class From(Condition):
    """The message comes at this time or later."""

    key = "from"
    unset = None
    depends_on_message = True
    moment: Moment

    @classmethod
    def of(cls, value: Moment | None) -> "Condition | None":
        return cls(value) if value else None

    def holds(self, occasion: Occasion) -> bool:
        return occasion.now is None or occasion.now >= self.moment.seconds

    @property
    def value(self) -> str:
        return self.moment.text

    def refusal(self, _occasion: Occasion) -> str:
        return f"begins on {self.moment.text}"


@dataclass(frozen=True)
class Until(From):
    """The message comes before this time."""

    key = "until"

    def holds(self, occasion: Occasion) -> bool:
        return occasion.now is None or occasion.now < self.moment.seconds

    def refusal(self, _occasion: Occasion) -> str:
        return f"ended on {self.moment.text}"


# In the order in which they are tried: those that need the header come last.
CONDITIONS: tuple[type[Condition], ...] = (
    *(Senders, ExceptSenders, Accounts, From, Until),
    *(AddressedIn, Headers, ExceptHeaders),
)
KEYS = frozenset(kind.key for kind in CONDITIONS)


def take(values: dict[str, Any]) -> tuple[Condition, ...]:
    """Return the conditions of a rule, and take their keys from its values."""
    found = (kind.of(values.pop(kind.key)) for kind in CONDITIONS if kind.key in values)
    return tuple(condition for condition in found if condition is not None)
