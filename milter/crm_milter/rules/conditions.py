"""The conditions of a rule on sender and account, prepared for look-up."""

from collections.abc import Iterable
from dataclasses import dataclass

from crm_milter.rules.pattern import AddressList, Everyone, Exact, Glob, InDomain, Pattern, Regex
from crm_milter.rules.rule import ApplyTo
from crm_milter.rules.wildcards import Wildcards


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


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of a rule; the senders as sets."""

    senders: SenderSet | None
    except_senders: SenderSet | None
    apply_to: ApplyTo

    def failing(self, sender: str | None, known: bool) -> str:
        """Return the key of the first condition that does not hold, "" if all do.

        Without a sender those that depend on it hold.
        """
        if sender is not None:
            if self.senders is not None and sender not in self.senders:
                return "senders"
            if self.except_senders is not None and sender in self.except_senders:
                return "except_senders"
        wanted = {ApplyTo.KNOWN: True, ApplyTo.UNKNOWN: False}.get(self.apply_to, known)
        return "" if known is wanted else "apply_to"
