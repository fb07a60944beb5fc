"""Rules: what the configuration says of one, the conditions of one, and the target it gives."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, Protocol

from crm_milter import address as addresses
from crm_milter import mailbox
from crm_milter.rules.conditions import ANY_MESSAGE, Condition, Occasion
from crm_milter.rules.flood import Flood
from crm_milter.rules.pattern import AddressList, Exact, Groups, Pattern
from crm_milter.rules.template import Template


class OnSpam(Enum):
    """What happens to spam for a rule that does not bypass the filter."""

    LEAVE = "leave"
    REJECT = "reject"
    QUARANTINE = "quarantine"
    DISCARD = "discard"


class OnOversize(Enum):
    """What happens to a message that is larger than the rule's limit."""

    LEAVE = "leave"
    REJECT = "reject"


class AutomaticClass(Enum):
    """What kind of automatic mail a message is; the keys of ``automatic``."""

    REPLY = "reply"
    BOUNCE = "bounce"
    BULK = "bulk"
    LIST = "list"


class OnAutomatic(Enum):
    """What happens to a class of automatic mail."""

    ROUTE = "route"
    LEAVE = "leave"


class OnUnauthenticated(Enum):
    """What happens to a message that DMARC says is forged."""

    ROUTE = "route"
    LEAVE = "leave"
    REJECT = "reject"
    QUARANTINE = "quarantine"


class Mode(Enum):
    """Whether a rule acts or only says what it would do."""

    ENFORCE = "enforce"
    TEST = "test"


@dataclass(frozen=True, slots=True)
class Copy:
    """An address that gets a copy when a rule applies."""

    address: str
    deliver_spam: bool = False
    suppress_bounces: bool = True


class TableError(Exception):
    """A table cannot be read now, and may have the address; the text says which, and why."""


class LiveTable(Protocol):
    """A table outside, which is asked for each address."""

    @property
    def path(self) -> Path:
        """The file that it is in."""

    def get(self, key: str) -> tuple[str, ...] | None:
        """Return the targets of a key, () if they are no addresses; raises TableError."""

    def report_to(self, log: Callable[[str], None]) -> None:
        """Say there from now on what is wrong in the table."""

    def look(self, now: float) -> None:
        """Do, from time to time, what is not done when there is mail."""

    def close(self) -> None:
        """Close what is open, before a fork."""


