"""Where a table of the configuration and its keys stand in the file, and what was read of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from crm_milter.config.document import Mapping, Node, Scalar, Sequence
from crm_milter.config.problems import Path, Problems, Severity

# Lines below that of the table, and the same of what is inside, by key or number. Tables of
# one shape share theirs: a hundred thousand rules have a handful of them.
Outline = tuple[int, tuple[tuple[str | int, "Outline"], ...]]


def outline(node: Node, start: int) -> Outline:
    """Return where the keys and items in a node are, seen from a line."""
    if isinstance(node, Scalar):
        return node.line - start, ()
    inside: Iterable[tuple[str | int, Node]] = ()
    if isinstance(node, Mapping):
        inside = node.entries.items()
    elif isinstance(node, Sequence):
        inside = enumerate(node.items)
    return node.line - start, tuple([(key, outline(child, start)) for key, child in inside])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a table and its keys stand in the file.

    ``above`` is the path to what it is in, which others share; its own key is "" at the root.
    """

    start: int
    outline: Outline
    above: Path
    key: str | int
    problems: Problems

    @property
    def path(self) -> Path:
        return self.above if self.key == "" else (*self.above, self.key)

    def has(self, key: str) -> bool:
        """Tell whether the file has the key."""
        return any(name == key for name, _ in self.outline[1])

    def line(self, key: str) -> int:
        """Return the line of a key, or that of the table."""
        return self.start + dict(self.outline[1]).get(key, self.outline)[0]

    def complain(self, keys: Path, message: str, severity: Severity = Severity.ERROR) -> None:
        """Note a problem of a key below; ("match", 0) is "match" itself if that is not a list."""
        below, path = self.outline, self.path
        for key in keys:
            found = dict(below[1]).get(key)
            if found is None and isinstance(key, int):
                break
            below = found or (below[0], ())
            path = (*path, key)
        self.problems.add(self.start + below[0], path, message, severity)

    def warn(self, keys: Path, message: str) -> None:
        """Note what is probably not meant."""
        self.complain(keys, message, Severity.WARNING)


@dataclass(frozen=True, slots=True)
class Section:
    """A table as it was read, without problems, and with defaults filled in."""

    values: dict[str, Any]
    place: Place

    def __getitem__(self, key: str) -> Any:
        return self.values[key]

    def is_set(self, key: str) -> bool:
        """Tell whether the file has the key, rather than its default."""
        return self.place.has(key)
