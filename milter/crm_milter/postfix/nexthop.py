"""Where Postfix hands mail for an address on another host (transport(5), postconf(5)).

In this order: an entry of transport_maps, the next hop of default_transport or of what replaces
it, the relayhost, the MX records of the address. A table that cannot be asked counts as empty.
"""

from dataclasses import dataclass, replace

from crm_milter import address as addresses
from crm_milter.postfix.domains import Kind
from crm_milter.postfix.lookup import plain
from crm_milter.postfix.postconf import split_list
from crm_milter.postfix.site import Site

# These are asked about whole addresses alone (transport(5), "REGULAR EXPRESSION TABLES").
_PATTERNS = frozenset({"regexp", "pcre", "tcp"})


@dataclass(frozen=True, slots=True)
class NextHop:
    """A transport and its next hop; ``host`` is "" where that is the domain of the recipient."""

    transport: str
    host: str
    named_by: str  # the parameter that has the host, "" for none


def next_hop(site: Site, recipient: str, sender: str = "") -> NextHop:
    """Return where mail goes; without a sender no table of senders is asked."""
    kind = site.domains.kind(addresses.domain_of(recipient))
    usual = _transport(site, kind, sender)
    if not usual.host:
        usual = _relayed(site, usual, sender)
    return _mapped(site, usual, recipient)


def _transport(site: Site, kind: Kind, sender: str) -> NextHop:
    name = "relay_transport" if kind is Kind.RELAY else "default_transport"
    value = site.postconf.value(name)
    if kind is not Kind.RELAY:
        maps = "sender_dependent_default_transport_maps"
        own = _of_sender(site, maps, sender)
        name, value = (maps, own) if own else (name, value)
    transport, _, host = value.partition(":")
    return NextHop(transport, host, name if host else "")


def _relayed(site: Site, usual: NextHop, sender: str) -> NextHop:
    maps = "sender_dependent_relayhost_maps"
    own = _of_sender(site, maps, sender)
    if own:
        return replace(usual, host=own, named_by=maps)
    if own is None:
        return usual
    host = site.postconf.value("relayhost")
    return replace(usual, host=host, named_by="relayhost" if host else "")


def _of_sender(site: Site, name: str, sender: str) -> str | None:
    """Return what a table has for a sender: "" for nothing, None for "as without any" (DUNNO)."""
    if not sender:
        return ""
    tables = split_list(site.postconf.value(name))
    delimiter = site.postconf.value("recipient_delimiter")
    base = addresses.without_extension(sender, delimiter)
    found = site.tables.first(tables, [sender, base, f"@{addresses.domain_of(sender)}"])
    value = found[2].strip() if found else ""
    return None if value.upper() == "DUNNO" else value


def _mapped(site: Site, usual: NextHop, recipient: str) -> NextHop:
    found = _entry(site, recipient)
    transport, _, host = found.strip().partition(":")
    if transport:  # without a next hop that is the domain, whatever the relayhost
        return NextHop(transport, host, "transport_maps" if host else "")
    return replace(usual, host=host, named_by="transport_maps") if host else usual


def _entry(site: Site, recipient: str) -> str:
    delimiter = site.postconf.value("recipient_delimiter")
    whole = [recipient, addresses.without_extension(recipient, delimiter)]
    domain, *above = addresses.with_parents(addresses.domain_of(recipient))
    parts = [domain, *(f".{each}" for each in above), "*"]
    tables = split_list(site.postconf.value("transport_maps"))
    fixed = [each for each in tables if plain(each).partition(":")[0] not in _PATTERNS]
    found = site.tables.first(tables, whole) or site.tables.first(fixed, parts)
    return found[2] if found else ""
