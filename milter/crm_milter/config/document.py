"""YAML text to a tree of plain nodes, by events: nothing in it is ever resolved or constructed.

Every scalar stays the text that the file has, so ``no``, ``0660``, ``1:30`` and dates are never
turned into something else. What YAML offers beyond nested keys, lists and texts is refused:
anchors, aliases, tags, merge keys, keys that are not strings, duplicate keys, a second document.
Whatever the bytes are, the outcome is a tree or problems with their lines. Neither the file nor
its long lists are ever whole in memory: a hundred thousand rules go through one by one.
"""

import codecs
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, NoReturn

import yaml

from crm_milter.config.problems import Path, Problems

MAX_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 10  # the configuration itself needs five

# libyaml where PyYAML was built with it: ten times as fast, the same events.
_Parser = getattr(yaml, "CBaseLoader", yaml.BaseLoader)


@dataclass(slots=True)
class Scalar:
    """A text; ``plain`` is one without quotes. The line of a key's value is that of the key."""

    text: str
    line: int
    plain: bool


@dataclass(slots=True)
class Sequence:
    """A list."""

    items: list["Node"]
    line: int


@dataclass(slots=True)
class Mapping:
    """Keys and their values, in order."""

    entries: dict[str, "Node"]
    line: int


@dataclass(slots=True)
class Refused:
    """Something that was refused already and must not be reported again."""

    line: int


Node = Scalar | Sequence | Mapping | Refused

Taker = Callable[[Node, Path], None]


def read(stream: BinaryIO, problems: Problems, takers: dict[str, Taker]) -> Node | None:
    """Return the tree of a file, None for an empty one; raises ConfigError if it is not YAML.

    The items of a list under a top-level key of ``takers`` are given to the taker, each with its
    path, as soon as they are read; the list itself is empty then. Problems that leave the rest
    readable are only noted. ``stream`` has to be seekable.
    """
    try:
        return _Builder(_Parser(_Source(stream, problems)), problems, takers).document()
    except yaml.MarkedYAMLError as error:
        stream.seek(0)
        line, message = _explained(error, stream)
        problems.fail(line, message)
    except yaml.YAMLError as error:
        problems.fail(0, f"invalid YAML: {error}")


# What YAML 1.1 calls printable, less its exotic line ends, which no editor counts as lines.
_NO_TEXT = re.compile(
    "[^\t\n\r -~\xa0-\u2027\u202a-\ud7ff\ue000-\ufefe\uff00-\ufffd\U00010000-\U0010ffff]"
)
_LINE_END = re.compile(r"\r\n?|\n")
_CHUNK = 1 << 16
_TOO_DEEP = f"nested more than {MAX_DEPTH} levels deep"


def _wide(data: bytes) -> str:
    """Return the name of the encoding of a text that begins so and takes more bytes a letter."""
    if data[:4] in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE) or data[:4].count(0) == 3:
        return "UTF-32"
    marked = data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    return "UTF-16" if marked or data[:2].count(0) == 1 else ""


class _Source:
    """What the parser reads from: the file in chunks, each checked to be text."""

    def __init__(self, stream: BinaryIO, problems: Problems) -> None:
        self._stream = stream
        self._problems = problems
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._size = 0
        self._line = 1

    def read(self, _size: int = -1) -> bytes:
        """Return the next chunk, b"" at the end, without the bytes of an unfinished character."""
        data = self._stream.read(_CHUNK)
        wide = "" if self._size else _wide(data)
        if wide:
            self._refuse(f"the file is {wide}; save it as UTF-8")
        self._size += len(data)
        if self._size > MAX_BYTES:
            self._line = 0
            self._refuse(f"larger than {MAX_BYTES >> 20} MiB")
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError as error:
            before = error.object[: error.start].decode("utf-8", "replace")
            self._refuse(f"byte 0x{error.object[error.start]:02x} is not valid UTF-8", before)
        found = _NO_TEXT.search(text)
        if found:
            name = "a NUL byte" if found[0] == "\0" else f"the character U+{ord(found[0]):04X}"
            self._refuse(f"{name} is not allowed in a text file", text[: found.start()])
        self._line += text.count("\n")
        return self.read() if data and not text else text.encode()

    def _refuse(self, message: str, before: str = "") -> NoReturn:
        self._problems.fail(self._line and self._line + before.count("\n"), message)


