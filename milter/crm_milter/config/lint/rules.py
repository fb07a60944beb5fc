"""What is wrong between rules, and between a rule and the settings for all of them.

Each check looks every address up in the table that the daemon uses, so that it is right about
order, extensions and protected addresses, and takes time in proportion to the files. Only rules
without conditions hide others; a condition that fails today may hold tomorrow. For the others
a rule in test mode is not there.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from crm_milter import address as addresses
from crm_milter.config.build import RuleEntry
from crm_milter.config.lint import conditions, crms, groups, headers, letters, loops, mailboxes
from crm_milter.config.place import Section
from crm_milter.config.problems import Path
from crm_milter.rules.pattern import (
    AddressList,
    Everyone,
    Exact,
    Glob,
    InDomain,
    Pattern,
    Regex,
)
from crm_milter.rules.rule import AddressMap, Mode, Rule
from crm_milter.rules.strangers import domains_of, is_public
from crm_milter.rules.table import RuleTable


def check(entries: tuple[RuleEntry, ...], table: RuleTable, root: Section, now: float) -> None:
    """Note what is wrong between these rules and the settings at the top of the file."""
    _names(entries)
    conditions.check_accounts(entries, table, root)
    _extensions(entries, root)
    headers.check(entries, root)
    for entry in entries:
        _repetitions(entry)
    enforced = table.enforced()
    _unreachable(entries, enforced)
    loops.check(entries, enforced, root)
    mailboxes.check(entries, root)
    for entry in entries:
        _public_domains(entry)
    conditions.check(entries, enforced, root, now)
    groups.check(entries)
    crms.check(entries)
    letters.check(entries, root)


def _names(entries: tuple[RuleEntry, ...]) -> None:
    first: dict[str, RuleEntry] = {}
    for entry in entries:
        name = entry.rule.name
        if first.setdefault(name, entry) is not entry:
            before = first[name].place
            line = f"line {before.line('name')}"
            if before.problems is not entry.place.problems:
                line = f"{line} of {before.problems.file}"
            entry.place.complain(("name",), f'duplicate name "{name}" (first on {line})')


def _extensions(entries: tuple[RuleEntry, ...], root: Section) -> None:
    if root["recipient_delimiter"]:
        return
    for entry in entries:
        if entry.rule.propagate_extension:
            message = 'requires "recipient_delimiter"'
            entry.place.complain(("propagate_extension",), message)


def _public_domains(entry: RuleEntry) -> None:
    """Note addresses of providers where everybody may have one: that mail is not this host's."""
    patterns = enumerate(entry.rule.match)
    parts: list[tuple[Path, str, set[str]]] = [
        (("match", number), f'"{each}"', domains_of(each)) for number, each in patterns
    ]
    table = entry.rule.address_map
    if table is not None:
        listed = {addresses.domain_of(key) for key in table.targets}
        parts.append((("address_map",), f'"{table.source}"', listed))
    for where, name, domains in parts:
        for domain in sorted(filter(is_public, domains)):
            message = (
                f'{name} matches mail for "{domain}", a public mail provider: mail that your users'
                " send there would go to the CRM"
            )
            entry.place.warn(where, message)


def _repetitions(entry: RuleEntry) -> None:
    seen: set[object] = set()
    for number, pattern in enumerate(entry.rule.match):
        if _key(pattern) in seen:
            entry.place.warn(("match", number), f'"{pattern}" is listed twice')
        seen.add(_key(pattern))


def _key(pattern: Pattern) -> object:
    """Return what is equal for patterns that take the same addresses."""
    match pattern:
        case Glob():
            return pattern.pieces, pattern.domain
        case Regex() | AddressList():
            return pattern.source
    return pattern


@dataclass(slots=True)
class _Part:
    """One pattern or table of a rule: how many of its addresses go to which rules before."""

    where: Path
    name: str
    size: int = 0
    hidden: int = 0
    example: str = ""
    takers: dict[str, None] | None = None

    def add(self, text: str, taker: Rule | None) -> None:
        self.size += 1
        if taker is not None:
            self.hidden += 1
            self.example = self.example or text
            self.takers = self.takers or {}
            self.takers.setdefault(taker.name)

    @property
    def all_hidden(self) -> bool:
        return 0 < self.size == self.hidden

    @property
    def message(self) -> str:
        names = _quoted(self.takers or ())
        if self.all_hidden:
            return f"{self.name} never reaches this rule: matched first by {names}"
        if self.hidden == 1:
            return (
                f'"{self.example}" in {self.name} never reaches this rule: matched first by {names}'
            )
        return (
            f"{self.hidden} addresses in {self.name} never reach this rule"
            f' (for example "{self.example}"): matched first by {names}'
        )


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


def _unreachable(entries: tuple[RuleEntry, ...], table: RuleTable) -> None:
    wildcards: dict[object, Rule] = {}
    entries = tuple(each for each in entries if each.rule.mode is not Mode.TEST)
    for number, entry in enumerate(entries):
        rule = entry.rule
        parts = list(_parts(rule, table, wildcards)) if number and _is_doubtful(rule, table) else ()
        if not rule.is_conditional:
            for pattern in rule.match:
                if not isinstance(pattern, Exact | AddressList):
                    wildcards.setdefault(_key(pattern), rule)
        if parts and all(part.all_hidden for part in parts):
            names = _quoted(dict.fromkeys(name for part in parts for name in part.takers or ()))
            entry.place.complain(
                (), f"can never apply: all its addresses are matched first by {names}"
            )
            continue
        for part in parts:
            if part.hidden:
                entry.place.warn(part.where, part.message)


def _is_doubtful(rule: Rule, table: RuleTable) -> bool:
    """Tell whether a rule is other than most: a few addresses that all come to it."""
    return rule.address_map is not None or any(
        not isinstance(pattern, Exact) or _taker(pattern.address, rule, table)
        for pattern in rule.match
    )


def _parts(rule: Rule, table: RuleTable, wildcards: dict[object, Rule]) -> Iterator[_Part]:
    for number, pattern in enumerate(rule.match):
        part = _Part(("match", number), f'"{pattern}"')
        if isinstance(pattern, AddressList):
            for address in sorted(pattern.addresses):
                part.add(address, _taker(address, rule, table))
        elif isinstance(pattern, Exact):
            part.add(pattern.address, _taker(pattern.address, rule, table))
        else:
            part.add(f'"{pattern}"', _wider(pattern, wildcards))
        yield part
    if rule.address_map is not None:
        part = _Part(("address_map",), f'"{rule.address_map.source}"')
        _add_keys(part, rule.address_map, rule, table, wildcards)
        yield part


def _add_keys(
    part: _Part,
    address_map: AddressMap,
    rule: Rule,
    table: RuleTable,
    wildcards: dict[object, Rule],
) -> None:
    for key in address_map.targets:
        if key.startswith("@"):
            part.add(key, _wider(InDomain(key[1:]), wildcards))
        else:
            part.add(key, _taker(key, rule, table))


def _taker(address: str, rule: Rule, table: RuleTable) -> Rule | None:
    """Return the rule without conditions that takes an address before this one, or None."""
    for match in table.possible(address):
        if match.rule is rule:
            return None
        if not match.rule.is_conditional:
            return match.rule
    return None


def _wider(pattern: Pattern, wildcards: dict[object, Rule]) -> Rule | None:
    """Return the rule before that takes all that a pattern could, or None."""
    wider: tuple[object, ...] = (_key(pattern), Everyone())
    if isinstance(pattern, Glob):
        wider = (_key(pattern), InDomain(pattern.domain), Everyone())
    return next((wildcards[each] for each in wider if each in wildcards), None)
