"""The patterns that take more than one address, all tried at once.

Domains are looked up. Globs and regular expressions go into one automaton of RE2, which names
those that take an address in a single pass; without RE2 the globs of the address's domain are
tried one by one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from types import ModuleType

from crm_milter import address as addresses
from crm_milter.rules import regexes
from crm_milter.rules.pattern import Everyone, Glob, Groups, InDomain, Pattern, Regex

Numbered = Sequence[tuple[int, Glob | Regex]]

# Below this an automaton costs more than it saves.
_WORTH_AN_AUTOMATON = 4
# Bytes. RE2 would miss matches if its automaton had no room for the states of one address.
_AUTOMATON_MEMORY = 256 << 20


class Wildcards:
    """Numbered patterns; several may have one number."""

    def __init__(self, numbered: Iterable[tuple[int, Pattern]]) -> None:
        self._everyone: list[int] = []
        self._domains: dict[str, list[int]] = {}
        self._globs: dict[str, list[tuple[int, Glob | Regex]]] = {}
        self._regexes: list[tuple[int, Glob | Regex]] = []
        for number, pattern in numbered:
            match pattern:
                case Everyone():
                    self._everyone.append(number)
                case InDomain(domain):
                    self._domains.setdefault(domain, []).append(number)
                case Glob():
                    self._globs.setdefault(pattern.domain, []).append((number, pattern))
                case Regex():
                    self._regexes.append((number, pattern))
        self._automata = {domain: _prepared(globs) for domain, globs in self._globs.items()}
        self._all_regexes = _prepared(self._regexes)

    def matches(self, address: str, typed: str = "") -> Iterator[tuple[int, Groups]]:
        """Yield the numbers of the patterns that take an address, in no particular order.

        ``address`` is in normal form, ``typed`` as the client spelt it.
        """
        for number in self._everyone:
            yield number, ()
        if not (self._domains or self._globs or self._regexes):
            return
        domain = addresses.domain_of(address)
        for number in self._domains.get(domain, ()):
            yield number, ()
        globs = self._automata.get(domain, ())
        if self._regexes or isinstance(globs, _Automaton):
            yield from regexes.ask(_matching, address, typed, globs, self._all_regexes)
        else:
            yield from _matching(address, typed, globs)


def _matching(
    address: str, typed: str, *sources: _Automaton | Numbered
) -> list[tuple[int, Groups]]:
    """Return the numbers and groups of the expressions that match an address."""
    forms = [address] if typed.isascii() else [address, addresses.composed(typed)]
    return [
        (number, groups)
        for source in sources
        for number, pattern in (source.near(forms) if isinstance(source, _Automaton) else source)
        if (groups := pattern.groups(address, typed)) is not None
    ]


class _Automaton:
    """Many patterns as one: names those that may take an address in a single pass."""

    def __init__(self, re2: ModuleType, numbered: Numbered) -> None:
        self._numbered = numbered
        self._set = re2.Set.FullMatchSet(regexes.options(re2, max_mem=_AUTOMATON_MEMORY))
        for _, pattern in numbered:
            self._set.Add(_expression(pattern))
        self._set.Compile()

    def near(self, forms: list[str]) -> Numbered:
        """Return the patterns that may take an address in one of its forms."""
        found = [self._set.Match(addresses.readable(form)) or () for form in forms]
        return [self._numbered[index] for index in {index for each in found for index in each}]


def _prepared(numbered: list[tuple[int, Glob | Regex]]) -> _Automaton | Numbered:
    """Return an automaton for many patterns, if RE2 is there; few are tried one by one."""
    re2 = regexes.module() if len(numbered) >= _WORTH_AN_AUTOMATON else None
    return _Automaton(re2, numbered) if re2 else numbered


def _expression(pattern: Glob | Regex) -> str:
    if isinstance(pattern, Regex):
        return pattern.source[1:-1]
    local = "(?s:.*)".join(re.escape(piece) for piece in pattern.pieces)
    return f"{local}@{re.escape(pattern.domain)}"
