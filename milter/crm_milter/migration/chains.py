"""Which addresses of the old tables lead to a CRM, if by way of others, as virtual(5) expands them.

The first entry of a key counts; an address that has none is that of its ``@domain``; the
expansion ends at what has no entry, at an address that leads to itself, and at the CRM.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from crm_milter import address as addresses
from crm_milter.migration.reading import AliasEntry

IsCrm = Callable[[str], bool]

# Entries on the way of one address, and one behind the other; Postfix gives up at a thousand.
_MAX_ENTRIES, _DEEPEST = 1000, 200


class _TangledError(Exception):
    """An address leads by way of too many entries, or in too many circles."""


@dataclass(frozen=True, slots=True)
class Route:
    """An address or ``@domain`` that leads to a CRM: what replaces it, and who else gets a copy.

    Without ``replace_with`` the address itself is among those who get the mail.
    """

    key: str
    replace_with: str | None
    copies: tuple[str, ...]

    @property
    def is_domain(self) -> bool:
        return self.key.startswith("@")


class Tables:
    """The entries of all tables, in the order in which Postfix asks them."""

    def __init__(self, entries: Iterable[AliasEntry], is_crm: IsCrm) -> None:
        self._is_crm = is_crm
        self.by_key: dict[str, AliasEntry] = {}
        self.repeated: list[AliasEntry] = []
        self.tangled: dict[str, AliasEntry] = {}  # what leads to a CRM by way of too many entries
        self._left = 0
        for entry in entries:
            if self.by_key.setdefault(entry.key, entry) is not entry:
                self.repeated.append(entry)

    def routes(self) -> list[Route]:
        """Return the addresses that lead to a CRM; those of an alias domain come last."""
        keys = [*self.by_key, *self._of_alias_domains()]
        return [route for route in map(self._route, keys) if route]

    def _of_alias_domains(self) -> list[str]:
        """Return the addresses that only an entry such as ``@a.example @b.example`` makes."""
        return [each for entry in self.by_key.values() for each in self.twins(entry.key)]

    def twins(self, key: str) -> dict[str, str]:
        """Return the addresses that an alias domain makes, each with the one it stands for."""
        domains = {each[1:] for each in self.by_key[key].targets if each.startswith("@")}
        if not domains:
            return {}
        named = [each for each in self.by_key if _domain(each) in domains and each[0] != "@"]
        made = {f"{addresses.local_of(each)}{key}": each for each in named}
        return {twin: each for twin, each in made.items() if twin not in self.by_key}

    def _route(self, key: str) -> Route | None:
        if not self._reaches_crm(key):
            return None
        self._left = _MAX_ENTRIES
        try:
            found, leads = self._expanded(key, ())
        except _TangledError:
            entry = self._entry(key)
            if entry:
                self.tangled[entry.key] = entry
            return None
        targets = {addresses.normalise(each): each for each in found}
        if not leads or any(each.startswith("@") and each != key for each in targets):
            return None
        keeps = targets.pop(key, None) is not None
        ordered = [*filter(self._is_crm, targets.values())] or list(targets.values())
        replacement = None if keeps else ordered[0]
        return Route(
            key, replacement, tuple(each for each in targets.values() if each != replacement)
        )

    def _reaches_crm(self, address: str) -> bool:
        """Tell whether an address may lead to a CRM, however many entries there are between."""
        seen, waiting = set(), [address]
        while waiting:
            target = waiting.pop()
            key = addresses.normalise(target)
            if self._is_crm(target):
                return True
            entry = self._entry(key)
            if entry is not None and key not in seen:
                if entry.is_listed:
                    return True
                seen.add(key)
                waiting += self._targets(entry, key)
        return False

    def _expanded(self, address: str, above: tuple[str, ...]) -> tuple[list[str], bool]:
        """Return where an address leads, and whether that is a CRM, among others."""
        key = addresses.normalise(address)
        entry = self._entry(key)
        if entry is None or key in above or self._is_crm(address):
            return [address], self._is_crm(address)
        self._left -= 1
        if self._left < 0 or len(above) >= _DEEPEST:
            raise _TangledError
        found: list[str] = []
        leads = entry.is_listed
        for target in self._targets(entry, key):
            if addresses.normalise(target) == key:
                found.append(target)
                continue
            further, hits = self._expanded(target, (*above, key))
            found += further if hits else [target]
            leads = leads or hits
        return found, leads

    def _entry(self, key: str) -> AliasEntry | None:
        return self.by_key.get(key) or self.by_key.get(f"@{_domain(key)}")

    def _targets(self, entry: AliasEntry, key: str) -> Iterable[str]:
        for target in entry.targets:
            is_domain = target.startswith("@") and not key.startswith("@")
            yield f"{addresses.local_of(key)}{target}" if is_domain else target

    def others(self, domain: str, routed: set[str]) -> list[str]:
        """Return the addresses of a domain that have an entry of their own and lead to no CRM."""
        keys = [each for each in self.by_key if _domain(each) == domain and each[0] != "@"]
        keys += self.twins(f"@{domain}")
        return [each for each in keys if each not in routed]


def _domain(key: str) -> str:
    return addresses.domain_of(key)
