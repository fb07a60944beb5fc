"""Loops: where mail would go next, and whether a rule takes it there once more.

A target that a rule reroutes is an error, whatever that rule's conditions are; one whose owner the
table of virtual aliases would take it from, a warning. Constant targets, those of tables among
them, are all looked up. Targets that are made from the recipient are tried with likely ones; the
daemon sees the others, and leaves the mail.
"""

from collections.abc import Iterable, Iterator

from crm_milter import address as addresses
from crm_milter.config.build import RuleEntry
from crm_milter.config.place import Place, Section
from crm_milter.config.problems import Severity
from crm_milter.rules.pattern import (
    AddressList,
    Everyone,
    Exact,
    Glob,
    Groups,
    InDomain,
    Pattern,
    Regex,
)
from crm_milter.rules.rule import Rule
from crm_milter.rules.table import RuleTable
from crm_milter.rules.template import Template

# Addresses of a domain that are tried on a rule for all of it, in the whole file: enough for
# what a person writes. Beyond it the daemon still sees the loop, and leaves the mail.
MAX_TRIED = 100_000


def check(entries: tuple[RuleEntry, ...], table: RuleTable, root: Section) -> None:
    """Note every target, copy and mailbox of these rules that a rule takes."""
    loops = _Loops(entries, table)
    for key in ("unrouted_to", "dead_letters"):
        loops.mailbox(key, root[key], root.place)
    for entry in entries:
        loops.targets(entry)
        loops.mapped(entry)
        loops.copies(entry)
        for key in ("unrouted_to", "dead_letters"):
            loops.mailbox(key, getattr(entry.rule, key), entry.place)


