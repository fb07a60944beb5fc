"""The table of rules, and the look-up of the one that applies to a recipient.

The first rule, in the order of the file, that takes the address and whose conditions hold
applies; of its patterns the first one that takes the address, whatever its kind. Addresses and
domains are looked up in dictionaries and all patterns in one automaton, so the number of rules
hardly matters. Wildcards spare the addresses of the mail system itself.
"""

from collections.abc import Iterator
from typing import NamedTuple

from crm_milter import address as addresses
from crm_milter.rules.conditions import ANY_MESSAGE, Condition, Occasion
from crm_milter.rules.pattern import AddressList, Exact, Groups, Pattern
from crm_milter.rules.rule import AddressMap, LiveTable, Match, Mode, Rule, TableError
from crm_milter.rules.wildcards import Wildcards

Ranks = int | tuple[int, ...]  # of patterns; almost always one, and there may be very many

_NULL_SENDER = Occasion()


class Considered(NamedTuple):
    """A rule that takes an address: the match, and the condition that does not hold."""

    match: Match
    failing: Condition | None
    occasion: Occasion


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
        # Patterns are ranked in the order of the file; each rank belongs to a rule.
        self._owners: list[int] = []
        self._exact: dict[str, Ranks] = {}
        self._maps: list[tuple[int, AddressMap]] = []
        self._conditional = {n for n, rule in enumerate(rules) if rule.is_conditional}
        wild: list[tuple[int, Pattern]] = []
        for number, rule in enumerate(rules):
            self._index(number, rule, wild)
        self._wild = Wildcards(wild)
        self._has_wildcards = bool(wild)
        self._is_plain = not (wild or self._maps or recipient_delimiter)
        self.depends_on_message = any(rule.depends_on_message for rule in rules)
        # The place in the file of each rule of a group.
        self.grouped = {rule.name: n for n, rule in enumerate(rules) if rule.case_group}
        # The names, in lower case, of the header fields that conditions ask for.
        self.reads = frozenset[str]().union(*(c.reads for rule in rules for c in rule.conditions))

    def _index(self, number: int, rule: Rule, wild: list[tuple[int, Pattern]]) -> None:
        for pattern in rule.match:
            rank = self._ranked(number)
            match pattern:
                case Exact(address):
                    self._add_exact(address, rank)
                case AddressList(_, listed):
                    for address in listed:
                        self._add_exact(address, rank)
                case _:
                    wild.append((rank, pattern))
        if rule.address_map is not None:
            self._maps.append((self._ranked(number), rule.address_map))

    def _ranked(self, number: int) -> int:
        self._owners.append(number)
        return len(self._owners) - 1

    def _add_exact(self, address: str, rank: int) -> None:
        before = self._exact.setdefault(address, rank)
        ranks = before if isinstance(before, tuple) else (before,)
        last, number = self._owners[ranks[-1]], self._owners[rank]
        # Behind a rule without conditions no other can apply.
        if number != last and last in self._conditional:
            self._exact[address] = (*ranks, rank)

    def enforced(self) -> "RuleTable":
        """Return the table without its test rules: what happens to mail is as if by that one."""
        rules = tuple(rule for rule in self.rules if rule.mode is not Mode.TEST)
        if len(rules) == len(self.rules):
            return self
        return RuleTable(rules, self.recipient_delimiter, self.known)

    def match(
        self, address: str, occasion: Occasion = _NULL_SENDER, typed: str = ""
    ) -> Match | None:
        """Return the first rule that applies to an address, or None.

        The address is in normal form; ``typed`` is the address as the client spelt it.

        If the rule is in mode test, the match of the next one is behind it, and so on. So it is
        behind one that depends on a header which is not known yet: they are candidates.
        Raises TableError if the table of a rule that comes to it cannot be read.
        """
        if self._is_plain:
            rank = self._exact.get(address)
            if rank is None:
                return None
            found = self._only(address, rank, typed)
            if found:
                return found
        before: list[Match] = []
        applying: Match | None = None
        may_wait = self.reads and occasion.header is None
        for considered in self.considered(address, occasion, typed):
            trouble = considered.match.trouble
            if trouble and considered.match.rule.is_test:
                continue
            if not considered.failing:
                rule = considered.match.rule
                waits = may_wait and rule.needs_header
                if trouble and not waits:
                    raise trouble
                if not (rule.is_test or waits):
                    applying = considered.match
                    break
                before.append(considered.match)
        for match in reversed(before):
            applying = match._replace(behind=applying)
        return applying

    def is_waiting(self, match: Match) -> bool:
        """Tell whether a match was found without a header that decides if it applies."""
        return bool(self.reads) and any(each.rule.needs_header for each in match.chain())

    def _only(self, address: str, rank: Ranks, typed: str = "") -> Match | None:
        """Return the match of the one rule that takes an address, None if it has conditions."""
        if not isinstance(rank, int) or self._owners[rank] in self._conditional:
            return None
        spelt = addresses.as_typed(typed, address) if typed else ""
        return Match(self.rules[self._owners[rank]], (), address, typed=spelt)

    def possible(self, address: str) -> Iterator[Match]:
        """Yield the matches of which one applies, whatever the message is; the last is for all.

        Rules in mode test are passed over: they change nothing; so are tables that cannot be read.
        """
        if self._is_plain:
            rank = self._exact.get(address)
            if rank is None:
                return
            found = self._only(address, rank)
            if found:
                yield found
                return
        for considered in self.considered(address, ANY_MESSAGE):
            found = considered.match
            if not (considered.failing or found.trouble or found.rule.is_test):
                yield found
                if not considered.match.rule.depends_on_message:
                    return

    def reroutes(self, address: str) -> bool:
        """Tell whether a rule would replace an address, for some message at least.

        Raises TableError if the table of a rule that may cannot be read.
        """
        if any(match.rule.replaces for match in self.possible(address)):
            return True
        for considered in self.considered(address, ANY_MESSAGE) if self._maps else ():
            if considered.match.trouble and not considered.match.rule.is_test:
                raise considered.match.trouble
        return False

    def live(self) -> list[LiveTable]:
        """Return the tables that are asked for each address."""
        return [table.live for _, table in self._maps if table.live is not None]

    def is_protected(self, address: str) -> bool:
        """Tell whether wildcards leave an address alone, with or without its extension."""
        return self._is_protected(
            address, addresses.without_extension(address, self.recipient_delimiter)
        )

    def _is_protected(self, address: str, base: str) -> bool:
        return addresses.is_protected(address) or addresses.is_protected(base)

    def considered(self, address: str, occasion: Occasion, typed: str = "") -> Iterator[Considered]:
        """Yield the rules that take an address, in order, and whether they apply."""
        look = self._look(address, addresses.as_typed(typed, address) if typed else address)
        found = self._found(look.whole, "", look.spared)
        if look.extension:
            found += self._found(look.base, look.extension, look.spared)
        for rank, table in self._maps:
            match = self._mapped(self.rules[self._owners[rank]], table, look)
            if match is not None:
                found.append((rank, match))
        if len(found) > 1:
            # The sort is stable: of one pattern the match of the whole address comes first.
            found.sort(key=lambda each: each[0])
        base = look.base.normal
        if self.known and (base in self.known or address in self.known):
            occasion = occasion._replace(known=True)
        plain = {self._owners[n] for n, each in found if each.takes_plain} if self.reads else ()
        last = -1
        for rank, match in found:
            number = self._owners[rank]
            if number != last:
                last = number
                if self.reads:
                    also = base if number in plain else match.address
                    occasion = occasion._replace(address=match.address, plain=also)
                yield Considered(match, match.rule.failing(occasion), occasion)

    def _look(self, address: str, typed: str) -> "_Look":
        whole = _Spelt(address, typed)
        if not self.recipient_delimiter:
            return _Look(whole, whole, "", self._is_protected(address, address))
        base = addresses.without_extension(address, self.recipient_delimiter)
        spared = self._is_protected(address, base)
        if base == address:
            return _Look(whole, whole, "", spared)
        start, end = len(addresses.local_of(base)), len(addresses.local_of(address))
        extension = addresses.part(typed, address, start, end)
        local = addresses.part(typed, address, 0, start)
        spelt = addresses.join(local, addresses.domain_of(address))
        return _Look(whole, _Spelt(base, spelt), extension, spared)

    def _found(self, form: "_Spelt", extension: str, spared: bool) -> list[tuple[int, Match]]:
        taken: list[tuple[int, Groups]] = []
        ranks = self._exact.get(form.normal)
        if ranks is not None:
            taken = [(rank, ()) for rank in ((ranks,) if isinstance(ranks, int) else ranks)]
        if self._has_wildcards and not spared:
            taken += self._wild.matches(form.normal, form.typed)
        rules, owners = self.rules, self._owners
        return [
            (rank, Match(rules[owners[rank]], groups, form.normal, extension, typed=form.typed))
            for rank, groups in taken
        ]

    def _mapped(self, rule: Rule, table: AddressMap, look: "_Look") -> Match | None:
        """Look a table up as virtual(5) does: the whole address, without extension, the domain."""
        address = look.whole.normal
        try:
            for form, extension in ((look.whole, ""), (look.base, look.extension)):
                targets = table.get(form.normal)
                if targets is not None:
                    return Match(rule, (), form.normal, extension, targets or None, form.typed)
                if look.base is look.whole:
                    break
            targets = None
            if not look.spared:
                targets = table.get(f"@{addresses.domain_of(address)}")
        except TableError as trouble:
            return Match(rule, (), address, typed=look.whole.typed, trouble=trouble)
        if targets is None:
            return None
        return Match(rule, (), address, "", targets or None, look.whole.typed, by_domain=True)


class _Spelt(NamedTuple):
    """An address in normal form, and as the client spelt it."""

    normal: str
    typed: str


class _Look(NamedTuple):
    """An address as it is looked up: whole, and without its extension, if it has one."""

    whole: _Spelt
    base: _Spelt
    extension: str
    spared: bool
