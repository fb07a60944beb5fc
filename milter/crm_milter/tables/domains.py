"""The domains of a table: of which addresses it may have a row, kept without the rows.

Eight bytes each, for there may be a million: the hash of the name, which is another one in every
process that was not forked from the one that made it.
"""

from array import array
from bisect import bisect_left
from collections.abc import Iterable

from crm_milter import address as addresses

_SHOWN = 3
_MAX_LEARNT = 10_000


class Domains:
    """The domains that the table had when it was read, and those that were found in it since."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        hashes = array("q")
        self._first: list[str] = []
        for name in names:
            domain = addresses.ascii_domain(name)
            hashes.append(hash(domain))
            if len(self._first) < _SHOWN:
                self._first.append(domain)
        self._hashes = array("q", sorted(hashes))
        self._learnt: set[str] = set()

    def __contains__(self, domain: str) -> bool:
        if domain in self._learnt:
            return True
        hashed = hash(domain)
        at = bisect_left(self._hashes, hashed)
        return at < len(self._hashes) and self._hashes[at] == hashed

    def __len__(self) -> int:
        return len(self._hashes) + len(self._learnt)

    def learn(self, domain: str) -> None:
        """Take note that the table has an address of a domain."""
        if domain not in self and len(self._learnt) < _MAX_LEARNT:
            self._learnt.add(domain)

    def __str__(self) -> str:
        more = len(self._hashes) - len(self._first)
        return ", ".join([*self._first, *([f"and {more} more"] if more > 0 else [])])