class _Loops:
    """Looks up where mail would go next."""

    def __init__(self, entries: tuple[RuleEntry, ...], table: RuleTable) -> None:
        self._table = table
        self._left = MAX_TRIED
        rules = (entry.rule for entry in entries)
        self._domains = None if table.live() else reroutable(rules)
        self._locals: dict[str, list[str]] = {}
        if any(_keeps_local(entry.rule.replace_with) for entry in entries):
            for address in {each for entry in entries for each in entry.rule.addresses()}:
                domain = addresses.domain_of(address)
                self._locals.setdefault(domain, []).append(addresses.local_of(address))

    def targets(self, entry: RuleEntry) -> None:
        """Note a target of ``replace_with`` that a rule matches."""
        template = entry.rule.replace_with
        if template is None:
            return
        for recipient, target in self._samples(entry.rule, template):
            taker = self._taker(target)
            if taker and not self._is_elsewhere(recipient, entry.rule):
                of = f' of "{recipient}"' if recipient and not template.is_constant else ""
                _complain(entry.place, "replace_with", f'the target "{target}"{of}', taker)
                return

    def mapped(self, entry: RuleEntry) -> None:
        """Note the first target of a table that a rule matches, and how many more there are."""
        table = entry.rule.address_map
        if table is None:
            return
        found = [
            (key, target, taker)
            for key, targets in table.targets.items()
            for target in targets
            if (taker := self._taker(target)) and not self._is_elsewhere(key, entry.rule)
        ]
        for severe in (True, False):
            those = [each for each in found if each[2].replaces is severe]
            if those:
                key, target, taker = those[0]
                more = f" (and {len(those) - 1} more)" if len(those) > 1 else ""
                what = f'the target "{target}" of "{key}"{more}'
                _complain(entry.place, "address_map", what, taker)

    def copies(self, entry: RuleEntry) -> None:
        """Note a copy's address that a rule matches."""
        for number, copy in enumerate(entry.rule.copies):
            taker = self._taker(copy.address)
            if taker:
                message = (
                    f'"{copy.address}" is matched by rule "{taker.name}": virtual aliases'
                    " may redirect the copy"
                )
                entry.place.warn(("also_deliver_to", number), message)

    def mailbox(self, key: str, address: str | None, place: Place) -> None:
        """Note a mailbox for unrouted mail or for bounces that would be routed itself."""
        taker = self._taker(address) if address else None
        if taker:
            message = (
                f'"{address}" is matched by rule "{taker.name}": mail that is not rerouted'
                " would not stay there"
            )
            if key == "dead_letters":
                message = (
                    f'"{address}" is matched by rule "{taker.name}": bounces would be rerouted'
                )
            place.complain((key,), message)

    def _taker(self, address: str) -> Rule | None:
        """Return the rule that takes an address from its owner.

        One that only sends copies or does nothing is harmless, unless it names the address and
        a mailbox: then the table of virtual aliases sends all its mail to that mailbox.
        """
        domain = addresses.ascii_domain(address.rpartition("@")[2])
        if self._domains is not None and domain not in self._domains:
            return None
        normal = addresses.normalise(address)
        for match in self._table.possible(normal):
            rule = match.rule
            if rule.replaces or (rule.unrouted_to and rule.names(match.address)):
                return rule
        return None

    def _is_elsewhere(self, recipient: str, rule: Rule) -> bool:
        """Tell whether a recipient, "" for an unknown one, never comes to a rule."""
        if not recipient or recipient.startswith("@"):
            return False
        return all(match.rule is not rule for match in self._table.possible(recipient))

    def _samples(self, rule: Rule, template: Template) -> Iterator[tuple[str, str]]:
        """Yield recipients in normal form, "" for an unknown one, with their targets."""
        if template.constant is not None:
            yield "", template.constant
            return
        for pattern in rule.match:
            for recipient, groups in self._recipients(pattern, template):
                target = template.fill(recipient, groups)
                if target:
                    yield recipient if not isinstance(pattern, Regex) else "", target

    def _recipients(self, pattern: Pattern, template: Template) -> Iterable[tuple[str, Groups]]:
        match pattern:
            case Exact():
                yield pattern.address, ()
            case AddressList():
                for address in sorted(pattern.addresses):
                    yield address, ()
            case InDomain():
                yield f"1@{pattern.domain}", ()
                for local in self._to_try(template):
                    yield f"{local}@{pattern.domain}", ()
            case Glob():
                stars = ("1",) * (len(pattern.pieces) - 1)
                yield f"{'1'.join(pattern.pieces)}@{pattern.domain}", stars
            case Regex() if template.domain is not None:
                yield "1@", ("1",) * int(pattern.compiled.groups)

    def _to_try(self, template: Template) -> list[str]:
        if template.local is not None or template.domain is None:
            return []
        known = self._locals.get(addresses.ascii_domain(template.domain), [])[: self._left]
        self._left -= len(known)
        return known


def _complain(place: Place, key: str, what: str, taker: Rule) -> None:
    severity = Severity.ERROR if taker.replaces else Severity.WARNING
    loop = " (a loop)" if taker.replaces else ""
    place.complain((key,), f'{what} is matched by rule "{taker.name}"{loop}', severity)


def _keeps_local(template: Template | None) -> bool:
    return template is not None and template.local is None and not template.is_constant


def reroutable(rules: Iterable[Rule]) -> frozenset[str] | None:
    """Return the domains of which some rule takes addresses; None where one may take any.

    A rule for everybody only sends copies, and so takes nothing from its owner. What a table has
    that is asked for each address is not among them.
    """
    domains: set[str] = set()
    for rule in rules:
        for pattern in rule.match:
            match pattern:
                case Exact(address):
                    domains.add(addresses.domain_of(address))
                case AddressList(_, listed):
                    domains.update(map(addresses.domain_of, listed))
                case InDomain(domain) | Glob(_, _, domain):
                    domains.add(domain)
                case Everyone():
                    pass
                case _:
                    return None
        if rule.address_map is not None:
            domains.update(map(addresses.domain_of, rule.address_map.targets))
    return frozenset(domains)
