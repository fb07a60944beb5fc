"""Lists of milters as main.cf writes them, and which entry of one is ours.

An entry is ``unix:path``, ``inet:host:port`` or ``{ one of these, name=value, ... }``. A path that
is relative, or any path of a service in the chroot, starts at the queue directory (MILTER_README).
"""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from crm_milter.config.listen import InetSocket, Listener, UnixSocket
from crm_milter.postfix.postconf import Postconf, Service, split_list

# What attach writes: enough for a busy host, far below a client's patience (RFC 5321 4.5.3.2).
TIMEOUTS = {"connect_timeout": "10s", "command_timeout": "30s", "content_timeout": "60s"}


@dataclass(frozen=True, slots=True)
class MilterEntry:
    """One milter of a list: its address and the settings of its own."""

    source: str
    address: str
    settings: Mapping[str, str]


def parse(value: str) -> list[MilterEntry]:
    """Return the milters of an expanded list, in order."""
    return [_entry(item) for item in split_list(value)]


def _entry(item: str) -> MilterEntry:
    if not item.startswith("{"):
        return MilterEntry(item, item, {})
    words = split_list(item.removeprefix("{").removesuffix("}"))
    # { name = value } may have blanks around its sign, and then is three words.
    joined = ",".join(words).replace(",=,", "=").replace("=,", "=").replace(",=", "=").split(",")
    pairs = (word.partition("=") for word in joined[1:])
    settings = {name.strip(): value.strip("{} ") for name, _, value in pairs}
    return MilterEntry(item, joined[0] if joined else "", settings)


class OurSocket:
    """The socket of ``milter.listen``, as Postfix names it."""

    def __init__(self, listen: Listener, postconf: Postconf) -> None:
        self.listen = listen
        self._postconf = postconf

    @cached_property
    def _queue(self) -> Path:
        return Path(self._postconf.value("queue_directory"))

    @property
    def in_chroot(self) -> str | None:
        """Return the path below the queue directory, None if the socket is elsewhere."""
        if not isinstance(self.listen, UnixSocket):
            return None
        # A symbolic link that leads out of the queue directory leads nowhere in the chroot.
        path, queue = Path(os.path.realpath(self.listen.path)), Path(os.path.realpath(self._queue))
        if path.is_relative_to(queue):
            return str(path.relative_to(queue))
        return None

    @property
    def address(self) -> str:
        """Return what main.cf calls it: relative if possible, right inside and outside a chroot."""
        if isinstance(self.listen, UnixSocket):
            return f"unix:{self.in_chroot or self.listen.path}"
        host = f"[{self.listen.host}]" if ":" in self.listen.host else self.listen.host
        return f"inet:{host}:{self.listen.port}"

    def entry(self, when_down: str) -> str:
        """Return the entry that attach writes."""
        settings = {**TIMEOUTS, "default_action": when_down}
        words = [self.address, *(f"{name}={value}" for name, value in settings.items())]
        return f"{{ {', '.join(words)} }}"

    def is_ours(self, entry: MilterEntry) -> bool:
        """Tell whether an entry names our socket, be it by a path that chroot makes another."""
        family, _, rest = entry.address.partition(":")
        if isinstance(self.listen, UnixSocket):
            return family == "unix" and self._ours_by(rest)
        return family in ("inet", "inet6") and _same_host(rest, self.listen)

    def _ours_by(self, path: str) -> bool:
        meant = {Path(path), self._queue / path.lstrip("/")}
        real = os.path.realpath(self.listen.libmilter.removeprefix("unix:"))
        return any(os.path.realpath(each) == real for each in meant if each.is_absolute())

    def is_reached(self, entry: MilterEntry, service: Service) -> bool:
        """Tell whether a service that uses our entry finds the socket at its path."""
        if not isinstance(self.listen, UnixSocket):
            return True
        path = entry.address.partition(":")[2]
        if service.chroot and self.in_chroot is None:
            return False
        if service.chroot or not path.startswith("/"):
            path = str(self._queue / path.lstrip("/"))
        return os.path.realpath(path) == os.path.realpath(self.listen.path)


def _same_host(text: str, listen: InetSocket) -> bool:
    host, _, port = text.rpartition(":")
    if not port.isdigit():
        try:
            port = str(socket.getservbyname(port, "tcp"))
        except OSError:
            return False
    if int(port) != listen.port:
        return False
    host = host.strip("[]")
    everywhere = listen.host in ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
    return host == listen.host or everywhere or bool(_numbers(host) & _numbers(listen.host))


def _numbers(host: str) -> set[str]:
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError:
        return {host}
