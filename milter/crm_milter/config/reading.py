"""One file being read: a problem is noted with its line, and reading goes on to find them all."""

from collections.abc import Iterable
from enum import Enum
from typing import Any

from crm_milter.config.document import Mapping, Node, Scalar, Sequence
from crm_milter.config.files import Files
from crm_milter.config.place import Outline, Place, outline
from crm_milter.config.problems import Path, Problems
from crm_milter.wording import suggestion


class _Invalid(Enum):
    INVALID = "invalid"


INVALID = _Invalid.INVALID


class Reading:
    """What the kinds share that read one file: ``homes`` tells where each known key belongs."""

    def __init__(self, homes: dict[str, str], problems: Problems, files: Files) -> None:
        self.files = files
        self.failures = 0
        self._homes = homes
        self._problems = problems
        self._outlines: dict[Outline, Outline] = {}
        self._paths: dict[Path, Path] = {}

    def refuse(self) -> Any:
        """Return INVALID for what was noted already."""
        self.failures += 1
        return INVALID

    def fail(self, node: Node, path: Path, message: str) -> Any:
        """Note a problem, and return INVALID."""
        self._problems.add(node.line, path, message)
        return self.refuse()

    def place(self, node: Mapping, path: Path) -> Place:
        """Return where a table stands; tables of one shape share most of that."""
        shape = outline(node, node.line)
        shape = self._outlines.setdefault(shape, shape)
        above = self._paths.setdefault(path[:-1], path[:-1])
        return Place(node.line, shape, above, path[-1] if path else "", self._problems)

    def meant(self, name: str, known: Iterable[str]) -> str:
        """Return what was probably meant by an unknown key, "" if that cannot be told."""
        if self._problems.full:
            return ""
        home = self._homes.get(name)
        return f' (did you mean "{home}"?)' if home else suggestion(name, known)


def is_empty(node: Node) -> bool:
    """Tell whether nothing is written there."""
    return isinstance(node, Scalar) and node.plain and not node.text


def shown(node: Scalar) -> str:
    """Return a value as messages show it."""
    return f'"{node.text}"' if node.plain else f'the quoted "{node.text}"'


def noun(node: Node) -> str:
    """Return what stands there instead of what was expected."""
    if isinstance(node, Scalar):
        return shown(node) if node.text or not node.plain else "nothing"
    return "a list" if isinstance(node, Sequence) else "a mapping"
