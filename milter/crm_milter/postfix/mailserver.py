"""The SMTP server of a Postfix instance, and the hosts that it sends through."""

import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from crm_milter import address as addresses
from crm_milter.config.load import Config
from crm_milter.postfix.domains import Kind
from crm_milter.postfix.nexthop import next_hop
from crm_milter.postfix.postconf import Postconf, PostfixError, Service, split_list
from crm_milter.postfix.site import Site
from crm_milter.verify.probe import SMTP_PORT
from crm_milter.verify.relayhost import Relayhost

_EVERYWHERE = frozenset({"all", "loopback-only", "localhost", "127.0.0.1"})


def smtpd(config_directory: Path | None) -> tuple[str, int]:
    """Return the address of the smtpd of this instance that takes mail from outside."""
    with suppress(PostfixError, OSError):
        postconf = Postconf(config_directory)
        services = [each for each in postconf.running_as("smtpd", "postscreen") if _is_inet(each)]
        servers = [_address(postconf, each) for each in services]
        port_25 = [each for each in servers if each[1] == SMTP_PORT]
        return (port_25 or servers or [("127.0.0.1", SMTP_PORT)])[0]
    return "127.0.0.1", SMTP_PORT


def _is_inet(service: Service) -> bool:
    return service.kind == "inet"


def _address(postconf: Postconf, service: Service) -> tuple[str, int]:
    host, _, port = service.name.rpartition(":")
    number = int(port) if port.isdecimal() else socket.getservbyname(port, "tcp")
    if not host:
        interfaces = split_list(postconf.value("inet_interfaces", service))
        loopback = "::1" if postconf.value("inet_protocols", service) == "ipv6" else "127.0.0.1"
        host = loopback if _EVERYWHERE.intersection(interfaces) else [*interfaces, loopback][0]
    return host.strip("[]"), number


def relayhosts(
    config: Config, path: Path, config_directory: Path | None
) -> Callable[[str, str], Relayhost]:
    """Return a function that finds the host through which mail of a sender to a recipient goes."""
    site = Site(config, path, Postconf(config_directory))

    def through(sender: str, recipient: str) -> Relayhost:
        with suppress(PostfixError):
            return _relayhost(site, addresses.normalise(sender), recipient)
        return Relayhost()

    return through


def _relayhost(site: Site, sender: str, recipient: str) -> Relayhost:
    domain = addresses.domain_of(recipient)
    if site.domains.kind(domain) not in (Kind.REMOTE, Kind.RELAY, Kind.UNSURE):
        return Relayhost()
    hop = next_hop(site, recipient, sender)
    if not hop.host or not _speaks_smtp(site, hop.transport):
        return Relayhost()
    found = Relayhost.parse(hop.host, hop.named_by)
    named = (*found.hosts, *found.domains)
    # A route that an administrator gave the CRM may lead to the CRM's own server.
    is_route = "relayhost" not in hop.named_by
    if is_route and all(_is_of(each, domain) or _is_loopback(each) for each in named):
        return Relayhost()
    return found


def _speaks_smtp(site: Site, transport: str) -> bool:
    clients = site.postconf.running_as("smtp", "lmtp", "relay")
    return any(each.name == transport for each in clients)


def _is_of(host: str, domain: str) -> bool:
    """Tell whether a host belongs to a domain, or to the one that both stand below."""
    return host.lower().split(".")[-2:] == domain.split(".")[-2:]


def _is_loopback(host: str) -> bool:
    return host.lower() in ("localhost", "::1") or host.startswith("127.")
