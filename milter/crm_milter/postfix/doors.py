"""The ports and sockets by which a session comes to an smtpd, and the first words of one."""

import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from crm_milter.postfix.postconf import Postconf, Service, split_list

_TIMEOUT = 15.0  # seconds for one reply; postscreen takes six to greet
_LOOPBACK = {"all", "loopback-only", "localhost", "127.0.0.1"}
_LONGEST = 4096  # bytes of a reply


@dataclass(frozen=True, slots=True)
class Door:
    """Where a session can be opened; ``label`` is the service that answers there."""

    label: str
    host: str  # "" for a Unix socket
    port: int
    path: str
    by_proxy: bool
    by_tls: bool

    @property
    def where(self) -> str:
        """Return its name in messages."""
        return self.path or f"{self.host} port {self.port}"

    @property
    def client(self) -> str:
        """Return the address that Postfix sees of a client that comes from this host."""
        return self.host or "127.0.0.1"

    def open(self) -> socket.socket:
        """Connect, and say what a proxy would."""
        if self.path:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(_TIMEOUT)
            connection.connect(self.path)
        else:
            connection = socket.create_connection((self.host, self.port), _TIMEOUT)
        try:
            if self.by_proxy:
                connection.sendall(_proxied(connection))
            return _encrypted(connection) if self.by_tls else connection
        except BaseException:
            connection.close()
            raise


def _proxied(connection: socket.socket) -> bytes:
    """Return what HAProxy would say of this connection: the short "UNKNOWN" Postfix refuses."""
    (host, port), (peer, target) = connection.getsockname()[:2], connection.getpeername()[:2]
    family = "TCP6" if connection.family is socket.AF_INET6 else "TCP4"
    return f"PROXY {family} {host} {peer} {port} {target}\r\n".encode()


def _encrypted(connection: socket.socket) -> ssl.SSLSocket:
    context = ssl.create_default_context()
    context.check_hostname = False  # this host talks to itself, by a number
    context.verify_mode = ssl.CERT_NONE
    return context.wrap_socket(connection)


def doors(postconf: Postconf, service: Service) -> list[Door]:
    """Return the ways that lead to an smtpd: its port, or that of the postscreen before it."""
    if service.kind == "inet":
        proxy = bool(postconf.value("smtpd_upstream_proxy_protocol", service))
        tls = postconf.is_on("smtpd_tls_wrappermode", service)
        return [_port(postconf, service, proxy=proxy, tls=tls)]
    if service.kind in ("unix", "unix-dgram", "fifo"):
        return _unix(postconf, service)
    return [
        _port(
            postconf,
            each,
            proxy=bool(postconf.value("postscreen_upstream_proxy_protocol", each)),
            tls=postconf.is_on("smtpd_tls_wrappermode", each),
        )
        for each in postconf.running_as("postscreen")
        if each.kind == "inet" and postconf.value("smtpd_service_name", each) == service.name
    ]


def _port(postconf: Postconf, service: Service, *, proxy: bool, tls: bool) -> Door:
    host, _, port = service.name.rpartition(":")
    if not host:
        interfaces = split_list(postconf.value("inet_interfaces", service))
        ipv6 = postconf.value("inet_protocols", service) == "ipv6"
        is_local = bool(_LOOPBACK & set(interfaces))
        host = ("::1" if ipv6 else "127.0.0.1") if is_local else next(iter(interfaces), "localhost")
    number = int(port) if port.isdigit() else socket.getservbyname(port, "tcp")
    return Door(service.label, host.strip("[]"), number, "", proxy, tls)


def _unix(postconf: Postconf, service: Service) -> list[Door]:
    queue = Path(postconf.value("queue_directory"))
    paths = (queue / place / service.name for place in ("private", "public"))
    return [Door(service.label, "", 0, str(each), False, False) for each in paths if each.exists()]


def talk(connection: socket.socket) -> tuple[int, str]:
    """Greet, and begin a message of the null sender; return the last reply."""
    with connection.makefile("rb") as replies:
        code, text = _reply(replies)
        for command in (b"EHLO localhost\r\n", b"MAIL FROM:<>\r\n"):
            if code // 100 != 2:
                return code, text
            connection.sendall(command)
            code, text = _reply(replies)
        return code, text


def _reply(replies: BinaryIO) -> tuple[int, str]:
    text = ""
    while True:
        line = replies.readline(_LONGEST).decode("utf-8", "replace").rstrip()
        if not line[:3].isdigit():
            raise ValueError("it closed the connection" if not line else f'it says "{line}"')
        text = line[4:]
        if line[3:4] != "-":
            return int(line[:3]), text
