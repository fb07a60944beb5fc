"""The milter socket: opened once, by one instance, with the mode and group asked for.

Promises: the socket of a live process is never taken away, a stale one is replaced, and
whatever stands in the way is one clear ListenError.
"""

import contextlib
import errno
import fcntl
import os
import socket
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crm_milter.config.listen import InetSocket, UnixSocket
from crm_milter.libmilter.opening import (
    ListenError,
    address,
    give_to_group,
    is_listening,
    opened,
    place,
    reserved,
    resolved,
)
from crm_milter.wording import why

_TIMEOUT = 3.0  # seconds to wait for the orphans of a killed instance


Identity = tuple[int, int]  # device and inode of a socket's file; zeros for a port


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
        self.descriptor = reserved(listen)
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
            self._lock = _lock(Path(self.path))  # its file may also be gone
            _refuse_live_socket(self.path)
        else:
            _refuse_taken_port(self._listen)
        with opened(self._listen, self._mode) as fresh:
            os.dup2(fresh.fileno(), self.descriptor, inheritable=False)
        if self.path:
            give_to_group(self.path, self._group)
        self.identity = identity_of(self.path)

    def _take(self, descriptor: int, identity: Identity) -> bool:
        """Go on with a socket from before, if it is at our address."""
        with socket.socket(fileno=descriptor) as before:
            if not is_listening(descriptor):
                return False
            where = before.getsockname()
            if where != address(self._listen):
                _remove(where, identity)
                return False
            if identity != identity_of(self.path):
                return False  # its file is gone, or another's
            os.dup2(before.fileno(), self.descriptor, inheritable=False)
        if self.path:
            with contextlib.suppress(OSError):  # it was another user's
                Path(self.path).chmod(self._mode)
            give_to_group(self.path, self._group)
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
    """Take the lock next to the socket: two instances would take it from each other."""
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
    deadline = time.monotonic() + _TIMEOUT
    while taken():
        if time.monotonic() >= deadline:
            return True
        time.sleep(0.05)
    return False


def _connects(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def _refuse_taken_port(listen: InetSocket) -> None:
    family, address = resolved(listen)
    try:
        taken = _lasts(lambda: _is_taken(family, address))
    except OSError as error:
        raise ListenError(f"cannot listen on {place(listen)}: {why(error)}") from error
    if taken:
        message = f"cannot listen on {place(listen)}: another process is listening there"
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
