"""The fence around the rules of an included file: the only domains that they may match.

What is inside is certain, whatever the mail; a pattern of which that cannot be said is outside.
"""

import re
from collections.abc import Iterable

from crm_milter import address as addresses
from crm_milter.rules import regexes
from crm_milter.rules.pattern import AddressList, Exact, Glob, InDomain, Pattern, Regex

# As the end of an expression: only then no other domain can match.
_DOMAIN = re.compile(r"@((?:[\w-]|\\[.-])+)\$?\Z")
_UNESCAPED = re.compile(r"@(?:[\w-]|\\?[.-])+\$?\Z")


def outside(pattern: Pattern, domains: frozenset[str]) -> str:
    """Return why a pattern may match an address outside of these domains, "" if it cannot."""
    match pattern:
        case Exact(address):
            return _not_among({addresses.domain_of(address)}, domains)
        case AddressList(_, listed):
            return _not_among(map(addresses.domain_of, listed), domains)
        case InDomain(domain) | Glob(_, _, domain):
            return _not_among({domain}, domains)
        case Regex(source):
            return _of_expression(source[1:-1], domains)
    return 'it matches every address; write "@DOMAIN"'


def keys_outside(keys: Iterable[str], domains: frozenset[str]) -> str:
    """Return why a table has an address outside of these domains, "" if it has none."""
    return _not_among(map(addresses.domain_of, keys), domains)


def _not_among(found: Iterable[str], domains: frozenset[str]) -> str:
    others = sorted(set(found) - domains)
    if not others:
        return ""
    others = [*others[:1], *([f"and {len(others) - 1} more"] if len(others) > 1 else [])]
    return f"not among them: {' '.join(others)}"


def _of_expression(expression: str, domains: frozenset[str]) -> str:
    if "\\Q" in expression:
        return 'an expression with "\\Q" is not supported here'
    if regexes.has_outer_bar(expression):
        return 'put its alternatives into a group: "(a|b)@DOMAIN"'
    found = _DOMAIN.search(expression)
    if found:
        return _not_among({addresses.ascii_domain(found[1].replace("\\", ""))}, domains)
    if _UNESCAPED.search(expression):
        return 'a "." in its domain stands for any character; write "\\."'
    return 'it has to end in "@" and one of them, as "@acme\\.example"'
