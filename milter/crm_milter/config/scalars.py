"""The kinds of single values: each reads one, and describes itself for editors."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from crm_milter.config.document import Node, Refused, Scalar
from crm_milter.config.files import Files
from crm_milter.config.problems import AlreadyReported, Path
from crm_milter.config.reading import Reading, noun, shown
from crm_milter.precis import complaint, invisible
from crm_milter.wording import suggestion

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

Schema = dict[str, Any]  # a JSON Schema


class Kind:
    """A kind of value: how it is read, what its default means, and how editors check it."""

    __slots__ = ()

    @property
    def expected(self) -> str:
        """Return what a message calls it, with its article."""
        raise NotImplementedError

    def schema(self) -> Schema:
        """Return its JSON Schema, which sees shapes only."""
        raise NotImplementedError

    def read(self, reading: Reading, node: Node, path: Path) -> Any:
        """Return the value of a node, or INVALID once its problem is noted."""
        return reading.refuse() if isinstance(node, Refused) else self._read(reading, node, path)

    def _read(self, reading: Reading, node: Node, path: Path) -> Any:
        raise NotImplementedError

    def made(self, written: Any) -> Any:
        """Return the value of a default, which is given as a person would write it."""
        return written

    def homes(self, _prefix: str) -> Iterable[tuple[str, str]]:
        """Yield each key below with where it belongs, for those found elsewhere."""
        return ()


class Single(Kind):
    """A kind of value that is one scalar."""

    __slots__ = ()

    def value(self, node: Scalar, files: Files) -> Any:
        """Return the value; raises ValueError with the reason, or AlreadyReported."""
        raise NotImplementedError

    def _read(self, reading: Reading, node: Node, path: Path) -> Any:
        if not isinstance(node, Scalar):
            return reading.fail(node, path, f"expected {self.expected}, not {noun(node)}")
        if node.plain and not node.text:
            return reading.fail(node, path, f"the value is missing, expected {self.expected}")
        try:
            wrong = invisible(node.text)
            if wrong:
                raise ValueError(complaint(node.text, wrong))
            return self.value(node, reading.files)
        except ValueError as error:
            return reading.fail(node, path, str(error))
        except AlreadyReported:
            return reading.refuse()

    def _unexpected(self, node: Scalar, hint: str = "") -> ValueError:
        return ValueError(f"expected {self.expected}, not {shown(node)}{hint}")


@dataclass(frozen=True, slots=True)
class Text(Single):
    """A text; ``parse`` returns its meaning and raises ValueError with the reason."""

    what: str  # with its article, for "expected ..."
    parse: Callable[[str], Any] = str
    shape: str = ""  # a regular expression that every such text matches, for editors
    number: bool = False  # may look like a number
    word: bool = False  # "no" without quotes is meant as it is written

    @property
    def expected(self) -> str:
        return self.what

    def schema(self) -> Schema:
        types: Schema = {"type": ["string", "integer"] if self.number else "string"}
        return {**types, "pattern": self.shape} if self.shape else types

    def value(self, node: Scalar, _files: Files) -> Any:
        return self.parse(_plain_text(self.what, node, may_be_word=self.word))

    def made(self, written: str) -> Any:
        return self.parse(written)


@dataclass(frozen=True, slots=True)
class FileText(Single):
    """A text that names a file, or may; ``parse`` gets what opens it as well."""

    what: str
    parse: Callable[[str, Files], Any]
    shape: str = ""

    @property
    def expected(self) -> str:
        return self.what

    def schema(self) -> Schema:
        return {"type": "string", "pattern": self.shape or "."}

    def value(self, node: Scalar, files: Files) -> Any:
        return self.parse(_plain_text(self.what, node), files)


@dataclass(frozen=True, slots=True)
class Boolean(Single):
    """``true`` or ``false``."""

    @property
    def expected(self) -> str:
        return "true or false"

    def schema(self) -> Schema:
        return {"type": "boolean"}

    def value(self, node: Scalar, _files: Files) -> bool:
        if node.plain and node.text in ("true", "false"):
            return node.text == "true"
        meant = _WORDS.get(node.text.lower(), "")
        raise self._unexpected(node, f"; write {meant}" if meant in ("true", "false") else "")


@dataclass(frozen=True, slots=True)
class Integer(Single):
    """A whole number within limits, or else one word, which stands for None."""

    what: str
    least: int
    most: int
    word: str = ""

    @property
    def expected(self) -> str:
        return self.what

    def schema(self) -> Schema:
        number = {"type": "integer", "minimum": self.least, "maximum": self.most}
        return {"anyOf": [number, {"const": self.word}]} if self.word else number

    def value(self, node: Scalar, _files: Files) -> int | None:
        if self.word and node.text == self.word:
            return None
        number = int(node.text) if node.plain and _WHOLE.fullmatch(node.text) else -1
        if self.least <= number <= self.most:
            return number
        raise self._unexpected(node)

    def made(self, written: Any) -> Any:
        return None if written == self.word else written


@dataclass(frozen=True, slots=True)
class Number(Single):
    """A number, a fraction too."""

    @property
    def expected(self) -> str:
        return "a number"

    def schema(self) -> Schema:
        return {"type": "number"}

    def value(self, node: Scalar, _files: Files) -> float:
        if node.plain and _DECIMAL.fullmatch(node.text):
            return float(node.text)
        raise self._unexpected(node)


@dataclass(frozen=True, slots=True)
class Choice(Single):
    """One of the values of an enumeration."""

    values: type[Enum]

    @property
    def expected(self) -> str:
        *most, last = (f'"{each.value}"' for each in self.values)
        return f"{', '.join(most)} or {last}"

    def schema(self) -> Schema:
        return {"enum": [each.value for each in self.values]}

    def value(self, node: Scalar, _files: Files) -> Enum:
        try:
            return self.values(node.text)
        except ValueError:
            hint = suggestion(node.text, [str(each.value) for each in self.values])
            raise self._unexpected(node, hint) from None

    def made(self, written: Any) -> Enum:
        return self.values(written)


def _plain_text(what: str, node: Scalar, *, may_be_word: bool = False) -> str:
    word = _WORDS.get(node.text.lower()) if node.plain and len(node.text) <= _LONGEST_WORD else ""
    if word and not may_be_word:
        means = f'"{node.text}" without quotes means {word} in YAML'
        raise ValueError(f"expected {what}, but {means} (quote it, or leave the key out)")
    if not node.text.isprintable() and _CONTROL.search(node.text):
        raise ValueError(f'"{node.text}" contains a line break or control character')
    return node.text
