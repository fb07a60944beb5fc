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

from crm_milter.handover import Identity
from crm_milter.tables import why
from crm_milter.values import InetSocket, UnixSocket

BACKLOG = 512  # connections that wait while all workers are busy; libmilter's own is 20
_PATIENCE = 3.0  # seconds to wait for the orphans of a killed instance


class ListenError(Exception):
    """The socket cannot be opened; the text says why."""


class Listener:
    """A listening socket, where libmilter finds it; ``descriptor`` is its file descriptor.

    ``identity`` is that of the socket's file, zeros for a port. ``before`` is the socket of an
    instance that has ended or been replaced: it is used again if the address is still the same.
    """

    def __init__(
        self,
        listen: UnixSocket | InetSocket,
        mode: int,
        group: str,
        before: tuple[int, Identity] | None = None,
    ) -> None:
        self._listen, self._mode, self._group = listen, mode, group
        self.path = listen.path if isinstance(listen, UnixSocket) else ""
        self._lock = _lock(Path(self.path)) if self.path else None
        # Once a process: libmilter opens only one. Which socket it is can be changed later.
        self.descriptor = _reserved(listen)
        self.is_inherited = before is not None and self._take(*before)
        if not self.is_inherited:
            self.bind()

    def bind(self) -> None:
        """Listen at the address with a new socket; raises ListenError.

        Processes that share the one before still have that.
        """
        if isinstance(self._listen, UnixSocket):
            if self._lock is not None:
                os.close(self._lock)
            self._lock = _lock(Path(self.path))  # its file may be gone, too
            _refuse_live_socket(self.path)
        else:
            _refuse_taken_port(self._listen)
        with _opened(self._listen, self._mode) as opened:
            os.dup2(opened.fileno(), self.descriptor, inheritable=False)
        if self.path:
            _give_to_group(self.path, self._group)
        self.identity = identity_of(self.path)

    def _take(self, descriptor: int, identity: Identity) -> bool:
        """Go on with a socket from before, if it is at our address."""
        with socket.socket(fileno=descriptor) as before:
            if not _is_listening(descriptor):
                return False
            where = before.getsockname()
            if where != _address(self._listen):
                _remove(where, identity)
                return False
            if identity != identity_of(self.path):
                return False  # its file is gone, or another's
            os.dup2(before.fileno(), self.descriptor, inheritable=False)
        if self.path:
            with contextlib.suppress(OSError):  # it was another user's
                Path(self.path).chmod(self._mode)
            _give_to_group(self.path, self._group)
        self.identity = identity
        return True

    def is_lost(self) -> bool:
        """Tell whether the path does not lead to this socket any more."""
        return identity_of(self.path) != self.identity

    def remove(self) -> None:
        """Remove the socket's file, so that a client is refused at once; make room for another.

        Processes that share the socket still have it.
        """
        if self.path:
            _remove(self.path, self.identity)
        self.close()
        self.give_up_lock()

    def close(self) -> None:
        """Close the socket in this process."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def give_up_lock(self) -> None:
        """Close the lock: it is held until all processes that share it have done so."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _remove(path: Any, identity: Identity) -> None:
    """Remove the file of a socket that is used no more, so that a client is refused at once."""
    if isinstance(path, str) and identity_of(path) == identity:
        with contextlib.suppress(OSError):
            Path(path).unlink()


def identity_of(path: str) -> Identity:
    """Return device and inode of a socket's file, zeros if there is none."""
    try:
        status = Path(path).lstat() if path else None
    except OSError:
        return 0, 0
    if status is None or not stat.S_ISSOCK(status.st_mode):
        return 0, 0
    return status.st_dev, status.st_ino


def _lock(path: Path) -> int:
    """Take the lock beside the socket: two instances would take it from each other."""
    if not path.parent.is_dir():
        raise ListenError(f'directory "{path.parent}" of the milter socket does not exist')
    try:
        descriptor = _lock_file(f"{path}.lock")
    except OSError as error:
        raise ListenError(f'cannot lock "{path}": {why(error)}') from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise ListenError(f'another crm-milter is listening on "{path}"') from error
    return descriptor


def _lock_file(path: str) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o600)
    except PermissionError:
        # Left by another user, root most likely. Who listens there has the socket as well, and
        # is found by that.
        if not Path(path).exists():
            raise
        Path(path).unlink()
        descriptor = os.open(path, flags, 0o600)
    owner = Path(path).parent.stat()
    if os.geteuid() == 0 and os.fstat(descriptor).st_uid != owner.st_uid:
        os.fchown(descriptor, owner.st_uid, owner.st_gid)  # or the service could not take it
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


def _resolved(listen: InetSocket) -> tuple[int, tuple[Any, ...]]:
    family = socket.AF_INET6 if listen.family == "inet6" else socket.AF_INET
    try:
        found = socket.getaddrinfo(listen.host, listen.port, family, socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(f"cannot listen on {_place(listen)}: {why(error)}") from error
    return family, found[0][4]


def _place(listen: InetSocket) -> str:
    return f"{listen.host} port {listen.port}"


def _refuse_taken_port(listen: InetSocket) -> None:
    family, address = _resolved(listen)
    try:
        taken = _lasts(lambda: _is_taken(family, address))
    except OSError as error:
        raise ListenError(f"cannot listen on {_place(listen)}: {why(error)}") from error
    if taken:
        message = f"cannot listen on {_place(listen)}: another process is listening there"
        raise ListenError(message)


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


def _address(listen: UnixSocket | InetSocket) -> Any:
    """Return what getsockname() says of a socket at this address; raises ListenError."""
    return listen.path if isinstance(listen, UnixSocket) else _resolved(listen)[1]


def _opened(listen: UnixSocket | InetSocket, mode: int) -> socket.socket:
    family = socket.AF_UNIX if isinstance(listen, UnixSocket) else _resolved(listen)[0]
    opened = socket.socket(family)
    umask = os.umask(0o777 & ~mode)
    try:
        if isinstance(listen, UnixSocket):
            Path(listen.path).unlink(missing_ok=True)
        else:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # libmilter sends each edit in a packet of its own: with Nagle's algorithm every
            # matching message would wait 44 ms for the other side's delayed ACK.
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.bind(_address(listen))
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise ListenError(f'cannot listen on "{listen.libmilter}": {why(error)}') from error
    finally:
        os.umask(umask)
    return opened


def _reserved(listen: UnixSocket | InetSocket) -> int:
    """Return the descriptor from which libmilter accepts; another socket takes its place there."""
    if isinstance(listen, InetSocket):
        host = "::1" if listen.family == "inet6" else "127.0.0.1"
        return _opened_by_libmilter(f"{listen.family}:0@{host}")
    folder = os.open(Path(listen.path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    name = Path(f"/proc/self/fd/{folder}/.opening")  # a long path would not fit
    try:
        return _opened_by_libmilter(f"unix:{name}")
    finally:
        name.unlink(missing_ok=True)
        os.close(folder)


def _opened_by_libmilter(connection: str) -> int:
    before = _listening()
    milter.register("crm-milter")  # opensocket() wants a filter; session.py fills it in
    milter.setconn(connection)
    try:
        milter.opensocket(1)
    except milter.error as error:
        raise ListenError(f'cannot listen on "{connection}": {error}') from error
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
