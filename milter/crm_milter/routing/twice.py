"""A bounded memory of answers whose keys have all that they depend on."""

from collections.abc import Hashable
from typing import Generic, TypeVar

_MAX_SEEN = 10_000  # hashes of keys that came

Answer = TypeVar("Answer")


class Twice(Generic[Answer]):
    """Keeps up to ``most`` answers. A key is kept when it comes again: once pushes nothing out."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[Hashable, Answer] = {}
        self._seen: set[int] = set()
        self.get = self._kept.get

    def came_before(self, key: Hashable) -> bool:
        """Tell whether this is not the first time, so that it is worth keeping."""
        once = hash(key)
        if once in self._seen:
            return True
        if len(self._seen) >= _MAX_SEEN:
            self._seen.clear()
        self._seen.add(once)
        return False

    def keep(self, key: Hashable, answer: Answer) -> None:
        """Keep an answer; if there is no room, drop all others first."""
        if len(self._kept) >= self._most:
            self._kept.clear()
        self._kept[key] = answer
