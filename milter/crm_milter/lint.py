"""What is wrong between rules: loops, rules that never apply, names and addresses given twice.

Each check looks every pattern up once in the table that the daemon uses, so that it is right
about order, extensions and protected addresses, and takes time in proportion to the file.
"""

from collections.abc import Iterable, Iterator

from crm_milter import address as addresses
from crm_milter.build import Entry, named
from crm_milter.pattern import Everyone, Exact, Glob, Groups, InDomain, Pattern, Regex, Template
from crm_milter.problem import Severity
from crm_milter.rules import Rule
from crm_milter.schema import Place
from crm_milter.table import RuleTable

# Addresses of a domain that are tried on a rule for all of it, in the whole file: enough for
# what a person writes. Beyond it the daemon still sees the loop, and leaves the mail.
MOST_TRIED = 100_000


def check(
    entries: tuple[Entry, ...], table: RuleTable, unrouted_to: str | None, root: Place
) -> None:
    """Note what is wrong between these rules and in the global ``unrouted_to``."""
    _names(entries)
    _repetitions(entries)
    _unreachable(entries, table)
    lint = _Loops(entries, table)
    lint.unrouted(unrouted_to, root)
    for entry in entries:
        lint.targets(entry)
        lint.copies(entry)
        lint.unrouted(entry.rule.unrouted_to, entry.place)


def _names(entries: tuple[Entry, ...]) -> None:
    first: dict[str, Entry] = {}
    for entry in entries:
        name = entry.rule.name
        if name and first.setdefault(name, entry) is not entry:
            line = first[name].place.line("name")
            entry.place.complain(("name",), f'duplicate name "{name}" (first on line {line})')


def _repetitions(entries: tuple[Entry, ...]) -> None:
    for entry in entries:
        if "match" in entry.bad or len(entry.rule.match) < 2:
            continue
        seen: set[object] = set()
        for number, pattern in enumerate(entry.rule.match):
            if _key(pattern) in seen:
                entry.place.warn(("match", number), f"{named(pattern)} is there twice")
            seen.add(_key(pattern))


def _key(pattern: Pattern) -> object:
    """Return what is equal for patterns that take the same addresses."""
    match pattern:
        case Glob():
            return pattern.pieces, pattern.domain
        case Regex():
            return pattern.source
    return pattern


def _unreachable(entries: tuple[Entry, ...], table: RuleTable) -> None:
    wildcards: dict[object, Rule] = {}
    for entry in entries:
        rule = entry.rule
        takers = [_taker(pattern, rule, table, wildcards) for pattern in rule.match]
        for pattern in rule.match:
            if not isinstance(pattern, Exact):
                wildcards.setdefault(_key(pattern), rule)
        if "match" in entry.bad or not any(takers):
            continue
        if all(takers):
            names = ", ".join(f'"{name}"' for name in dict.fromkeys(map(_name, takers)))
            entry.place.complain((), f"can never apply: all its addresses go to {names} before it")
            continue
        for number, (pattern, taker) in enumerate(zip(rule.match, takers, strict=True)):
            if taker:
                message = f'{named(pattern)} never comes here, it goes to "{taker.name}" before'
                entry.place.warn(("match", number), message)


def _name(rule: Rule | None) -> str:
    return rule.name if rule else ""


def _taker(
    pattern: Pattern, rule: Rule, table: RuleTable, wildcards: dict[object, Rule]
) -> Rule | None:
    """Return the earlier rule that takes all that a pattern could, or None."""
    wider: tuple[object, ...]
    match pattern:
        case Exact():
            found = table.match(pattern.address)
            return found.rule if found and found.rule is not rule else None
        case Glob():
            wider = (_key(pattern), InDomain(pattern.domain), Everyone())
        case _:
            wider = (_key(pattern), Everyone())
    return next((wildcards[each] for each in wider if each in wildcards), None)


class _Loops:
    """Looks up where mail would go next: a target, a copy's address, an ``unrouted_to``."""

    def __init__(self, entries: tuple[Entry, ...], table: RuleTable) -> None:
        self._table = table
        self._left = MOST_TRIED
        self._locals: dict[str, list[str]] = {}
        self._exact: set[str] = set()
        for entry in entries:
            for pattern in entry.rule.match:
                if isinstance(pattern, Exact):
                    self._exact.add(pattern.address)
        if any(_keeps_local(entry.rule.replace_with) for entry in entries):
            for address in self._exact:
                domain = addresses.domain_of(address)
                self._locals.setdefault(domain, []).append(addresses.local_of(address))

    def targets(self, entry: Entry) -> None:
        """Note a target that a rule matches."""
        template = entry.rule.replace_with
        if template is None or entry.bad & {"match", "replace_with"}:
            return
        for recipient, target in self._samples(entry.rule, template):
            taker = self._taker(target)
            if taker and not self._is_elsewhere(recipient, entry.rule):
                of = f' of "{recipient}"' if recipient and not template.is_constant else ""
                severity = Severity.ERROR if taker.replace_with else Severity.WARNING
                loop = " (a loop)" if taker.replace_with else ""
                message = f'the target "{target}"{of} is matched by rule "{taker.name}"{loop}'
                entry.place.complain(("replace_with",), message, severity)
                return

    def copies(self, entry: Entry) -> None:
        """Note a copy's address that a rule matches."""
        if "also_deliver_to" in entry.bad:
            return
        for number, copy in enumerate(entry.rule.copies):
            taker = self._taker(copy.address)
            if taker:
                message = (
                    f'"{copy.address}" is matched by rule "{taker.name}":'
                    " virtual aliases may send the copy elsewhere"
                )
                entry.place.warn(("also_deliver_to", number), message)

    def unrouted(self, address: str | None, place: Place) -> None:
        """Note a mailbox for unrouted mail that would be routed itself."""
        taker = self._taker(address) if address else None
        if taker:
            message = f'"{address}" is matched by rule "{taker.name}": what is left has to stay'
            place.complain(("unrouted_to",), message)

    def _taker(self, address: str) -> Rule | None:
        """Return the rule that takes an address from its owner.

        One that only sends copies or does nothing is harmless, unless it names the address:
        then the map of virtual aliases may name it, too.
        """
        normal = addresses.normalise(address)
        found = self._table.match(normal)
        if found is None:
            return None
        rule = found.rule
        named = bool(rule.copies) and found.address in self._exact
        return rule if rule.replace_with or named else None

    def _is_elsewhere(self, recipient: str, rule: Rule) -> bool:
        found = self._table.match(recipient) if recipient else None
        return found is not None and found.rule is not rule

    def _samples(self, rule: Rule, template: Template) -> Iterator[tuple[str, str]]:
        """Yield recipients in normal form, "" for an unknown one, with their targets."""
        if template.is_constant:
            target = template.fill("", ())
            if target:
                yield "", target
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


def _keeps_local(template: Template | None) -> bool:
    return template is not None and template.local is None
