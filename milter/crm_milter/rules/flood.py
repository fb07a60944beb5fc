"""How much mail of one sender a rule routes, and what happens to more: the words of ``flood``."""

from dataclasses import dataclass, field
from enum import Enum

from crm_milter.rules.pattern import Pattern
from crm_milter.rules.senderset import SenderSet


class Per(Enum):
    """Whose messages are counted together."""

    SENDER = "sender"
    SUBJECT = "subject"  # of one sender


class OnFlood(Enum):
    """What happens to a message over the limit."""

    COUNT = "count"
    TEMPFAIL = "tempfail"
    LEAVE = "leave"
    HOLD = "hold"


@dataclass(frozen=True, slots=True)
class Limit:
    """So many messages at once, and then as many in so many seconds, evenly spaced."""

    count: int
    seconds: float
    interval: float = field(init=False, repr=False)  # seconds in which one more may come

    def __post_init__(self) -> None:
        object.__setattr__(self, "interval", self.seconds / self.count)

    def __str__(self) -> str:
        return f"{self.count} in {self.seconds:g}s"


@dataclass(frozen=True)
class Flood:
    """The value of the key. Without a limit it is the known one of the CRM (``auto``)."""

    limit: Limit | None = None
    per: Per | None = None  # None: as the CRM counts, or by the sender
    then: OnFlood = OnFlood.LEAVE
    exempt: tuple[Pattern, ...] = ()
    among: SenderSet = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "among", SenderSet(self.exempt))

    def exempts(self, sender: str) -> bool:
        """Tell whether the mail of a sender, in normal form, is not counted."""
        return bool(self.exempt) and sender in self.among
