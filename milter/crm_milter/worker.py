"""One libmilter process: serves sessions until it is told to stop, then lets them finish.

Its rules never change. libmilter runs in a thread of its own; the main thread waits for the
supervisor's word or its end. Sessions that are open then go on to their own end: libmilter
cannot drain, so its listening socket is replaced by one that nobody can connect to.
"""

import contextlib
import math
import os
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import milter

from crm_milter import regexes
from crm_milter.children import CLOSED, DRAIN, PING, READY, read
from crm_milter.log import Log, counted, fault_line
from crm_milter.session import Service, register

_GLANCE = 0.05  # seconds between two looks at the sessions while draining
_LOOK = 1.0  # seconds between two looks at the descriptors
_TIGHT, _ROOMY = 2, 6  # descriptors left when no session is accepted any more, and again
_EX_SOFTWARE = 70  # sysexits.h


def run(descriptor: int, service: Service, channel: socket.socket, drain_timeout: int) -> int:
    """Serve the listening socket until told to stop, drain, and return the exit status.

    The supervisor says how long the open sessions have, by ending this process; without a
    supervisor it is ``drain_timeout`` seconds. The channel tells: it ends with the last process
    that holds the other end, and systemd may be that (handover.py).
    """
    register(service)
    regexes.serve_callbacks()
    log = service.log
    os.set_blocking(descriptor, False)  # libmilter would block in accept() otherwise
    signal.signal(signal.SIGUSR1, lambda *_: None)  # see _stop_accepting
    running, stopped = os.pipe()
    libmilter = threading.Thread(target=_run_libmilter, args=(stopped, log), daemon=True)
    ours = frozenset(filter(_is_connection, _descriptors()))
    libmilter.start()
    channel.send(READY)
    _serve(channel, running, _Door(descriptor, log))
    if not libmilter.is_alive() or _wait_for_any(running, seconds=0):
        log("error: libmilter stopped unexpectedly")
        return _EX_SOFTWARE
    _stop_accepting(descriptor, libmilter)
    _say(channel, CLOSED)
    _drain(ours, channel, drain_timeout, log)
    return 0


class _Door:
    """Keeps new sessions waiting while this process has no descriptors left for them.

    libmilter would try to accept them again and again, and other workers may have room.
    """

    def __init__(self, descriptor: int, log: Log) -> None:
        self._descriptor = descriptor
        self._log = log
        self._open = -1  # the socket that is accepted from, while it is not
        self._reserve = self._reserved()

    def look(self) -> None:
        """Shut it when the last descriptor is used, and open it when there is room again."""
        with contextlib.suppress(OSError):  # a session was faster: next time
            used, limit = _used(), resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            if self._open < 0 and used > limit - _TIGHT:
                self._shut(limit)
            elif self._open >= 0 and used < limit - _ROOMY:
                self.close()
                self._reserve = self._reserved()

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
        return len(_descriptors())
    except OSError:  # there is none left to look
        return sys.maxsize


def _serve(channel: socket.socket, running: int, door: _Door) -> None:
    """Return when told to, when the supervisor has gone for good, or with libmilter."""
    while True:
        if not _wait_for_any(channel.fileno(), running, seconds=_LOOK):
            door.look()
            continue
        if _wait_for_any(running, seconds=0) or read(channel) != PING:
            door.close()
            return
        _say(channel, PING)


def _say(channel: socket.socket, word: bytes) -> None:
    with contextlib.suppress(OSError):  # there may be no supervisor any more
        channel.send(word, socket.MSG_DONTWAIT)


def _run_libmilter(stopped: int, log: Log) -> None:
    try:
        milter.main()
    except milter.error as fault:
        log(fault_line("libmilter main loop", fault))
    finally:
        os.close(stopped)


def _wait_for_any(*descriptors: int, seconds: float | None = None) -> bool:
    """Return True as soon as one can be read or has ended, False after so many seconds."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(None if seconds is None else seconds * 1000))


def _stop_accepting(descriptor: int, libmilter: threading.Thread) -> None:
    """Have libmilter accept nothing more."""
    _close_to_clients(descriptor)
    # It may wait at the old socket, and so keep that alive, for five seconds more. A signal ends
    # its poll(); it starts anew, from the new one.
    with contextlib.suppress(ProcessLookupError):
        signal.pthread_kill(libmilter.ident or 0, signal.SIGUSR1)


def _close_to_clients(descriptor: int) -> None:
    """Put a socket that nobody can reach in the place of the one that libmilter accepts from."""
    with socket.socket(socket.AF_UNIX) as unreachable:
        unreachable.bind("")  # an abstract name that nobody was told (unix(7), autobind)
        unreachable.listen(1)
        unreachable.setblocking(False)
        os.dup2(unreachable.fileno(), descriptor)


def _drain(ours: frozenset[int], channel: socket.socket, timeout: int, log: Log) -> None:
    """Return when no session is open, or, without a supervisor, when their time is over."""
    deadline = math.inf
    while not _is_idle(ours):
        if deadline == math.inf and _supervisor_is_gone(channel):
            deadline = time.monotonic() + timeout
        if time.monotonic() >= deadline:
            sessions = counted(sum(1 for _ in _sessions(ours)), "session")
            log(f"warning: {sessions} still open after {counted(timeout, 'second')}, closing them")
            return
        time.sleep(_GLANCE)


def _is_idle(ours: frozenset[int]) -> bool:
    # A connection just being accepted has no descriptor yet; but who sleeps accepts none, and
    # nobody will, since the socket is replaced. So whoever is there, is there the second time.
    return not any(_sessions(ours)) and _others_sleep() and not any(_sessions(ours))


def _supervisor_is_gone(channel: socket.socket) -> bool:
    while _wait_for_any(channel.fileno(), seconds=0):
        word = read(channel)
        if not word:
            return True
        # One that has taken over does not know that this was said already.
        _say(channel, CLOSED if word == DRAIN else word)
    return False


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


def _sessions(ours: frozenset[int]) -> Iterator[int]:
    """Yield the descriptors of open sessions; those not yet known to libmilter are among them."""
    return (each for each in _descriptors() if each not in ours and _is_connection(each))


def _descriptors() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc/self/fd")]


def _is_connection(descriptor: int) -> bool:
    """Tell a session from what else is opened in time: libmilter's pipes, its syslog socket."""
    try:
        connection = socket.socket(fileno=descriptor)
    except OSError:
        return False  # no socket, or closed meanwhile
    kind = connection.type
    connection.detach()
    return kind == socket.SOCK_STREAM
