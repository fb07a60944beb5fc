"""What one supervisor hands to the next: the socket, the workers' channels, the flood table.

Under systemd they are in the service's file descriptor store as long as the process runs, so
that a restart, and even the death of the supervisor, leaves workers that accept mail until the
next supervisor has its own (sd_notify(3), FDSTORE=1). Elsewhere a process hands them to the
program that it becomes (execve(2)). Each descriptor has a name, which says what it is; names are
also read by later versions.
"""

import contextlib
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from crm_milter.daemon import floodtable
from crm_milter.libmilter.listener import Identity

_FIRST = 3  # SD_LISTEN_FDS_START
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
_VARIABLE = "CRM_MILTER_DESCRIPTORS"
_LISTENER = re.compile(r"listener\.([0-9]+)\.([0-9]+)")
_WORKER = re.compile(r"worker\.([0-9]+)")
FLOODS = "floods"  # the table of the flood guard


@dataclass(frozen=True, slots=True)
class Inherited:
    """The listening socket with its file's identity, the channels by process id, and the table
    of the flood guard.
    """  # noqa: D205

    listener: tuple[int, Identity] | None = None
    workers: tuple[tuple[int, socket.socket], ...] = ()
    floods: int | None = None


def listener_name(identity: Identity) -> str:
    return f"listener.{identity[0]}.{identity[1]}"


def worker_name(pid: int) -> str:
    """Return the name of a worker's channel."""
    return f"worker.{pid}"


def inherited() -> Inherited:
    """Take what this process was given, once; what is of no use is closed."""
    listener, workers, floods = None, [], None
    for descriptor, name in (*_from_systemd(), *_from_before()):
        if name == FLOODS and floods is None and floodtable.is_table(descriptor):
            os.set_inheritable(descriptor, False)
            floods = descriptor
            continue
        if not _is_socket(descriptor):
            continue
        os.set_inheritable(descriptor, False)
        if found := _WORKER.fullmatch(name):
            workers.append((int(found[1]), socket.socket(fileno=descriptor)))
        elif (found := _LISTENER.fullmatch(name)) and listener is None:
            listener = descriptor, (int(found[1]), int(found[2]))
        else:
            os.close(descriptor)
    return Inherited(listener, tuple(workers), floods)


def _from_systemd() -> Iterator[tuple[int, str]]:
    pid, count, names = (os.environ.pop(f"LISTEN_{each}", "") for each in ("PID", "FDS", "FDNAMES"))
    if pid == str(os.getpid()) and count.isdecimal():
        named = [*names.split(":"), *[""] * int(count)]
        yield from enumerate(named[: int(count)], _FIRST)


def _from_before() -> Iterator[tuple[int, str]]:
    for entry in os.environ.pop(_VARIABLE, "").split():
        descriptor, _, name = entry.partition(":")
        if descriptor.isdecimal():
            yield int(descriptor), name


def _is_socket(descriptor: int) -> bool:
    try:
        socket.socket(fileno=descriptor).detach()
    except OSError:
        return False
    return True


def trial() -> int:
    """Start this program, as it is installed now, without serving; return its process id."""
    program = _program()
    return os.posix_spawn(program[0], [*program, "--dry-run"], os.environ)


def become(descriptors: dict[int, str]) -> None:
    """Run this program, as it is installed now, in this process; raises OSError.

    It inherits the descriptors, by their names.
    """
    program = _program()
    entries = " ".join(f"{descriptor}:{name}" for descriptor, name in descriptors.items())
    # A signal between here and the program's own settings would end it.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, True)
        os.execve(program[0], program, {**os.environ, _VARIABLE: entries})  # noqa: S606 - itself
    finally:
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _program() -> list[str]:
    return [sys.executable, *sys.orig_argv[1:]]


class Store:
    """The descriptor store of the service; ``is_used`` tells whether there is one."""

    def __init__(self, is_used: bool) -> None:
        self.is_used = is_used and "NOTIFY_SOCKET" in os.environ

    def keep(self, descriptor: int, name: str) -> None:
        """Have systemd keep a copy until the other end of it is closed."""
        self._send(f"FDSTORE=1\nFDNAME={name}", descriptor)

    def drop(self, name: str) -> None:
        """Have systemd close its copy."""
        self._send(f"FDSTOREREMOVE=1\nFDNAME={name}")

    def _send(self, message: str, *descriptors: int) -> None:
        if not self.is_used:
            return
        address = os.environ["NOTIFY_SOCKET"]
        if address.startswith("@"):
            address = f"\0{address[1:]}"
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link,
        ):
            link.connect(address)
            socket.send_fds(link, [message.encode()], list(descriptors))
