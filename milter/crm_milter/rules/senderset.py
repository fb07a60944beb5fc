"""Envelope senders that a rule names, looked up like recipients: tables first, then wildcards."""

from collections.abc import Iterable

from crm_milter.rules.pattern import AddressList, Everyone, Exact, Glob, InDomain, Pattern, Regex
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
        return any(sender in each for each in self._exact) or any(self._wild.matches(sender))
