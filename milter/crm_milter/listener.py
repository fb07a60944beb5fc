"""The milter socket: opened once, by one instance, with the mode and group asked for.

Promises: the socket of a live process is never taken away, a stale one is replaced, and
whatever stands in the way is one clear ListenError.
"""

import contextlib
import errno
import fcntl
import grp
import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import milter

from crm_milter.values import InetSocket, UnixSocket

BACKLOG = 512  # connections that wait while all workers are busy; libmilter's own is 20
_PATIENCE = 3.0  # seconds to wait for the orphans of a killed instance


class ListenError(Exception):
    """The socket cannot be opened; the text says why."""


class Listener:
    """An open listening socket of libmilter; ``descriptor`` is its file descriptor."""

    def __init__(self, listen: UnixSocket | InetSocket, mode: int, group: str) -> None:
        self._path = listen.path if isinstance(listen, UnixSocket) else ""
        self._lock = _lock(Path(self._path)) if self._path else None
        if isinstance(listen, UnixSocket):
            _refuse_live_socket(listen.path)
            self.descriptor = _open(listen.libmilter, mode)
            _give_to_group(listen.path, group)
        else:
            _refuse_taken_port(listen)
            self.descriptor = _open(listen.libmilter, mode)
            _send_at_once(self.descriptor)

    def remove(self) -> None:
        """Remove the socket's file, so that a client is refused at once; make room for another.

        Processes that share the socket still have it.
        """
        if self._lock is not None:
            with contextlib.suppress(OSError):
                Path(self._path).unlink()
        os.close(self.descriptor)
        self.give_up_lock()

    def give_up_lock(self) -> None:
        """Close the lock: it is held until all processes that share it have done so."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _lock(path: Path) -> int:
    """Take the lock beside the socket: opensocket() would take a live socket away."""
    if not path.parent.is_dir():
        raise ListenError(f'directory "{path.parent}" of the milter socket does not exist')
    try:
        descriptor = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ListenError(f'cannot lock "{path}": {error.strerror}') from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ListenError(f'another crm-milter is listening on "{path}"') from error
    return descriptor


def _refuse_live_socket(path: str) -> None:
    try:
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise ListenError(f'"{path}" exists and is not a socket')
    except FileNotFoundError:
        return
    if _lasts(lambda: _connects(path)):
        raise ListenError(f'another process is listening on "{path}"')


def _lasts(taken: Callable[[], bool]) -> bool:
    """Tell whether it stays so for a while.

    The workers of a supervisor that was killed let go of the socket as soon as they notice.
    """
    deadline = time.monotonic() + _PATIENCE
    while taken():
        if time.monotonic() >= deadline:
            return True
        time.sleep(0.05)
    return False


def _connects(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def _refuse_taken_port(listen: InetSocket) -> None:
    family = socket.AF_INET6 if listen.family == "inet6" else socket.AF_INET
    where = f"{listen.host} port {listen.port}"
    try:
        address = socket.getaddrinfo(listen.host, listen.port, family, socket.SOCK_STREAM)[0][4]
        taken = _lasts(lambda: _is_taken(family, address))
    except OSError as error:
        raise ListenError(f"cannot listen on {where}: {error.strerror}") from error
    if taken:
        raise ListenError(f"cannot listen on {where}: another process is listening there")


def _is_taken(family: int, address: tuple[Any, ...]) -> bool:
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return True
    return False


def _open(connection: str, mode: int) -> int:
    before = _listening()
    umask = os.umask(0o777 & ~mode)
    try:
        milter.register("crm-milter")  # opensocket() wants a filter; session.py fills it in
        milter.setconn(connection)
        milter.setbacklog(BACKLOG)
        milter.opensocket(1)  # replaces a stale socket; a live one was refused above
    except milter.error as error:
        raise ListenError(f'cannot listen on "{connection}": {error}') from error
    finally:
        os.umask(umask)
    (descriptor,) = _listening() - before
    return descriptor


def _listening() -> set[int]:
    return {int(each.name) for each in os.scandir("/proc/self/fd") if _is_listening(int(each.name))}


def _is_listening(descriptor: int) -> bool:
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
        with socket.socket(fileno=os.dup(descriptor)) as duplicate:
            return bool(duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


def _give_to_group(path: str, group: str) -> None:
    # Where the group is not there or we may not, Postfix's own rights decide.
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(path, -1, grp.getgrnam(group).gr_gid)


def _send_at_once(descriptor: int) -> None:
    # libmilter sends each edit in a packet of its own: with Nagle's algorithm every matching
    # message would wait 44 ms for the other side's delayed ACK. Accepted sockets inherit it.
    with socket.socket(fileno=os.dup(descriptor)) as duplicate:
        duplicate.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
