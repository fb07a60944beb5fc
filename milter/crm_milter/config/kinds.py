"""The language in which ``keys`` describes the configuration.

A description is made of kinds: a text with the function that understands it, a choice, a table
of keys, and so on. ``reader`` validates by it; whatever else tells of the keys is derived from
the same description.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from crm_milter.config.document import Mapping, Node, Scalar, Sequence
from crm_milter.config.files import Files
from crm_milter.config.problems import Path, Problems, Severity


@dataclass(frozen=True, slots=True)
class Text:
    """A text; ``parse`` returns its meaning and raises ValueError with the reason."""

    what: str  # with its article, for "expected ..."
    parse: Callable[[str], Any] = str
    shape: str = ""  # a regular expression that every such text matches, for editors
    number: bool = False  # may look like a number
    word: bool = False  # "no" without quotes is meant as it is written


@dataclass(frozen=True, slots=True)
class FileText:
    """A text that names a file, or may; ``parse`` gets what opens it as well."""

    what: str
    parse: Callable[[str, Files], Any]
    shape: str = ""


@dataclass(frozen=True, slots=True)
class Fields:
    """Values by names that are not keys of ours; the name is a text."""

    what: str
    name: Text
    value: "Text | Several"


@dataclass(frozen=True, slots=True)
class Flag:
    """``true`` or ``false``."""


@dataclass(frozen=True, slots=True)
class Whole:
    """A whole number within limits, or else one word, which stands for None."""

    what: str
    least: int
    most: int
    word: str = ""


@dataclass(frozen=True, slots=True)
class Decimal:
    """A number, a fraction too."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the values of an enumeration."""

    values: type[Enum]


@dataclass(frozen=True, slots=True)
class Several:
    """A list; where ``one`` is set, a single value may stand without one."""

    item: "Kind"
    one: bool = True
    least: int = 0


@dataclass(frozen=True, slots=True)
class Either:
    """A short form, or a table."""

    short: Text
    table: "Table"


@dataclass(frozen=True, slots=True)
class Key:
    """One key. The default is what a person would write for it; None is "not set"."""

    name: str
    kind: "Kind"
    default: Any
    doc: str
    required: bool = False
    refusal: str = ""  # why the key may not stand here


@dataclass(frozen=True, slots=True)
class Table:
    """Keys, and the function that makes something of their values.

    Of the keys in each of ``needs`` one has to be there; each pair of ``apart`` excludes one
    another. ``former`` says of keys of earlier versions what to write.
    """

    what: str
    keys: dict[str, Key]
    build: Callable[["Section"], Any]
    needs: tuple[tuple[str, ...], ...] = ()
    apart: tuple[tuple[str, str], ...] = ()
    former: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, Any] = field(init=False)
    required: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        defaults = {key.name: _default(key) for key in self.keys.values() if not key.refusal}
        object.__setattr__(self, "defaults", defaults)
        required = tuple(key.name for key in self.keys.values() if key.required)
        object.__setattr__(self, "required", required)


Kind = Text | FileText | Flag | Whole | Decimal | Choice | Fields | Several | Either | Table


def table(
    what: str,
    build: Callable[["Section"], Any],
    *keys: Key,
    needs: tuple[tuple[str, ...], ...] = (),
    apart: tuple[tuple[str, str], ...] = (),
    former: dict[str, str] | None = None,
) -> Table:
    """Return the table of these keys."""
    return Table(what, {key.name: key for key in keys}, build, needs, apart, former or {})


def _default(key: Key) -> Any:
    match key.kind:
        case _ if key.default is None:
            return None
        case Text(parse=parse) | Either(short=Text(parse=parse)):
            return parse(key.default)
        case Choice():
            return key.kind.values(key.default)
        case Whole() if key.default == key.kind.word:
            return None
        case Several(item=Text(parse=parse)) if isinstance(key.default, str):
            return (parse(key.default),)
        case Several() | Fields():
            return tuple(key.default)
        case Table():
            nowhere = Place(0, (0, ()), (), "", Problems(""))
            return key.kind.build(Section(dict(key.kind.defaults), nowhere))
    return key.default


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
        """Return the path to the table."""
        return self.above if self.key == "" else (*self.above, self.key)

    def has(self, key: str) -> bool:
        """Tell whether the file has the key."""
        return any(name == key for name, _ in self.outline[1])

    def line(self, key: str) -> int:
        """Return the line of a key, or that of the table."""
        return self.start + dict(self.outline[1]).get(key, self.outline)[0]

    def complain(self, keys: Path, message: str, severity: Severity = Severity.ERROR) -> None:
        """Note a problem of a key below; ("match", 0) is "match" itself where that is no list."""
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

    def states(self, key: str) -> bool:
        """Tell whether the file has the key, rather than its default."""
        return self.place.has(key)
