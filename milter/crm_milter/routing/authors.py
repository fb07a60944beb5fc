"""The addresses in a From or To field, in time linear in its length.

Authors are read generously: an address counts wherever it stands, in a display name or a comment
as well (mailing lists put the author there), and also in the obsolete syntax with comments, white
space and routes inside it (RFC 5322 section 4.4). To call too much an author leaves a message where
it is; to overlook one makes a loop.
"""

import re
from collections.abc import Iterator
from itertools import chain, pairwise

from crm_milter import address as addresses
from crm_milter.routing.structured import is_closed

MAX_AUTHORS = 1000  # of one message
_LONGEST = 512  # characters of an address, more than SMTP carries (RFC 5321 section 4.5.3.1)

_ATOM = r"[^\x00-\x20\x7f()<>\[\]:;@\\,\"]"
# Almost all: no address can stand anywhere else in these.
_ONE_MAILBOX = re.compile(rf'(?:[^"()<>@]++|"[^"\\@]*+")*+<({_ATOM}++@{_ATOM}++)>\s*')
# Each branch matches whatever follows, so that no character is looked at twice.
_TOKEN = re.compile(
    rf'"(?:[^"\\]|\\(?:.|\Z))*+(?:"|\Z)|\[[^\[\]]*+\]|{_ATOM}++|[()@<>,:;]', re.DOTALL
)
_OTHER = re.compile(_ATOM.replace("[^", "["))
_PLAIN = str.maketrans('()"', "   ")
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)


def authors(value: str) -> set[str]:
    """Return the addresses of one From field, at most MAX_AUTHORS."""
    one = _ONE_MAILBOX.fullmatch(value)
    if one and len(one[1]) <= _LONGEST:
        return {addresses.normalise(one[1])}
    found: set[str] = set()
    for source in (_by_grammar(value), _anywhere(value)):
        for address in source:
            if len(address) <= _LONGEST:
                found.add(addresses.normalise(address))
            if len(found) >= MAX_AUTHORS:
                return found
    return found


def addressees(value: str) -> Iterator[str]:
    """Yield the addresses of one To, Cc or Resent field, as they are written, and no others.

    A quote or a parenthesis that nothing closes (42" TV <help@...>) hides none; apostrophes that
    some programs put around an address are no part of it.
    """
    values = (value,) if is_closed(value) else (value, value.translate(_PLAIN))
    for each in chain.from_iterable(map(_by_grammar, values)):
        if len(each) <= _LONGEST:
            yield each[1:-1] if each[0] == each[-1] == "'" else each


def _by_grammar(value: str) -> Iterator[str]:
    """Yield the addresses as RFC 5322 has them: words, "@", a domain, comments anywhere."""
    runs: list[str | None] = []  # None is "@"
    for word in (*_outside_comments(value), ","):
        if word == "@":
            runs.append(None)
        elif word not in "<>,:;":
            word = _unquoted(word)
            last = runs[-1] if runs else None
            if last and (last.endswith(".") or word.startswith(".")):
                runs[-1] = last[:_LONGEST] + word  # no address any more, if that cuts it
            else:
                runs.append(word)
        else:
            yield from _joined(runs)
            runs.clear()


def _joined(runs: list[str | None]) -> Iterator[str]:
    for local, at, domain in zip(runs, runs[1:], runs[2:], strict=False):
        if local and at is None and domain:
            yield addresses.written(f"{local}@{domain}")


def _outside_comments(value: str) -> Iterator[str]:
    depth = 0
    for part in _TOKEN.findall(value):
        if part == "(":
            depth += 1
        elif part == ")":
            depth = max(depth - 1, 0)
        elif depth == 0:
            yield part


def _unquoted(token: str) -> str:
    return _ESCAPE.sub(r"\1", token[1:].removesuffix('"')) if token[0] == '"' else token


def _anywhere(value: str) -> Iterator[str]:
    """Yield whatever looks like an address, in quotes and comments as well."""
    parts = value.split("@")
    for before, after in pairwise(parts):
        local, domain = _OTHER.split(before[-_LONGEST:])[-1], _OTHER.split(after[:_LONGEST])[0]
        if local and domain:
            yield f"{local}@{domain}"
            yield f"{local}@{domain}".strip("'")
