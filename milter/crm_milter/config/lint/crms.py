"""What the CRM at the other end would refuse or misunderstand: warnings, by the target's domain.

Nothing is said twice of one CRM that concerns all its rules, and nothing that a rule already
provides for.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from crm_milter import address as addresses
from crm_milter.config.build import RuleEntry
from crm_milter.config.crms import Crm, crm_of
from crm_milter.rules.flood import Flood, Limit, Per
from crm_milter.rules.pattern import AddressList, Exact
from crm_milter.rules.rule import Rule


def check(entries: tuple[RuleEntry, ...]) -> None:
    """Note what is known to go wrong at the CRMs of these rules."""
    traps = _CrmLint()
    for entry in entries:
        traps.entry(entry)


def limited(entries: tuple[RuleEntry, ...]) -> tuple[RuleEntry, ...]:
    """Return the rules with the limit that ``flood: auto`` means; note where nothing is known."""
    return tuple([_limited(each) if _is_auto(each.rule.flood) else each for each in entries])


def _is_auto(flood: Flood | None) -> bool:
    return flood is not None and flood.limit is None


def _limited(entry: RuleEntry) -> RuleEntry:
    flood = entry.rule.flood
    if flood is None:
        return entry
    crms = {crm_of(target.rpartition("@")[2]) for target, _ in targets(entry.rule)}
    known = [each.rate for each in crms if each is not None and each.rate is not None]
    if not known:
        names = sorted(each.name for each in crms if each is not None)
        whose = f"no limit of {names[0]} is known" if names else "no CRM is known by the target"
        entry.place.complain(("flood",), f'{whose}; write "flood: {{limit: 10 in 60s}}"')
        return entry
    limit = _strictest([each.limit for each in known])
    by_subject = all(each.per is Per.SUBJECT for each in known)
    per = flood.per or (Per.SUBJECT if by_subject else Per.SENDER)
    return replace(entry, rule=replace(entry.rule, flood=replace(flood, limit=limit, per=per)))


def _strictest(limits: list[Limit]) -> Limit:
    """Return the limit that keeps all of these: the fewest at once, then as the slowest."""
    count, slowest = min(each.count for each in limits), max(limits, key=lambda each: each.interval)
    return slowest if slowest.count == count else Limit(count, count * slowest.interval)


@dataclass(slots=True)
class _CrmLint:
    """What was found and reported so far."""

    by_domain: dict[str, Crm | None] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)  # of which CRMs
    origins: dict[str, str] = field(default_factory=dict)  # by target; "" where there are several

    def entry(self, entry: RuleEntry) -> None:
        """Note the traps of one rule."""
        crms: dict[str, Crm] = {}
        odd: dict[str, Crm] = {}
        for target, origins in targets(entry.rule):
            domain = target.rpartition("@")[2]
            crm = self._crm(domain)
            if crm is None:
                continue
            crms[crm.name] = crm
            if not crm.domain.fullmatch(addresses.ascii_domain(domain)):
                odd.setdefault(target, crm)
            for origin in origins if crm.many_cases else ():
                self._shared(entry, origin, target, crm)
        self._shapes(entry, odd)
        for crm in crms.values():
            self._size(entry, crm)
            self._drops(entry, crm)

    def _crm(self, domain: str) -> Crm | None:
        if domain not in self.by_domain:
            self.by_domain[domain] = crm_of(domain)
        return self.by_domain[domain]

    def _shapes(self, entry: RuleEntry, odd: dict[str, Crm]) -> None:
        for target, crm in list(odd.items())[:1]:
            more = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
            message = (
                f'"{target}"{more} does not look like an address of {crm.name}, such as'
                f' "{crm.example}"'
            )
            entry.place.warn((_key(entry.rule),), message)

    def _shared(self, entry: RuleEntry, origin: str, target: str, crm: Crm) -> None:
        known = self.origins.setdefault(addresses.normalise(target), origin)
        if known and (known != origin or origin.startswith("@")):
            self.origins[addresses.normalise(target)] = ""
            message = (
                f'several addresses are rerouted to "{target}": a message to two of them'
                f" opens two cases in {crm.name}"
            )
            entry.place.warn((_key(entry.rule),), message)

    def _size(self, entry: RuleEntry, crm: Crm) -> None:
        """Note a limit that lets too much pass, or none if the mail would be lost."""
        rule, largest = entry.rule, crm.largest
        if largest is None:
            return
        limit = f"{largest >> 20}M"
        if rule.max_size is not None and rule.max_size > largest:
            message = f"{crm.name} rejects mail over {limit}"
            entry.place.warn(("max_size",), message)
        elif rule.max_size is None and not rule.copies and f"{crm.name} size" not in self.told:
            self.told.add(f"{crm.name} size")
            message = (
                f"{crm.name} rejects mail over {limit}, and the sender may not be told;"
                f' with "max_size: {limit}" such mail goes to unrouted_to'
            )
            entry.place.warn((_key(rule),), message)

    def _drops(self, entry: RuleEntry, crm: Crm) -> None:
        if crm.drops and not entry.rule.copies and crm.name not in self.told:
            self.told.add(crm.name)
            message = (
                f'{crm.name} silently drops {crm.drops}; use "also_deliver_to" to keep a'
                " copy in a mailbox of your own"
            )
            entry.place.warn((_key(entry.rule),), message)


def _key(rule: Rule) -> str:
    return "replace_with" if rule.replace_with is not None else "address_map"


def targets(rule: Rule) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield the targets that are known without a message, each with what leads to it."""
    if rule.address_map is not None:
        for key, targets in rule.address_map.targets.items():
            for target in targets:
                yield target, (key,)
    template = rule.replace_with
    if template is None:
        return
    if template.constant is not None:
        yield template.constant, _origins(rule)
    elif template.domain is not None and "\\" not in template.domain:
        yield f"{template.local or '1'}@{template.domain}", ()


def _origins(rule: Rule) -> Iterator[str]:
    """Yield the addresses of a rule; one without a local part stands for several."""
    for pattern in rule.match:
        match pattern:
            case Exact(address):
                yield address
            case AddressList(_, listed):
                yield from sorted(listed)
            case _:
                yield "@"
