"""The SMTP server of a Postfix instance."""

import socket
from contextlib import suppress
from pathlib import Path

from crm_milter.postfix.postconf import Postconf, PostfixError, Service, split_list
from crm_milter.verify.probe import SMTP_PORT

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
