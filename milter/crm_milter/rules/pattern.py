"""Address patterns (``match``) and the templates that their groups fill (``replace_with``).

A pattern is one of ``user@domain``, ``glo*b@domain``, ``@domain``, ``*`` and
``/regular expression/``. It is compared with an address in normal form and answers with its
groups, or None. Every comparison takes time linear in the address: globs by searching their
literal pieces from left to right, regular expressions by RE2. No mail waits for a slow pattern.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from crm_milter import address as addresses
from crm_milter import mailbox
from crm_milter.rules import regexes

Groups = tuple[str, ...]
Span = tuple[int, int]


class PatternError(ValueError):
    """The text is not a valid pattern or template; the message says why."""


@dataclass(frozen=True, slots=True)
class Exact:
    """``user@domain``: one address, in normal form."""

    address: str

    def __str__(self) -> str:
        return self.address


@dataclass(frozen=True, slots=True)
class InDomain:
    """``@domain``: every address of a domain."""

    domain: str

    def __str__(self) -> str:
        return f"@{self.domain}"


@dataclass(frozen=True, slots=True)
class Everyone:
    """``*``: every address."""

    def __str__(self) -> str:
        return "*"


@dataclass(frozen=True, slots=True)
class NullSender:
    """``<>``: the sender of bounces. No recipient is that."""

    def __str__(self) -> str:
        return "<>"


@dataclass(frozen=True, slots=True)
class AddressList:
    """``file:PATH``: the addresses that a file lists, in normal form."""

    source: str  # as the configuration writes it
    addresses: frozenset[str]

    def __str__(self) -> str:
        return self.source


@dataclass(frozen=True, slots=True)
class Glob:
    """``case-*@domain``: each ``*`` takes as little as it can, possibly nothing."""

    source: str
    pieces: tuple[str, ...]  # the literal text before, between and after the stars
    domain: str

    def __str__(self) -> str:
        return self.source

    def groups(self, address: str, typed: str = "") -> Groups | None:
        """Return what each ``*`` took of an address of this glob's domain, or None.

        The groups come from ``typed``, the address as the client spelt it, if that is given.
        """
        local = addresses.local_of(address)
        first, last = self.pieces[0], self.pieces[-1]
        if len(local) < len(first) + len(last):
            return None
        if not (local.startswith(first) and local.endswith(last)):
            return None
        spans = self._between(local, len(first), len(local) - len(last))
        return None if spans is None else _taken(typed or address, address, spans)

    def _between(self, local: str, start: int, end: int) -> list[Span] | None:
        spans = []
        for piece in self.pieces[1:-1]:
            found = local.find(piece, start, end)
            if found < 0:
                return None
            spans.append((start, found))
            start = found + len(piece)
        return [*spans, (start, end)]


@dataclass(frozen=True, slots=True)
class Regex:
    """``/expression/``: matches the whole address, regardless of case, in linear time."""

    source: str
    compiled: Any  # of RE2

    def __str__(self) -> str:
        return self.source

    def groups(self, address: str, typed: str = "") -> Groups | None:
        """Return the expression's groups, "" for one that took no part, or None.

        They come from ``typed`` as those of a glob do. Letters that folding makes two of, such as
        "ß", are the ones of the expression if it does not match the normal form.
        """
        typed = typed or address
        spans = self._spans(address)
        if spans is None and not typed.isascii():
            typed = address = addresses.composed(typed)
            spans = self._spans(address)
        return None if spans is None else _taken(typed, address, spans)

    def _spans(self, text: str) -> list[Span] | None:
        found = self.compiled.fullmatch(addresses.readable(text))
        return [found.span(each + 1) for each in range(self.compiled.groups)] if found else None


def _taken(typed: str, address: str, spans: Iterable[Span]) -> Groups:
    if typed == address:
        return tuple([address[start:end] if start >= 0 else "" for start, end in spans])
    return tuple([addresses.part(typed, address, *span) if span[0] >= 0 else "" for span in spans])


Pattern = Exact | InDomain | Everyone | Glob | Regex | AddressList | NullSender


def parse(text: str) -> Pattern:
    """Return the pattern that a person wrote; raises PatternError."""
    if text == "*":
        return Everyone()
    try:
        if text.startswith("/"):
            mailbox.check_letters(text, text)
            return regex(addresses.composed(text), '; use "file:PATH" for a list of addresses')
        if text.startswith("@"):
            return InDomain(mailbox.checked_domain(text[1:]))
        if "*" in text:
            return _parse_glob(text)
        return Exact(addresses.normalise(mailbox.mailbox(text)))
    except addresses.AddressError as error:
        raise PatternError(str(error)) from error


def _parse_glob(text: str) -> Glob:
    local, at, domain = text.rpartition("@")
    if not at:
        raise PatternError(f'"{text}" has no domain; write "{text}@DOMAIN"')
    if "*" in domain:
        raise PatternError(f'"*" is allowed in the local part only, not in "@{domain}"')
    if local == "*":
        raise PatternError(f'use "@{domain}" to match every address in the domain')
    if "\\*" in local:
        raise PatternError(f'"\\*" in "{text}" is not supported: "*" stands for any text')
    mailbox.mailbox(text)
    local = addresses.split(text)[0]  # without quotes, as the normal form is
    pieces = tuple(addresses.folded(re.sub(r"\*+", "*", local)).split("*"))
    return Glob(text, pieces, mailbox.checked_domain(domain))


# RE2 takes memory that grows with the square of the groups in an expression.
_LONGEST_EXPRESSION = 1000
_FLAGS = re.compile(r"/.+/[a-z]+", re.DOTALL)


def regex(text: str, hint: str) -> Regex:
    """Return an expression; raises PatternError, with a hint if it is too long."""
    if len(text) < 3 or not text.endswith("/"):
        flags = _FLAGS.fullmatch(text)
        meant = "; flags are not needed, because case is ignored" if flags else ""
        raise PatternError(
            f'a regular expression must be enclosed in slashes ("/.../"), not "{text}"{meant}'
        )
    re2 = regexes.module()
    if re2 is None:  # Debian 12 has no package of it; everything else works without it
        raise PatternError(
            "regular expressions need RE2, which is not installed (apt install python3-re2, or pip"
            ' install google-re2); globs such as "case-*@domain" work without it'
        )
    if len(text) > _LONGEST_EXPRESSION:
        raise PatternError(
            f"the regular expression has {len(text)} characters, the limit is"
            f" {_LONGEST_EXPRESSION}{hint}"
        )
    try:
        return Regex(text, re2.compile(text[1:-1], regexes.options(re2)))
    except re2.error as error:
        reason = error.args[0].decode() if isinstance(error.args[0], bytes) else error
        raise PatternError(f'invalid RE2 regular expression "{text}": {reason}') from error


_LITERAL_END = re.compile(r"@(?:[\w-]|\\?\.|\\-)+\$?$")


def has_literal_domain(pattern: Pattern) -> bool:
    """Tell whether a pattern names its domain, so that mail to the world cannot match it.

    A regular expression has to end in ``@`` and plain text, whichever alternative it takes.
    """
    if isinstance(pattern, Regex):
        expression = pattern.source[1:-1]
        return bool(_LITERAL_END.search(expression)) and not regexes.has_outer_bar(expression)
    return not isinstance(pattern, Everyone)


def group_count(pattern: Pattern) -> int:
    r"""Return how many groups (``\1`` and up) a pattern fills."""
    if isinstance(pattern, Glob):
        return len(pattern.pieces) - 1
    return int(pattern.compiled.groups) if isinstance(pattern, Regex) else 0