class _Builder:
    """Turns the events of one parser into nodes."""

    def __init__(self, parser: Any, problems: Problems, takers: dict[str, Taker]) -> None:
        self._next: Callable[[], Any] = parser.get_event
        self._problems = problems
        self._takers = takers
        self._path: list[str | int] = []

    def document(self) -> Node | None:
        self._next()  # the start of the stream
        if isinstance(self._next(), yaml.StreamEndEvent):
            return None
        root = self._node(self._next())
        self._next()  # the end of the document
        event = self._next()
        if not isinstance(event, yaml.StreamEndEvent):
            self._refuse(
                _line(event), 'a second YAML document starts here ("---"); only one is allowed'
            )
        return None if isinstance(root, Scalar) and root.plain and not root.text else root

    def _refuse(self, line: int, message: str) -> None:
        self._problems.add(line, tuple(self._path), message)

    def _node(self, event: Any, line: int = 0) -> Node:
        line = line or _line(event)
        kind = type(event)
        if kind is yaml.ScalarEvent and event.tag is None and event.anchor is None:
            return Scalar(event.value, line, not event.style)
        if kind is yaml.AliasEvent:
            self._refuse(
                line,
                f'"*{event.anchor}" is a YAML alias, which is not supported; quote it if it is'
                " text",
            )
            return Refused(line)
        if event.anchor is not None:
            self._refuse(
                line,
                f'"&{event.anchor}" is a YAML anchor, which is not supported; quote it if it is'
                " text",
            )
        if event.tag is not None:
            self._refuse(line, f'"{event.tag}" is a YAML tag, which is not supported; remove it')
        if kind is yaml.ScalarEvent:
            return Refused(line)
        if len(self._path) >= MAX_DEPTH:
            self._problems.fail(line, _TOO_DEEP)
        if kind is yaml.SequenceStartEvent:
            return Sequence(self._items(), line)
        return Mapping(self._entries(), line)

    def _items(self) -> list[Node]:
        items: list[Node] = []
        taker = self._takers.get(str(self._path[0])) if len(self._path) == 1 else None
        self._path.append(0)
        number = 0
        while type(event := self._next()) is not yaml.SequenceEndEvent:
            self._path[-1] = number
            number += 1
            item = self._node(event)
            if taker:
                taker(item, tuple(self._path))
            else:
                items.append(item)
        self._path.pop()
        return items

    def _entries(self) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        path, following = self._path, self._next
        while type(event := following()) is not yaml.MappingEndEvent:
            line = _line(event)
            key = self._key(event, line)
            path.append(key)
            value = self._node(following(), line)
            if key in entries:
                self._refuse(line, f"duplicate key (first on line {entries[key].line})")
            elif key:
                entries[key] = value
            path.pop()
        return entries

    def _key(self, event: Any, line: int) -> str:
        """Return a key, "" for one that was refused."""
        key = self._node(event, line)
        if isinstance(key, Scalar):
            if key.text == "<<" and key.plain:
                self._refuse(line, 'merge keys ("<<") are not supported; write the keys out')
            elif not key.text:
                self._refuse(line, 'a key is missing before ":"')
            else:
                return sys.intern(key.text)
        elif not isinstance(key, Refused):
            self._refuse(line, "a key must be a string, not a list or a mapping (unquoted braces?)")
        return ""


def _line(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


def _explained(error: yaml.MarkedYAMLError, stream: BinaryIO) -> tuple[int, str]:
    """Return line and meaning of a syntax error, in the words of a person where it is usual."""
    mark: Any = error.problem_mark or error.context_mark
    if mark is None:
        return 0, f"invalid YAML: {error.problem}"
    context, problem = error.context or "", error.problem or "unreadable"
    line = mark.line + 1
    if "nesting depth" in problem:  # libyaml's own limit; it reads ahead of us
        return line, _TOO_DEEP
    if "alias" in context or "anchor" in context:
        sign = "*" if "alias" in context else "&"
        return line, f'a value that begins with "{sign}" must be quoted'
    if "cannot start any token" in problem:
        character = _character(stream, mark)
        if character == "\t":
            return line, "tabs cannot be used for indentation; use spaces"
        return line, f'a value that begins with "{character}" must be quoted'
    if "escape" in problem or "escape" in context:
        return line, (
            "a backslash in double quotes starts an escape sequence; use single quotes, as in "
            r"'\1'"
        )
    begun = _never_ended(context, problem)
    if begun and error.context_mark is not None:
        return error.context_mark.line + 1, begun
    if "mapping values are not allowed" in problem:
        return line, 'unexpected ":": quote the value or fix the indentation'
    if "block sequence entries are not allowed" in problem:
        return line, 'a list must start on a new line; if "-" is part of the value, quote the value'
    hint = " (check indentation and quotes)" if "did not find" in problem else ""
    return line, f"invalid YAML: {context}{', ' if context else ''}{problem}{hint}"


def _never_ended(context: str, problem: str) -> str:
    """Return what is wrong where a construct began, which is in a line before the problem's."""
    if "could not find expected ':'" in problem:
        return 'expected "key: value", with a space after the ":"'
    return "the quote opened here is never closed" if "quoted scalar" in context else ""


def _character(stream: BinaryIO, mark: Any) -> str:
    lines = _LINE_END.split(stream.read().decode("utf-8-sig"))
    line = lines[mark.line] if mark.line < len(lines) else ""
    return line[mark.column : mark.column + 1]
