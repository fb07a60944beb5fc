"""Rules, a table of addresses and a list of accounts, as text, from what leads to a CRM.

Addresses that share target and copies share a rule. Many that share nothing go into a table.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from crm_milter import address as addresses
from crm_milter.migration.chains import Route, Tables
from crm_milter.migration.reading import AliasEntry, written

CONFIG, MAP, ACCOUNTS = "imported.yaml", "imported-addresses", "imported-accounts"
# Rules that only replace an address, before these become a table.
MAX_RULES = 8
_PLAIN = re.compile(
    r"[A-Za-z0-9][A-Za-z0-9._+=-]*@[A-Za-z0-9.-]+|(?!(?:true|false|null)\Z)[a-z][a-z0-9.-]{3,}",
    re.ASCII,
)
_NO_NAME = re.compile(r"[^a-z0-9._-]+", re.ASCII)

Groups = dict[tuple[str | None, tuple[str, ...]], list[Route]]


@dataclass(slots=True)
class Import:
    """The lines to write, and what to do with the old tables."""

    rules: list[str] = field(default_factory=list)
    mapped: list[str] = field(default_factory=list)
    accounts: list[str] = field(default_factory=list)
    drop: list[AliasEntry] = field(default_factory=list)
    add: list[str] = field(default_factory=list)  # what Postfix needs in their place

    def files(self, head: list[str]) -> Iterator[tuple[str, list[str]]]:
        """Yield name and lines of each file; the first is the configuration."""
        known = [f"known_recipients: {ACCOUNTS}"] if self.accounts else []
        yield CONFIG, [*head, *known, "rules:", *self.rules]
        if self.mapped:
            yield MAP, self.mapped
        if self.accounts:
            yield ACCOUNTS, self.accounts


def imported(tables: Tables, unrouted_to: str) -> Import:
    """Return what the addresses that lead to a CRM come to."""
    routes = tables.routes()
    routed = {each.key for each in routes}
    result = Import()
    entries = (*tables.by_key.values(), *tables.repeated)
    result.drop = [each for each in entries if each.key in routed and not each.is_alias_domain]
    result.add = [
        f"{written(each.key)}  {written(each.key)}"  # what keeps it from the entry of its domain
        for each in routes
        if not each.replace_with and not tables.by_key[each.key].is_listed
    ]
    names = _Names()
    _write_addresses([each for each in routes if not each.is_domain], names, result)
    for route in routes:
        if route.is_domain:
            others = _others(tables, route, routed, unrouted_to)
            _write_domain(route, others, names, result)
            twins = tables.twins(route.key)
            result.add += [f"{each}  {twins[each]}" for each in others if each in twins]
            if not others and not tables.by_key[route.key].is_alias_domain:
                result.add.append(f"{route.key}  {unrouted_to}")
    return result


def _write_addresses(routes: list[Route], names: "_Names", result: Import) -> None:
    groups: Groups = {}
    for each in routes:
        groups.setdefault((each.replace_with, each.copies), []).append(each)
    plain = [each for each in groups if each[0] and not each[1]]
    mapped = [groups.pop(each) for each in plain] if len(plain) > MAX_RULES else []
    for group in groups.values():
        result.rules += _rule(names.of(addresses.local_of(group[0].key)), group)
    if mapped:
        result.rules += [f"  - name: {names.of('imported')}", f"    address_map: {MAP}"]
        every = (each for group in mapped for each in group)
        result.mapped += [f"{written(each.key)}  {each.replace_with}" for each in every]


def _write_domain(route: Route, others: list[str], names: "_Names", result: Import) -> None:
    result.rules += _rule(names.of(f"catch-all-{route.key[1:]}"), [route])
    if others:
        result.rules.append("    apply_to: unknown")
        result.accounts += [written(each) for each in others]


def _others(tables: Tables, route: Route, routed: set[str], unrouted_to: str) -> list[str]:
    """Return the addresses that a rule for a domain must leave alone."""
    domain = route.key[1:]
    found = tables.others(domain, routed)
    mailbox = addresses.normalise(unrouted_to)
    if addresses.domain_of(mailbox) == domain and mailbox not in found:
        found.append(mailbox)
    return found


def _rule(name: str, group: list[Route]) -> Iterator[str]:
    first = group[0]
    yield f"  - name: {as_yaml(name)}"
    yield f"    match: {_several([written(each.key) for each in group])}"
    if first.replace_with:
        yield f"    replace_with: {as_yaml(first.replace_with)}"
    if first.copies:
        yield f"    also_deliver_to: {_several(list(first.copies))}"


def _several(items: list[str]) -> str:
    return as_yaml(items[0]) if len(items) == 1 else f"[{', '.join(map(as_yaml, items))}]"


def as_yaml(text: str) -> str:
    """Return an address or a name as the configuration has it, in quotes where it needs them."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


class _Names:
    """Names of rules, each once."""

    def __init__(self) -> None:
        self._given: set[str] = set()

    def of(self, wish: str) -> str:
        base = _NO_NAME.sub("-", wish.lower()).strip("-") or "imported"
        name, number = base, 1
        while name in self._given:
            number += 1
            name = f"{base}-{number}"
        self._given.add(name)
        return name
