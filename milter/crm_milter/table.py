"""The table of rules, and the look-up of the one that applies to a recipient.

The first rule, in the order of the file, that takes the address and whose conditions hold
applies. Addresses and domains are looked up in dictionaries and all patterns in one automaton,
so the number of rules hardly matters. Wildcards spare the addresses of the mail system itself.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from crm_milter import address as addresses
from crm_milter.pattern import (
    AddressList,
    Everyone,
    Exact,
    Glob,
    InDomain,
    Pattern,
    Regex,
)
from crm_milter.rules import AddressMap, ApplyTo, Match, Rule
from crm_milter.wildcards import Wildcards

Numbers = int | tuple[int, ...]  # of rules; almost always one, and there may be very many


class SenderSet:
    """Envelope senders: answers whether one is among them."""

    def __init__(self, patterns: Iterable[Pattern]) -> None:
        exact: set[str] = set()
        lists: list[frozenset[str]] = []  # not copied: many rules may share a long one
        wild: list[tuple[int, Pattern]] = []
        for pattern in patterns:
            match pattern:
                case Exact(address):
                    exact.add(address)
                case AddressList(_, listed):
                    lists.append(listed)
                case Everyone() | InDomain() | Glob() | Regex():
                    wild.append((0, pattern))
                case _:  # the null sender
                    exact.add("")
        self._exact = (exact, *lists)
        self._wild = Wildcards(wild)

    def __contains__(self, sender: str) -> bool:
        """Tell whether a sender in normal form is meant; ``*`` means the null sender as well."""
        return any(sender in each for each in self._exact) or any(self._wild.takers(sender))


@dataclass(frozen=True, slots=True)
class _Conditions:
    senders: SenderSet | None
    except_senders: SenderSet | None
    apply_to: ApplyTo

    def failing(self, sender: str | None, known: bool) -> str:
        """Return the key of the first condition that does not hold, "" if all do.

        Without a sender those that depend on it hold.
        """
        if sender is not None:
            if self.senders is not None and sender not in self.senders:
                return "senders"
            if self.except_senders is not None and sender in self.except_senders:
                return "except_senders"
        wanted = {ApplyTo.KNOWN: True, ApplyTo.UNKNOWN: False}.get(self.apply_to, known)
        return "" if known is wanted else "apply_to"


@dataclass(frozen=True, slots=True)
class Considered:
    """A rule that takes an address: the match, and the condition that fails ("" if none)."""

    match: Match
    failing: str


class RuleTable:
    """The rules in order, with the look-up of the one that applies."""

    def __init__(
        self,
        rules: tuple[Rule, ...] = (),
        recipient_delimiter: str = "",
        known: frozenset[str] = frozenset(),
    ) -> None:
        self.rules = rules
        self.known = known
        self.recipient_delimiter = recipient_delimiter
        self._exact: dict[str, Numbers] = {}
        self._maps: list[tuple[int, AddressMap]] = []
        self._conditions: dict[int, _Conditions] = {}
        wild: list[tuple[int, Pattern]] = []
        for number, rule in enumerate(rules):
            self._index(number, rule, wild)
        self._wild = Wildcards(wild)
        self._has_wildcards = bool(wild)
        self._is_plain = not (wild or self._maps or recipient_delimiter)
        self.depends_on_sender = any(rule.depends_on_sender for rule in rules)

    def _index(self, number: int, rule: Rule, wild: list[tuple[int, Pattern]]) -> None:
        for pattern in rule.match:
            match pattern:
                case Exact(address):
                    self._add_exact(address, number)
                case AddressList(_, listed):
                    for address in listed:
                        self._add_exact(address, number)
                case _:
                    wild.append((number, pattern))
        if rule.address_map is not None:
            self._maps.append((number, rule.address_map))
        if rule.is_conditional:
            self._conditions[number] = _Conditions(
                SenderSet(rule.senders) if rule.senders else None,
                SenderSet(rule.except_senders) if rule.except_senders else None,
                rule.apply_to,
            )

    def _add_exact(self, address: str, number: int) -> None:
        before = self._exact.setdefault(address, number)
        numbers = before if isinstance(before, tuple) else (before,)
        # Behind a rule without conditions no other can apply.
        if number not in numbers and self.rules[numbers[-1]].is_conditional:
            self._exact[address] = (*numbers, number)

    def match(self, address: str, sender: str = "") -> Match | None:
        """Return the first rule that applies to an address, both in normal form, or None."""
        if self._is_plain:
            number = self._exact.get(address)
            if number is None:
                return None
            if isinstance(number, int) and number not in self._conditions:
                return Match(self.rules[number], (), address)
        for considered in self.considered(address, sender):
            if not considered.failing:
                return considered.match
        return None

    def possible(self, address: str) -> Iterator[Match]:
        """Yield the matches of which one applies, whoever the sender is; the last is for all."""
        if self._is_plain:
            number = self._exact.get(address)
            if number is None:
                return
            if isinstance(number, int) and number not in self._conditions:
                yield Match(self.rules[number], (), address)
                return
        for considered in self.considered(address, None):
            if not considered.failing:
                yield considered.match
                if not considered.match.rule.depends_on_sender:
                    return

    def reroutes(self, address: str) -> bool:
        """Tell whether a rule would replace an address, for some sender at least."""
        return any(match.rule.replaces for match in self.possible(address))

    def spares(self, address: str) -> bool:
        """Tell whether wildcards leave an address alone, with or without its extension."""
        return self._is_spared(
            address, addresses.without_extension(address, self.recipient_delimiter)
        )

    def _is_spared(self, address: str, base: str) -> bool:
        return addresses.is_protected(address) or addresses.is_protected(base)

    def considered(self, address: str, sender: str | None) -> Iterator[Considered]:
        """Yield the rules that take an address, in order, and whether they apply.

        Without a sender the conditions that depend on it hold.
        """
        base, extension = address, ""
        if self.recipient_delimiter:
            base = addresses.without_extension(address, self.recipient_delimiter)
            extension = addresses.local_of(address)[len(addresses.local_of(base)) :]
        spared = self._is_spared(address, base)
        found = self._found(address, "", spared)
        if extension:
            # Of one rule the match of the whole address comes first: the sort is stable.
            found += self._found(base, extension, spared)
        for number, table in self._maps:
            match = self._mapped(number, table, (address, base), extension, spared)
            if match is not None:
                found.append((number, match))
        if len(found) > 1:
            found.sort(key=lambda each: each[0])
        known = base in self.known or address in self.known if self.known else False
        for number, match in found:
            conditions = self._conditions.get(number)
            yield Considered(match, conditions.failing(sender, known) if conditions else "")

    def _found(self, address: str, extension: str, spared: bool) -> list[tuple[int, Match]]:
        numbers = self._exact.get(address, ())
        found = [
            (number, Match(self.rules[number], (), address, extension))
            for number in ((numbers,) if isinstance(numbers, int) else numbers)
        ]
        if self._has_wildcards and not spared:
            found += [
                (number, Match(self.rules[number], groups, address, extension))
                for number, groups in self._wild.takers(address)
            ]
        return found

    def _mapped(
        self,
        number: int,
        table: AddressMap,
        forms: tuple[str, str],
        extension: str,
        spared: bool,
    ) -> Match | None:
        """Look a table up as virtual(5) does: the whole address, without extension, the domain."""
        address, base = forms
        rule = self.rules[number]
        if address in table.targets:
            return Match(rule, (), address, "", table.targets[address])
        if base in table.targets:
            return Match(rule, (), base, extension, table.targets[base])
        targets = None if spared else table.targets.get(f"@{addresses.domain_of(address)}")
        return Match(rule, (), address, "", targets) if targets else None
