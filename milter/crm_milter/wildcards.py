"""The patterns that take more than one address, all tried at once.

Domains are looked up. Globs and regular expressions go into one automaton of RE2, which names
those that take an address in a single pass; without RE2 the globs of the address's domain are
tried one by one.
"""

import re
from collections.abc import Iterable, Iterator

from crm_milter import address as addresses
from crm_milter.pattern import Everyone, Glob, Groups, InDomain, Pattern, Regex

try:
    import re2
except ImportError:
    re2 = None

# Below this an automaton costs more than it saves.
_WORTH_AN_AUTOMATON = 4
# Bytes. RE2 would miss matches if its automaton had no room for the states of one address.
_AUTOMATON_MEMORY = 256 << 20


class Wildcards:
    """Numbered patterns; several may have one number, that of their rule."""

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
        self._automata = {
            domain: _Automaton(globs) if _is_many(globs) else globs
            for domain, globs in self._globs.items()
        }
        self._all_regexes = _Automaton(self._regexes) if _is_many(self._regexes) else self._regexes

    def takers(self, address: str) -> Iterator[tuple[int, Groups]]:
        """Yield the numbers of the patterns that take an address, in no particular order."""
        for number in self._everyone:
            yield number, ()
        if not (self._domains or self._globs or self._regexes):
            return
        domain = addresses.domain_of(address)
        for number in self._domains.get(domain, ()):
            yield number, ()
        for candidates in (self._automata.get(domain, ()), self._all_regexes):
            if isinstance(candidates, _Automaton):
                candidates = candidates.near(address)
            for number, pattern in candidates:
                groups = pattern.groups(address)
                if groups is not None:
                    yield number, groups


def _is_many(numbered: list[tuple[int, Glob | Regex]]) -> bool:
    return re2 is not None and len(numbered) >= _WORTH_AN_AUTOMATON


class _Automaton:
    """Many patterns as one: names those that may take an address in a single pass."""

    def __init__(self, numbered: list[tuple[int, Glob | Regex]]) -> None:
        options = re2.Options()
        options.case_sensitive = False
        options.log_errors = False
        options.max_mem = _AUTOMATON_MEMORY
        self._numbered = numbered
        self._set = re2.Set.FullMatchSet(options)
        for _, pattern in numbered:
            self._set.Add(_expression(pattern))
        self._set.Compile()

    def near(self, address: str) -> list[tuple[int, Glob | Regex]]:
        return [self._numbered[index] for index in self._set.Match(address) or ()]


def _expression(pattern: Glob | Regex) -> str:
    if isinstance(pattern, Regex):
        return pattern.source[1:-1]
    local = "(?s:.*)".join(re.escape(piece) for piece in pattern.pieces)
    return f"{local}@{re.escape(pattern.domain)}"