@dataclass(frozen=True, slots=True)
class AddressMap:
    """A table instead of ``match`` and ``replace_with``.

    Keys are ``user@domain`` in normal form and ``@domain``; values the targets as written. One
    that is ``live`` has no ``targets`` here.
    """

    source: str
    targets: Mapping[str, tuple[str, ...]]
    live: LiveTable | None = None

    def get(self, key: str) -> tuple[str, ...] | None:
        """Return the targets of a key, () if they are no addresses; raises TableError."""
        return self.targets.get(key) if self.live is None else self.live.get(key)


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as the configuration says it; the meaning of each field is there."""

    name: str
    match: tuple[Pattern, ...] = ()
    replace_with: Template | None = None
    copies: tuple[Copy, ...] = ()
    bypass_spam_filter: bool = False
    on_spam: OnSpam = OnSpam.LEAVE
    suppress_bounces: bool = True
    unrouted_to: str | None = None
    mode: Mode = Mode.ENFORCE
    address_map: AddressMap | None = None
    conditions: tuple[Condition, ...] = ()
    automatic: frozenset[AutomaticClass] = frozenset()  # the classes that are left
    on_unauthenticated: OnUnauthenticated = OnUnauthenticated.ROUTE
    max_size: int | None = None  # bytes
    on_oversize: OnOversize = OnOversize.LEAVE
    flood: Flood | None = None
    dead_letters: str | None = None  # None: the one for all rules
    propagate_extension: bool = False
    add_headers: tuple[tuple[str, str], ...] = ()
    case_group: str | None = None  # of a message's recipients in it only one is routed
    fence: frozenset[str] | None = None  # the only domains it may match; its groups end there

    @property
    def is_conditional(self) -> bool:
        """Tell whether the rule may pass over an address that it matches; in mode test it does."""
        return bool(self.conditions) or self.is_test

    @property
    def is_test(self) -> bool:
        """Tell whether the rule only says what it would do."""
        return self.mode is Mode.TEST

    @property
    def depends_on_message(self) -> bool:
        """Tell whether the rule may apply to one message for an address and not to another."""
        return any(condition.depends_on_message for condition in self.conditions)

    @property
    def needs_header(self) -> bool:
        """Tell whether it is known only at the end of the message if the rule applies."""
        return any(condition.reads for condition in self.conditions)

    def failing(self, occasion: Occasion) -> Condition | None:
        """Return the first condition that does not hold, None if all do."""
        for condition in self.conditions:
            if not condition.holds(occasion):
                return condition
        return None

    def may_apply(self, *, known: bool) -> bool:
        """Tell whether the rule may apply to a recipient with or without an account."""
        return self.failing(ANY_MESSAGE._replace(known=known)) is None

    @property
    def has_constant_target(self) -> bool:
        """Tell whether the targets are known when the file is read."""
        if self.address_map is not None and self.address_map.live is not None:
            return False
        constant = self.replace_with is None or self.replace_with.is_constant
        return constant and not self.propagate_extension

    def addresses(self) -> Iterator[str]:
        """Yield the addresses, in normal form, that the rule names one by one."""
        for pattern in self.match:
            if isinstance(pattern, Exact):
                yield pattern.address
            elif isinstance(pattern, AddressList):
                yield from sorted(pattern.addresses)
        if self.address_map is not None:
            yield from (key for key in self.address_map.targets if not key.startswith("@"))

    def names(self, address: str) -> bool:
        """Tell whether an address is one of those."""
        table = self.address_map
        return (table is not None and address in table.targets) or any(
            address == pattern.address
            if isinstance(pattern, Exact)
            else isinstance(pattern, AddressList) and address in pattern.addresses
            for pattern in self.match
        )

    def mapped_domains(self) -> Iterator[str]:
        """Yield the domains that the table of the rule has as a whole."""
        if self.address_map is not None:
            yield from (key[1:] for key in self.address_map.targets if key.startswith("@"))

    def known_targets(self) -> Iterator[str]:
        """Yield the targets that are known without a message."""
        if self.address_map is not None:
            for targets in self.address_map.targets.values():
                yield from targets
        template = self.replace_with
        if template is not None and template.constant is not None:
            yield template.constant
        elif template is not None and not template.references():
            yield from (template.fill(address, ()) or "" for address in self.addresses())

    @property
    def replaces(self) -> bool:
        """Tell whether the recipient is removed, rather than only getting copies added."""
        return self.replace_with is not None or self.address_map is not None


class Match(NamedTuple):
    """The rule that applies to a recipient, and what its pattern took of the address."""

    rule: Rule
    groups: Groups
    address: str  # without the extension where only that made it match
    extension: str = ""  # as the client spelt it, with its delimiter; "" where all was taken
    mapped: tuple[str, ...] | None = ()  # the targets, where the rule has a table; None: bad ones
    typed: str = ""  # the address as the client spelt it; "" for the normal form
    behind: "Match | None" = (
        None  # behind a rule in mode test: what applies as if it were not there
    )
    trouble: TableError | None = None  # the table cannot be read: it may match, or may not
    by_domain: bool = False  # by a row of the table for all of a domain

    @property
    def takes_plain(self) -> bool:
        """Tell whether the rule takes, or may take, the address without its extension as well."""
        return bool(self.extension or self.by_domain or self.trouble)

    def chain(self) -> "Iterator[Match]":
        """Yield the matches of test rules, then that of the rule that acts, if there is one."""
        match: Match | None = self
        while match is not None:
            yield match
            match = match.behind

    def targets(self) -> tuple[str, ...] | None:
        """Return what replaces the recipient: () for nothing, None if no mailbox can have it."""
        template = self.rule.replace_with
        targets = self.mapped
        if targets is None:
            return None
        if template is not None:
            target = template.fill(self.typed or self.address, self.groups)
            if target is None:
                return None
            targets = (target,)
        if self.extension and self.rule.propagate_extension:
            extended = [_extended(target, self.extension) for target in targets]
            targets = tuple(filter(None, extended))
            if len(targets) < len(extended):
                return None
        return targets


def _extended(target: str, extension: str) -> str | None:
    """Return a target with an extension, None if no mailbox can have that address."""
    local, domain = addresses.split(target)
    extended = addresses.join(local + extension, domain)
    fits = mailbox.is_deliverable(extended, local)
    return addresses.written(extended) if fits else None


@lru_cache(maxsize=4096)
def key(address: str) -> str:
    """Return the normal form of a target or copy: kept, since the same come again and again."""
    return addresses.normalise(address)
