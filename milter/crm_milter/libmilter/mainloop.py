"""One libmilter process: serves sessions until it is told to stop, then lets them finish.

Its rules never change. libmilter runs in a thread of its own; the main thread waits for the
supervisor's word or its end. Sessions that are open then go on to their own end: libmilter
cannot drain, so its listening socket is replaced by one that cannot be connected to.
"""

import contextlib
import os
import resource
import select
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import milter

from crm_milter.log import Log, error_line

_TIGHT, _ROOMY = 2, 6  # descriptors left when no session is accepted any more, and again


class Door:
    """Keeps new sessions waiting while this process has no descriptors left for them.

    libmilter would try to accept them again and again, and other workers may have room.
    """

    def __init__(self, descriptor: int, log: Log) -> None:
        self._descriptor = descriptor
        self._log = log
        self._open = -1  # the socket that is accepted from, while it is not
        self._reserve = self._reserved()

    def look(self) -> bool:
        """Shut it when the last descriptor is used, and open it when there is room again.

        Tell whether it was shut now.
        """
        with contextlib.suppress(OSError):  # a session was faster: next time
            used, limit = _used(), resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            if self._open < 0 and used > limit - _TIGHT:
                self._shut(limit)
                return True
            if self._open >= 0 and used < limit - _ROOMY:
                self.close()
                self._reserve = self._reserved()
        return False

    def close(self) -> None:
        """Accept again, and keep nothing that is not in use."""
        if self._open >= 0:
            os.dup2(self._open, self._descriptor)
            os.close(self._open)
            self._open = -1
        self._release()

    def _shut(self, limit: int) -> None:
        self._release()
        self._open = os.dup(self._descriptor)
        _close_to_clients(self._descriptor)
        who = f"worker (pid {os.getpid()})"
        self._log(f"error: {who} is out of file descriptors ({limit}), new sessions wait")

    def _release(self) -> None:
        while self._reserve:
            os.close(self._reserve.pop())

    @staticmethod
    def _reserved() -> list[int]:
        return [os.open(os.devnull, os.O_RDONLY) for _ in range(2)]


def _used() -> int:
    try:
        return len(descriptors())
    except OSError:  # there is none left to look
        return sys.maxsize


def run_libmilter(stopped: int, log: Log) -> None:
    """Run libmilter's main loop in this thread; ``stopped`` is closed when it ends."""
    try:
        milter.main()
    except milter.error as fault:
        log(error_line("libmilter main loop", fault))
    finally:
        os.close(stopped)


def wait_for_any(*descriptors: int, seconds: float | None = None) -> bool:
    """Return True as soon as one can be read or has ended, False after so many seconds."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def stop_accepting(descriptor: int, libmilter: threading.Thread) -> None:
    """Have libmilter accept nothing more."""
    _close_to_clients(descriptor)
    # It may wait at the old socket, and so keep that alive, for five seconds more. A signal ends
    # its poll(); it starts again, with the new one.
    with contextlib.suppress(ProcessLookupError):
        signal.pthread_kill(libmilter.ident or 0, signal.SIGUSR1)


def _close_to_clients(descriptor: int) -> None:
    """Replace the socket that libmilter accepts from by one that cannot be reached."""
    with socket.socket(socket.AF_UNIX) as unreachable:
        unreachable.bind("")  # an abstract name that is never published (unix(7), autobind)
        unreachable.listen(1)
        unreachable.setblocking(False)
        os.dup2(unreachable.fileno(), descriptor)


def is_idle(ours: frozenset[int]) -> bool:
    """Tell whether no session is open, and none is just being accepted."""
    # A connection just being accepted has no descriptor yet; but a sleeping thread accepts none,
    # and no more come because the socket is replaced. So the second look sees every session.
    return not any(open_sessions(ours)) and _others_sleep() and not any(open_sessions(ours))


def _others_sleep() -> bool:
    """Tell whether no other thread of this process is at work."""
    own = threading.get_native_id()
    return all(
        _sleeps(int(each.name)) for each in os.scandir("/proc/self/task") if int(each.name) != own
    )


def _sleeps(thread: int) -> bool:
    try:
        status = Path(f"/proc/self/task/{thread}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return True  # it has ended meanwhile
    return status.rpartition(b") ")[2].startswith(b"S")


def open_sessions(ours: frozenset[int]) -> Iterator[int]:
    """Yield the descriptors of open sessions; those not yet known to libmilter are among them."""
    return (each for each in descriptors() if each not in ours and is_connection(each))


def descriptors() -> list[int]:
    """Return the descriptors that this process has open."""
    return [int(entry.name) for entry in os.scandir("/proc/self/fd")]


def is_connection(descriptor: int) -> bool:
    """Tell a session from what else is opened in time: libmilter's pipes, its syslog socket."""
    try:
        connection = socket.socket(fileno=descriptor)
    except OSError:
        return False  # no socket, or closed meanwhile
    kind = connection.type
    connection.detach()
    return kind == socket.SOCK_STREAM
