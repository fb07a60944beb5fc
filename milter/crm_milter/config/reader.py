"""Nodes to values, by the description of the configuration.

Every value that does not fit is noted with its line and what was probably meant; reading goes on,
so that one run shows them all. A table with one of them is not made.
"""

import re
from collections.abc import Iterable
from enum import Enum
from typing import Any

from crm_milter.config.document import Mapping, Node, Refused, Scalar, Sequence
from crm_milter.config.files import Files
from crm_milter.config.kinds import (
    Choice,
    Decimal,
    Either,
    Fields,
    FileText,
    Flag,
    Kind,
    Outline,
    Place,
    Section,
    Several,
    Table,
    Text,
    Whole,
    outline,
)
from crm_milter.config.problems import Path, Problems, Reported
from crm_milter.precis import complaint, invisible
from crm_milter.wording import suggestion


class _Invalid(Enum):
    INVALID = "invalid"


INVALID = _Invalid.INVALID

_Single = Text | FileText | Flag | Whole | Decimal | Choice

# YAML's own words for true, false and nothing: without quotes they are rarely meant as text.
_WORDS = {
    **dict.fromkeys(("yes", "on", "true"), "true"),
    **dict.fromkeys(("no", "off", "false"), "false"),
    **dict.fromkeys(("null", "~"), "nothing"),
}
_LONGEST_WORD = max(map(len, _WORDS))
_WHOLE = re.compile(r"[0-9]{1,12}", re.ASCII)
_DECIMAL = re.compile(r"[-+]?[0-9]{1,12}(?:\.[0-9]{1,12})?", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Reader:
    """Reads nodes by a description. A value that does not fit is noted."""

    def __init__(self, root: Table, problems: Problems, files: Files) -> None:
        self.root = root
        self._problems = problems
        self._files = files
        self._homes: dict[str, str] = {}
        for name, place in _homes(root, ""):
            self._homes.setdefault(name, place)
        self._failures = 0
        self._outlines: dict[Outline, Outline] = {}
        self._paths: dict[Path, Path] = {}

    def read(self, kind: Kind, node: Node, path: Path) -> Any:
        """Return the value of a node, or INVALID once its problem is noted."""
        if isinstance(node, Refused):
            self._failures += 1
            return INVALID
        match kind:
            case Several():
                return self._several(kind, node, path)
            case Table():
                return self._table(kind, node, path)
            case Either():
                return self._either(kind, node, path)
            case Fields():
                return self._fields(kind, node, path)
        return self._single(kind, node, path)

    def _single(self, kind: _Single, node: Node, path: Path) -> Any:
        if not isinstance(node, Scalar):
            return self._fail(node, path, f"expected {_expected(kind)}, not {_noun(node)}")
        if node.plain and not node.text:
            return self._fail(node, path, f"the value is missing, expected {_expected(kind)}")
        try:
            wrong = invisible(node.text)
            if wrong:
                raise ValueError(complaint(node.text, wrong))
            if isinstance(kind, FileText):
                return kind.parse(_plain_text(kind.what, node), self._files)
            return _scalar(kind, node)
        except ValueError as error:
            return self._fail(node, path, str(error))
        except Reported:
            self._failures += 1
            return INVALID

    def _fail(self, node: Node, path: Path, message: str) -> Any:
        self._failures += 1
        self._problems.add(node.line, path, message)
        return INVALID

    def _either(self, kind: Either, node: Node, path: Path) -> Any:
        if isinstance(node, Sequence):
            message = f"expected {kind.short.what} or {kind.table.what}, not a list"
            return self._fail(node, path, message)
        return self.read(kind.short if isinstance(node, Scalar) else kind.table, node, path)

    def _several(self, kind: Several, node: Node, path: Path) -> Any:
        if _is_empty(node) and not kind.one:
            return ()
        if not isinstance(node, Sequence):
            if not kind.one:
                return self._fail(node, path, f'expected a list ("- ..." lines), not {_noun(node)}')
            value = self.read(kind.item, node, path)
            return value if value is INVALID else (value,)
        if len(node.items) < kind.least:
            return self._fail(node, path, "the list is empty")
        values = (self.read(kind.item, item, (*path, n)) for n, item in enumerate(node.items))
        return tuple(value for value in values if value is not INVALID)

    def _fields(self, kind: Fields, node: Node, path: Path) -> Any:
        if _is_empty(node):
            return ()
        if not isinstance(node, Mapping):
            return self._fail(node, path, f"expected {kind.what}, not {_noun(node)}")
        fields = []
        seen: set[str] = set()
        for name, child in node.entries.items():
            where = (*path, name)
            if isinstance(child, Mapping):
                self._fail(
                    child,
                    where,
                    "expected a string, not a mapping (quote values that contain braces)",
                )
                continue
            title = self.read(kind.name, Scalar(name, child.line, plain=False), where)
            value = self.read(kind.value, child, where)
            if title is not INVALID and title.lower() in seen:
                self._fail(
                    child, where, "is listed twice (header field names are not case-sensitive)"
                )
            elif INVALID not in (title, value):
                fields.append((title, value))
                seen.add(title.lower())
        return tuple(fields)

    def _table(self, kind: Table, node: Node, path: Path) -> Any:
        if _is_empty(node):
            node = Mapping({}, node.line)
        if not isinstance(node, Mapping):
            return self._fail(node, path, f"expected {kind.what}, not {_noun(node)}")
        before, values = self._failures, dict(kind.defaults)
        for name, child in node.entries.items():
            values[name] = self._entry(kind, name, child, (*path, name))
        self._relations(kind, node, path)
        if self._failures > before:
            return INVALID
        shape = outline(node, node.line)
        shape = self._outlines.setdefault(shape, shape)
        above = self._paths.setdefault(path[:-1], path[:-1])
        place = Place(node.line, shape, above, path[-1] if path else "", self._problems)
        return kind.build(Section(values, place))

    def _relations(self, kind: Table, node: Mapping, path: Path) -> None:
        """Note what is missing or too much beside another key."""
        present = node.entries.keys()
        for name in kind.required:
            if name not in present:
                self._fail(node, path, f'required key "{name}" is missing')
        for names in kind.needs:
            if present.isdisjoint(names):
                these = " or ".join(f'"{name}"' for name in names)
                self._fail(node, path, f"{these} is required")
        for first, second in kind.apart:
            if second in present and first in present:
                message = f'cannot be combined with "{first}"'
                self._fail(node.entries[second], (*path, second), message)

    def _entry(self, kind: Table, name: str, node: Node, path: Path) -> Any:
        key = kind.keys.get(name)
        if key is None and name in kind.former:
            return self._fail(node, path, kind.former[name])
        if key is None:
            message = kind.former.get(name) or f"unknown key{self._meant(kind, name)}"
            return self._fail(node, path, message)
        if key.refusal:
            return self._fail(node, path, key.refusal)
        return self.read(key.kind, node, path)

    def _meant(self, kind: Table, name: str) -> str:
        if self._problems.full:
            return ""
        home = self._homes.get(name)
        return f' (did you mean "{home}"?)' if home else suggestion(name, kind.keys)


def _homes(kind: Kind, prefix: str) -> Iterable[tuple[str, str]]:
    """Yield each key with where it belongs, for those found elsewhere."""
    match kind:
        case Several():
            yield from _homes(kind.item, f"{prefix}[]")
        case Either():
            yield from _homes(kind.table, prefix)
        case Table():
            for key in kind.keys.values():
                place = f"{prefix}.{key.name}" if prefix else key.name
                yield from _homes(key.kind, place)
                yield key.name, place


def _scalar(kind: Kind, node: Scalar) -> Any:
    match kind:
        case Text():
            return kind.parse(_plain_text(kind.what, node, may_be_word=kind.word))
        case Flag():
            if node.plain and node.text in ("true", "false"):
                return node.text == "true"
            meant = _WORDS.get(node.text.lower(), "")
            hint = f"; write {meant}" if meant in ("true", "false") else ""
            raise ValueError(f"expected true or false, not {_shown(node)}{hint}")
        case Choice():
            return _choice(kind, node)
        case Whole():
            if kind.word and node.text == kind.word:
                return None
            number = int(node.text) if node.plain and _WHOLE.fullmatch(node.text) else -1
            if kind.least <= number <= kind.most:
                return number
        case Decimal():
            if node.plain and _DECIMAL.fullmatch(node.text):
                return float(node.text)
    raise ValueError(f"expected {_expected(kind)}, not {_shown(node)}")


def _plain_text(what: str, node: Scalar, *, may_be_word: bool = False) -> str:
    word = _WORDS.get(node.text.lower()) if node.plain and len(node.text) <= _LONGEST_WORD else ""
    if word and not may_be_word:
        means = f'"{node.text}" without quotes means {word} in YAML'
        raise ValueError(f"expected {what}, but {means} (quote it, or leave the key out)")
    if not node.text.isprintable() and _CONTROL.search(node.text):
        raise ValueError(f'"{node.text}" contains a line break or control character')
    return node.text


def _choice(kind: Choice, node: Scalar) -> Enum:
    try:
        return kind.values(node.text)
    except ValueError:
        hint = suggestion(node.text, [str(each.value) for each in kind.values])
        raise ValueError(f"expected {_expected(kind)}, not {_shown(node)}{hint}") from None


def _shown(node: Scalar) -> str:
    return f'"{node.text}"' if node.plain else f'the quoted "{node.text}"'


def _is_empty(node: Node) -> bool:
    return isinstance(node, Scalar) and node.plain and not node.text


def _noun(node: Node) -> str:
    if isinstance(node, Scalar):
        return _shown(node) if node.text or not node.plain else "nothing"
    return "a list" if isinstance(node, Sequence) else "a mapping"


def _expected(kind: Kind) -> str:
    match kind:
        case Text() | FileText() | Whole() | Fields() | Table():
            return kind.what
        case Flag():
            return "true or false"
        case Decimal():
            return "a number"
        case Choice():
            *most, last = (f'"{each.value}"' for each in kind.values)
            return f"{', '.join(most)} or {last}"
        case Either():
            return kind.short.what
        case Several():
            return _expected(kind.item)
