"""Address patterns (``match``) and the templates that their groups fill (``replace_with``).

A pattern is one of ``user@domain``, ``glo*b@domain``, ``@domain``, ``*`` and
``/regular expression/``. It is compared with an address in normal form and answers with its
groups, or None. Every comparison takes time linear in the address: globs by searching their
literal pieces from left to right, regular expressions by RE2. Nobody's mail waits on a pattern.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from crm_milter import address as addresses
from crm_milter import regexes

Groups = tuple[str, ...]
Span = tuple[int, int]


class PatternError(ValueError):
    """What a person wrote is no pattern or template; the text says why."""


@dataclass(frozen=True, slots=True)
class Exact:
    """``user@domain``: one address, in normal form."""

    address: str


@dataclass(frozen=True, slots=True)
class InDomain:
    """``@domain``: every address of a domain."""

    domain: str


@dataclass(frozen=True, slots=True)
class Everyone:
    """``*``: every address."""


@dataclass(frozen=True, slots=True)
class NullSender:
    """``<>``: the sender of bounces. No recipient is that."""


@dataclass(frozen=True, slots=True)
class AddressList:
    """``file:PATH``: the addresses that a file lists, in normal form."""

    source: str
    addresses: frozenset[str]


@dataclass(frozen=True, slots=True)
class Glob:
    """``case-*@domain``: each ``*`` takes as little as it can, possibly nothing."""

    source: str
    pieces: tuple[str, ...]  # the literal text before, between and after the stars
    domain: str

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
            addresses.check_letters(text, text)
            return _parse_regex(addresses.composed(text))
        if text.startswith("@"):
            return InDomain(addresses.checked_domain(text[1:]))
        if "*" in text:
            return _parse_glob(text)
        return Exact(addresses.normalise(addresses.mailbox(text)))
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
    addresses.mailbox(text.replace("*", "x"))
    local = addresses.split(text)[0]  # without quotes, as the normal form is
    pieces = tuple(addresses.folded(re.sub(r"\*+", "*", local)).split("*"))
    return Glob(text, pieces, addresses.checked_domain(domain))


# RE2 takes memory that grows with the square of the groups in an expression.
_LONGEST_EXPRESSION = 1000


def _parse_regex(text: str) -> Regex:
    if len(text) < 3 or not text.endswith("/"):
        raise PatternError(
            f'a regular expression must be enclosed in slashes ("/.../"), not "{text}"'
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
            f' {_LONGEST_EXPRESSION}; use "file:PATH" for a list of addresses'
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
        return bool(_LITERAL_END.search(expression)) and not _has_outer_bar(expression)
    return not isinstance(pattern, Everyone)


def _has_outer_bar(expression: str) -> bool:
    plain = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "x", expression)
    depth = 0
    for character in plain:
        depth += (character == "(") - (character == ")")
        if character == "|" and depth == 0:
            return True
    return False


def group_count(pattern: Pattern) -> int:
    r"""Return how many groups (``\1`` and up) a pattern fills."""
    if isinstance(pattern, Glob):
        return len(pattern.pieces) - 1
    return int(pattern.compiled.groups) if isinstance(pattern, Regex) else 0


_REFERENCE = re.compile(r"\\([0-9])")


@dataclass(frozen=True, slots=True)
class Template:
    r"""What ``replace_with`` says: ``user@domain``, ``@domain`` or ``user@``, with ``\1`` in it.

    An absent local part or domain (None) is kept from the recipient. A constant has neither.
    """

    source: str
    local: str | None
    domain: str | None
    constant: str | None = None  # the target, where every recipient comes to the same

    @property
    def is_constant(self) -> bool:
        """Tell whether every recipient comes to the same target."""
        return self.constant is not None

    def references(self) -> frozenset[int]:
        """Return the numbers of the groups that the template uses."""
        text = f"{self.local or ''}@{self.domain or ''}"
        return frozenset(int(number) for number in _REFERENCE.findall(text))

    def fill(self, address: str, groups: Groups) -> str | None:
        """Return the target for a recipient, None if no mailbox can have that address.

        The domain of the recipient is in normal form, its local part as the client spelt it.
        """
        if self.constant is not None:
            return self.constant
        local = addresses.local_of(address)
        if self.local is not None:
            if _leaves_a_gap(self.local, groups):
                return None
            local = _fill(self.local, groups)
        domain = (
            addresses.domain_of(address)
            if self.domain is None
            else addresses.ascii_domain(_fill(self.domain, groups))
        )
        target = addresses.join(local, domain)
        like = _REFERENCE.sub("x", self.local or "")
        return target if addresses.is_deliverable(target, like) else None


def _fill(text: str, groups: Groups) -> str:
    return _REFERENCE.sub(lambda found: groups[int(found[1]) - 1], text)


# An empty group between separators: "case-\1" would become "case-", and nobody has that address.
_GAP = re.compile(r"(?:\A|[-_+=.])\0+(?:[-_+=.]|\Z)")


def _leaves_a_gap(text: str, groups: Groups) -> bool:
    return bool(_GAP.search(_REFERENCE.sub(lambda found: groups[int(found[1]) - 1] or "\0", text)))


def template(text: str) -> Template:
    """Return the template that a person wrote; raises PatternError."""
    sample = _REFERENCE.sub("x", text)
    if text.startswith('"') and (sample != text or text.endswith("@")):
        raise PatternError(
            f'"{text}" is not supported: a local part in quotes has to be a whole address without'
            r' "\1"'
        )
    if "\\0" in text:
        raise PatternError(r'groups count from "\1"; there is no "\0"')
    try:
        if text.startswith("@"):
            addresses.checked_domain(sample[1:])
            return Template(text, None, text[1:])
        if text.endswith("@"):
            _check_made(f"{sample}x.example", text)
            return Template(text, addresses.composed(text[:-1]), None)
        written = addresses.mailbox(sample)
    except addresses.AddressError as error:
        raise PatternError(str(error)) from error
    if sample == text:
        # Often there are very many of them: nothing is kept twice.
        return Template(written if written == text else text, None, None, constant=written)
    _check_made(written, text)
    local, _, domain = addresses.composed(text).rpartition("@")
    return Template(text, local, domain)


def _check_made(sample: str, text: str) -> None:
    """Refuse a template that no group could make an address of."""
    local, domain = addresses.split(addresses.mailbox(sample))
    if not addresses.is_deliverable(addresses.join(local, domain), local):
        raise PatternError(f'no mailbox can have an address as long as "{text}"')
