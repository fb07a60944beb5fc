"""Whose mail Postfix takes, and where an address ends up (ADDRESS_CLASS_README, virtual(5))."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from crm_milter import address as addresses
from crm_milter.postfix.lookup import Tables, plain
from crm_milter.postfix.postconf import Postconf, split_list

_MAX_ON_THE_WAY = 1000
_DEEPEST = 20  # virtual aliases of virtual aliases that are followed


class Kind(Enum):
    """The class of a domain: the parameter that makes it one of ours."""

    LOCAL = "mydestination"
    ALIAS = "virtual_alias_domains"
    MAILBOX = "virtual_mailbox_domains"
    RELAY = "relay_domains"
    REMOTE = ""
    UNSURE = "a table that cannot be read"


_OURS = (Kind.LOCAL, Kind.ALIAS, Kind.MAILBOX, Kind.RELAY)

# The parameter that lists the valid recipients of a class; empty: all are valid.
RECIPIENTS = {
    Kind.LOCAL: "local_recipient_maps",
    Kind.MAILBOX: "virtual_mailbox_maps",
    Kind.RELAY: "relay_recipient_maps",
}


class Destination(Enum):
    """What becomes of mail for an address."""

    MAILBOX = "is a mailbox"
    UNCHECKED = "is accepted like any address in its domain"
    REMOTE = "is sent to another host"
    UNKNOWN = "is not a known recipient"
    LOOP = "leads back to a matched address"


@dataclass(frozen=True, slots=True)
class Account:
    """Where an address has its mailbox: the parameter, the table and the key in it."""

    parameter: str
    table: str
    key: str


class Domains:
    """Looks addresses up as the Postfix of this instance does."""

    def __init__(self, postconf: Postconf, tables: Tables) -> None:
        self._postconf = postconf
        self._tables = tables
        self._kinds: dict[str, Kind] = {}

    def kind(self, domain: str) -> Kind:
        """Return the class of a domain (in lower case)."""
        if domain not in self._kinds:
            ours = (kind for kind in _OURS if self._has(kind, domain))
            self._kinds[domain] = next(ours, None) or self._no_kind()
        return self._kinds[domain]

    def _no_kind(self) -> Kind:
        items = (item for kind in _OURS for item in split_list(self._postconf.value(kind.value)))
        return Kind.UNSURE if self._tables.has_failed(items) else Kind.REMOTE

    def _has(self, kind: Kind, domain: str) -> bool:
        parents = self._postconf.value("parent_domain_matches_subdomains")
        # Of the four only relay_domains may also mean subdomains.
        with_subdomains = kind is Kind.RELAY and kind.value in split_list(parents)
        items = _read(split_list(self._postconf.value(kind.value)))
        for item in items:
            name = item.removeprefix("!")
            if self._is_in(name.lower(), domain, with_subdomains):
                return not item.startswith("!")
        return False

    def _is_in(self, item: str, domain: str, with_subdomains: bool) -> bool:
        if ":" in item and not item.startswith("["):
            return bool(self._tables.look_up(item, [domain]))
        if item == domain or (item.startswith(".") and domain.endswith(item)):
            return True
        return with_subdomains and domain.endswith(f".{item}")

    def listed(self) -> list[str]:
        """Return the domains that main.cf, or a file that it names, lists one by one."""
        items = [item for kind in _OURS for item in split_list(self._postconf.value(kind.value))]
        return [each.lower() for each in _read(items) if each[:1] not in "!./" and ":" not in each]

    def tool(self, table: str) -> str:
        """Return the command that lists a table: the format of aliases(5) has its own."""
        names = ("alias_maps", "alias_database")
        local = (each for name in names for each in split_list(self._postconf.value(name)))
        return "postalias" if plain(table) in map(plain, local) else "postmap"

    def recipient_tables(self, kind: Kind) -> list[str]:
        """Return the tables that list the valid recipients of a class."""
        return split_list(self._postconf.value(RECIPIENTS[kind])) if kind in RECIPIENTS else []

    def prefetch(self, wanted: Iterable[str]) -> None:
        """Ask the tables about many addresses at once."""
        keys: dict[str, list[str]] = {}
        for address in wanted:
            kind = self.kind(addresses.domain_of(address))
            for table in self._account_tables(kind)[1]:
                keys.setdefault(table, []).extend([address, addresses.local_of(address)])
        for table, listed in keys.items():
            self._tables.look_up(table, listed)

    def _account_tables(self, kind: Kind) -> tuple[str, list[str]]:
        tables = self.recipient_tables(kind)
        if kind is Kind.LOCAL and not tables:
            aliases = split_list(self._postconf.value("alias_maps"))
            return "alias_maps", ["unix:passwd.byname", *aliases]
        return RECIPIENTS.get(kind, ""), tables

    def account(self, address: str) -> Account | None:
        """Return the account that an address itself has, None if there is none.

        A table that has an entry for every address of the domain tells nothing about this one.
        """
        kind = self.kind(addresses.domain_of(address))
        parameter, tables = self._account_tables(kind)
        keys = [address, addresses.local_of(address)] if kind is Kind.LOCAL else [address]
        for table in tables:
            unlikely = addresses.join("crm-milter-no-such-user", addresses.domain_of(address))
            if self._tables.look_up(table, [unlikely, "crm-milter-no-such-user"]):
                continue
            for key in self._tables.look_up(table, keys):
                return Account(parameter, table, key)
        return None

    def aliases(self, address: str) -> tuple[str, list[str]] | None:
        """Return the key and the members of the virtual alias that an address is, or None."""
        tables = split_list(self._postconf.value("virtual_alias_maps"))
        found = self._tables.first(tables, self.keys(address))
        if found is None:
            return None
        _, key, value = found
        local = addresses.local_of(address)
        return key, [
            f"{local}{each}" if each.startswith("@") else each
            for each in members_of(value, self._postconf.origin)
        ]

    def keys(self, address: str) -> list[str]:
        """Return the keys that virtual(5) looks up, in order."""
        domain = addresses.domain_of(address)
        delimiter = self._postconf.value("recipient_delimiter")
        base = addresses.without_extension(address, delimiter)
        keys = [address, base]
        if self.kind(domain) is Kind.LOCAL or domain == self._postconf.origin:
            keys += [addresses.local_of(address), addresses.local_of(base)]
        return list(dict.fromkeys([*keys, f"@{domain}"]))

    def fate(
        self, address: str, routed: frozenset[str] = frozenset(), empty: Collection[str] = ()
    ) -> Destination:
        """Return what becomes of mail that is not routed; the worst, where it goes to several.

        ``empty`` are tables of aliases that cannot be read because they have yet to be written.
        """
        fates = {self._destination(member) for member in self._final(address, routed, _DEEPEST)}
        order = (
            Destination.LOOP,
            Destination.UNKNOWN,
            Destination.UNCHECKED,
            Destination.REMOTE,
            Destination.MAILBOX,
        )
        worst = next((each for each in order if each in fates), Destination.UNKNOWN)
        aliases = {*split_list(self._postconf.value("virtual_alias_maps"))}
        if worst is Destination.UNKNOWN and self._tables.has_failed(aliases.difference(empty)):
            return Destination.UNCHECKED  # an alias that cannot be seen may lead elsewhere
        return worst

    def on_the_way(self, address: str) -> set[str]:
        """Return an address and all that mail for it is sent on to by tables on this host."""
        seen: set[str] = set()
        waiting = [address]
        while waiting and len(seen) < _MAX_ON_THE_WAY:
            now = waiting.pop()
            if now not in seen:
                seen.add(now)
                waiting += self._next(now)
        return seen

    def _next(self, address: str) -> list[str]:
        rewritten = self.rewritten(address)
        aliases = self.aliases(rewritten or address)
        found = [rewritten] if rewritten else []
        found += aliases[1] if aliases else []
        if not aliases and self.kind(addresses.domain_of(address)) is Kind.LOCAL:
            tables = split_list(self._postconf.value("alias_maps"))
            local = self._tables.first(tables, self._locals(address))
            found += members_of(local[2], self._postconf.origin) if local else []
        return found

    def _locals(self, address: str) -> list[str]:
        delimiter = self._postconf.value("recipient_delimiter")
        base = addresses.without_extension(address, delimiter)
        return list(dict.fromkeys([addresses.local_of(address), addresses.local_of(base)]))

    def rewritten(self, address: str) -> str:
        """Return what canonical(5) makes of a recipient, "" if it stays."""
        for name in ("recipient_canonical_maps", "canonical_maps"):
            found = self._tables.first(split_list(self._postconf.value(name)), self.keys(address))
            if found:
                (member, *_) = members_of(found[2], self._postconf.origin) or [""]
                local = addresses.local_of(address)
                return f"{local}{member}" if member.startswith("@") else member
        return ""

    def _final(self, address: str, routed: frozenset[str], depth: int) -> list[str]:
        """Return where an address ends up; "" stands for a loop."""
        found = self.aliases(address)
        if address in routed or depth == 0:
            return [""]
        if found is None or found[1] == [address]:
            return [address]
        return [
            last
            for member in found[1]
            for last in ([member] if member == address else self._final(member, routed, depth - 1))
        ]

    def _destination(self, address: str) -> Destination:
        if not address:
            return Destination.LOOP
        kind = self.kind(addresses.domain_of(address))
        if kind is Kind.REMOTE:
            return Destination.REMOTE
        if kind is Kind.UNSURE:
            return Destination.UNCHECKED
        if kind is Kind.ALIAS:
            return Destination.UNKNOWN
        tables = self.recipient_tables(kind)
        if not tables:
            return Destination.UNCHECKED
        keys = self.keys(address)
        if kind is Kind.LOCAL:
            keys.append(addresses.local_of(address))
        if self._tables.first(tables, keys):
            return Destination.MAILBOX
        return Destination.UNCHECKED if self._tables.has_failed(tables) else Destination.UNKNOWN


def members_of(value: str, origin: str) -> list[str]:
    """Return the addresses in the value of an alias, in normal form with a domain.

    Commands, files and lists of aliases(5) are left out; ``@domain`` stays as it is.
    """
    listed = (addresses.normalise(each) for each in split_list(value) if each[:1] not in '"|/:')
    return [each if "@" in each else addresses.join(each, origin) for each in listed]


def _read(items: list[str]) -> list[str]:
    """Return the items of a list, with those of the files that it names."""
    read: list[str] = []
    for item in items:
        if not item.startswith("/"):
            read.append(item)
            continue
        try:
            lines = Path(item).read_text("utf-8", "surrogateescape").splitlines()
        except OSError:
            continue
        read += split_list("\n".join(line for line in lines if not line.startswith("#")))
    return read
