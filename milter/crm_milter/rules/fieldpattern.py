"""Patterns for the value of a header field: ``*`` and ``?``, or ``/regular expression/``.

A value is compared as a mail program shows it, regardless of case, in time linear in its length.
A pattern with ``*`` and ``?`` is for the whole value; an expression may match anywhere in it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import translate
from typing import NamedTuple, Protocol

from crm_milter.headertext import composed
from crm_milter.rules import regexes
from crm_milter.rules.pattern import regex
from crm_milter.wording import abridged


@dataclass(frozen=True, slots=True)
class FieldPattern:
    """One pattern; ``matches`` takes a readable value."""

    source: str
    matches: Callable[[str], bool] = field(repr=False, compare=False)

    def __str__(self) -> str:
        return self.source


class Header(Protocol):
    """The header of a message, as far as conditions ask for it; names are in lower case."""

    def has(self, name: str, pattern: FieldPattern) -> bool:
        """Tell whether a field of this name matches."""

    def names(self, fields: tuple[str, ...], address: str) -> bool:
        """Tell whether an address in normal form stands in one of these fields."""


class FieldTest(NamedTuple):
    """The patterns for one header field, of which one has to match."""

    name: str  # as it was written
    patterns: tuple[FieldPattern, ...]

    def matches(self, header: Header) -> bool:
        """Tell whether a field of this name matches."""
        name = self.name.lower()
        return any(header.has(name, pattern) for pattern in self.patterns)

    def __str__(self) -> str:
        return f"{self.name}: {abridged([str(each) for each in self.patterns])}"


def parse(text: str) -> FieldPattern:
    """Return the pattern that a person wrote; raises PatternError."""
    text = composed(text)
    if text.startswith("/"):
        search = regex(text, "").compiled.search
        return FieldPattern(text, lambda value: regexes.ask(search, value) is not None)
    # Brackets are special to fnmatch, not to a person.
    glob = re.compile(translate(text.strip().replace("[", "[[]")), re.IGNORECASE)
    return FieldPattern(text, lambda value: glob.match(value) is not None)
