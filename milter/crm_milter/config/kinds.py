"""The language in which ``keys`` describes the configuration: lists, tables and their keys.

A kind reads what it describes, and tells editors of it: a new one is one class here, or in
``scalars``. A table with a value that does not fit is not made.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from crm_milter.config.document import Mapping, Node, Scalar, Sequence
from crm_milter.config.place import Place, Section
from crm_milter.config.problems import Path, Problems
from crm_milter.config.reading import INVALID, Reading, is_empty, noun
from crm_milter.config.scalars import Kind, Schema, Text


@dataclass(frozen=True, slots=True)
class ListOf(Kind):
    """A list; where ``one`` is set, a single value may stand without one."""

    item: Kind
    one: bool = True
    least: int = 0

    @property
    def expected(self) -> str:
        return self.item.expected

    def schema(self) -> Schema:
        item = self.item.schema()
        items: Schema = {"type": "array", "items": item}
        if self.least:
            items["minItems"] = self.least
        return {"anyOf": [item, items]} if self.one else {**items, "type": ["array", "null"]}

    def _read(self, reading: Reading, node: Node, path: Path) -> Any:
        if is_empty(node) and not self.one:
            return ()
        if not isinstance(node, Sequence):
            if not self.one:
                wrong = f'expected a list ("- ..." lines), not {noun(node)}'
                return reading.fail(node, path, wrong)
            value = self.item.read(reading, node, path)
            return value if value is INVALID else (value,)
        if len(node.items) < self.least:
            return reading.fail(node, path, "the list is empty")
        read = self.item.read
        values = (read(reading, item, (*path, n)) for n, item in enumerate(node.items))
        return tuple(value for value in values if value is not INVALID)

    def made(self, written: Any) -> Any:
        return (self.item.made(written),) if isinstance(written, str) else tuple(written)

    def homes(self, prefix: str) -> Iterable[tuple[str, str]]:
        return self.item.homes(f"{prefix}[]")


@dataclass(frozen=True, slots=True)
class StringMap(Kind):
    """Values by names that are not keys of ours; the name is a text."""

    what: str
    name: Text
    value: Text | ListOf

    @property
    def expected(self) -> str:
        return self.what

    def schema(self) -> Schema:
        return {
            "type": ["object", "null"],
            "propertyNames": {"pattern": self.name.shape},
            "additionalProperties": self.value.schema(),
        }

    def _read(self, reading: Reading, node: Node, path: Path) -> Any:
        if is_empty(node):
            return ()
        if not isinstance(node, Mapping):
            return reading.fail(node, path, f"expected {self.what}, not {noun(node)}")
        fields = []
        seen: set[str] = set()
        for name, child in node.entries.items():
            where = (*path, name)
            if isinstance(child, Mapping):
                wrong = "expected a string, not a mapping (quote values that contain braces)"
                reading.fail(child, where, wrong)
                continue
            title = self.name.read(reading, Scalar(name, child.line, plain=False), where)
            value = self.value.read(reading, child, where)
            if title is not INVALID and title.lower() in seen:
                wrong = "is listed twice (header field names are not case-sensitive)"
                reading.fail(child, where, wrong)
            elif INVALID not in (title, value):
                fields.append((title, value))
                seen.add(title.lower())
        return tuple(fields)

    def made(self, written: Any) -> Any:
        return tuple(written)


@dataclass(frozen=True, slots=True)
class Key:
    """One key. The default is what a person would write for it; None is "not set"."""

    name: str
    kind: Kind
    default: Any
    doc: str
    required: bool = False
    refusal: str = ""  # why the key may not stand here

    def schema(self) -> Schema:
        """Return the JSON Schema of its value."""
        schema = {**self.kind.schema(), "description": self.doc}
        if not self.required and self.default is not None:
            is_list = isinstance(self.default, tuple)
            schema["default"] = list(self.default) if is_list else self.default
        return schema


@dataclass(frozen=True, slots=True)
class Table(Kind):
    """Keys, and the function that makes something of their values.

    Of the keys in each of ``any_of`` one has to be there; each pair of ``exclusive`` excludes one
    another. ``former`` says of keys of earlier versions what to write.
    """

    what: str
    keys: dict[str, Key]
    build: Callable[[Section], Any]
    any_of: tuple[tuple[str, ...], ...] = ()
    exclusive: tuple[tuple[str, str], ...] = ()
    former: dict[str, str] = field(default_factory=dict)
    defaults: dict[str, Any] = field(init=False)
    required: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        defaults = {
            key.name: key.default if key.default is None else key.kind.made(key.default)
            for key in self.keys.values()
            if not key.refusal
        }
        object.__setattr__(self, "defaults", defaults)
        required = tuple(key.name for key in self.keys.values() if key.required)
        object.__setattr__(self, "required", required)

    @property
    def expected(self) -> str:
        return self.what

    def schema(self) -> Schema:
        schema: Schema = {
            "type": "object" if self.required or self.any_of else ["object", "null"],
            "properties": {key.name: key.schema() for key in self.keys.values()},
            "additionalProperties": False,
        }
        if self.required:
            schema["required"] = list(self.required)
        relations: list[Schema] = [
            {"anyOf": [{"required": [name]} for name in names]} for names in self.any_of
        ]
        relations += [{"not": {"required": list(pair)}} for pair in self.exclusive]
        if relations:
            schema["allOf"] = relations
        return schema

    def _read(self, reading: Reading, node: Node, path: Path) -> Any:
        if is_empty(node):
            node = Mapping({}, node.line)
        if not isinstance(node, Mapping):
            return reading.fail(node, path, f"expected {self.what}, not {noun(node)}")
        before, values = reading.failures, dict(self.defaults)
        for name, child in node.entries.items():
            values[name] = self._entry(reading, name, child, (*path, name))
        self._relate(reading, node, path)
        if reading.failures > before:
            return INVALID
        return self.build(Section(values, reading.place(node, path)))

    def _entry(self, reading: Reading, name: str, node: Node, path: Path) -> Any:
        key = self.keys.get(name)
        if key is None:
            unknown = f"unknown key{reading.meant(name, self.keys)}"
            return reading.fail(node, path, self.former.get(name) or unknown)
        if key.refusal:
            return reading.fail(node, path, key.refusal)
        return key.kind.read(reading, node, path)

    def _relate(self, reading: Reading, node: Mapping, path: Path) -> None:
        """Note keys that are missing, or cannot be combined with another."""
        present = node.entries.keys()
        for name in self.required:
            if name not in present:
                reading.fail(node, path, f'required key "{name}" is missing')
        for names in self.any_of:
            if present.isdisjoint(names):
                these = " or ".join(f'"{name}"' for name in names)
                reading.fail(node, path, f"{these} is required")
        for first, second in self.exclusive:
            if second in present and first in present:
                wrong = f'cannot be combined with "{first}"'
                reading.fail(node.entries[second], (*path, second), wrong)

    def made(self, _written: Any) -> Any:
        nowhere = Place(0, (0, ()), (), "", Problems(""))
        return self.build(Section(dict(self.defaults), nowhere))

    def homes(self, prefix: str) -> Iterable[tuple[str, str]]:
        for key in self.keys.values():
            place = f"{prefix}.{key.name}" if prefix else key.name
            yield from key.kind.homes(place)
            yield key.name, place

    def known(self) -> dict[str, str]:
        """Return the first place where each key below belongs."""
        return dict(reversed(list(self.homes(""))))


@dataclass(frozen=True, slots=True)
class OneOf(Kind):
    """A short form, or a table."""

    short: Text
    table: Table

    @property
    def expected(self) -> str:
        return self.short.what

    def schema(self) -> Schema:
        return {"anyOf": [self.short.schema(), self.table.schema()]}

    def _read(self, reading: Reading, node: Node, path: Path) -> Any:
        if isinstance(node, Sequence):
            wrong = f"expected {self.short.what} or {self.table.what}, not a list"
            return reading.fail(node, path, wrong)
        kind = self.short if isinstance(node, Scalar) else self.table
        return kind.read(reading, node, path)

    def made(self, written: Any) -> Any:
        return self.short.made(written)

    def homes(self, prefix: str) -> Iterable[tuple[str, str]]:
        return self.table.homes(prefix)


def table(
    what: str,
    build: Callable[[Section], Any],
    *keys: Key,
    any_of: tuple[tuple[str, ...], ...] = (),
    exclusive: tuple[tuple[str, str], ...] = (),
    former: dict[str, str] | None = None,
) -> Table:
    """Return the table of these keys."""
    return Table(what, {key.name: key for key in keys}, build, any_of, exclusive, former or {})
