"""Child processes of the supervisor: forked, told to stop, heard of, and buried.

A child is told what to do on a channel, not by signals: it ignores those that stop or reload,
since libmilter takes them for itself, and they come to the whole group anyway (^C, systemd).
The channel also tells it, by its end, that the supervisor has died.
"""

import math
import os
import signal
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from crm_milter.log import Log, error_line

READY = b"r"  # from a child: it does its work
DRAIN = b"d"  # to a child: begin nothing new, and end
CLOSED = b"c"  # from a child: what comes from now on is not for it
PING = b"p"  # to a child, and back: it is alive
RELOADED = b"n"  # to a child: other rules are in force now

# After a restart children of an earlier version read these words as well.

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
REPLACE_SIGNAL = signal.SIGUSR2
_TAKEN_SIGNALS = (*STOP_SIGNALS, signal.SIGHUP, REPLACE_SIGNAL, signal.SIGCHLD)
_TIMEOUT = 2.0  # seconds in which a child has to say that it accepts nothing more
_DEAF = 10.0  # seconds after which one that has not is killed
_UNANSWERED = 3  # pings after which a child is killed
_EX_SOFTWARE = 70  # sysexits.h


class ChildState(Enum):
    """How far a child has come."""

    STARTING = "starting"
    SERVING = "serving"
    CLOSING = "closing"  # it was told to end
    ENDING = "ending"  # it accepts nothing more, but may have sessions


@dataclass(eq=False)
class Child:
    """A child process.

    ``generation`` is the one whose rules it has and ``place`` its number in that. ``slot`` is
    the lowest number that no other living child has, so that few are ever in use; one that was
    taken over from an earlier supervisor has none. Times are those of time.monotonic().
    """

    pid: int
    channel: socket.socket
    slot: int | None
    generation: int
    place: int
    state: ChildState = ChildState.STARTING
    is_gone: bool = False
    was_killed: bool = False
    end_at: float = math.inf  # when it is killed
    _told_at: float = math.inf
    _pings: int = 0

    def __str__(self) -> str:
        name = "old worker" if self.slot is None else f"worker w{self.slot}"
        return f"{name} (pid {self.pid})"

    def listen(self) -> None:
        """Read what it says."""
        word = read(self.channel)
        if word == PING:
            self._pings = 0
        elif word == READY:
            if self.state is ChildState.STARTING:
                self.state = ChildState.SERVING
        else:
            self.state = ChildState.ENDING
            self.is_gone = not word

    def drain(self, now: float, seconds: float) -> None:
        """Tell it to begin nothing new, and to end within so many seconds."""
        if self.state in (ChildState.STARTING, ChildState.SERVING):
            self.state = ChildState.CLOSING
            self._told_at, self.end_at = now, now + seconds
            self._say(DRAIN)

    def may_accept(self, now: float) -> bool:
        """Tell whether it may still take a session: a frozen one is not waited for."""
        return self.state is ChildState.CLOSING and now < self._told_at + _TIMEOUT

    def is_deaf(self, now: float) -> bool:
        """Tell whether it does not hear: it is stopped, or something worse."""
        if self.was_killed:
            return False
        late = self.state is ChildState.CLOSING and now >= self._told_at + _DEAF
        return late or self._pings > _UNANSWERED

    def wakes_at(self, now: float) -> float:
        """Return when something is due next that nothing else will tell."""
        closing = self.state is ChildState.CLOSING
        waits = (self._told_at + _TIMEOUT, self._told_at + _DEAF) if closing else ()
        times = () if self.was_killed else (self.end_at, *waits)
        return min((each for each in times if each > now), default=math.inf)

    def ping(self) -> None:
        """Have it say that it is alive."""
        if self.state is ChildState.SERVING:
            self._pings += 1
            self._say(PING)

    def _say(self, word: bytes) -> None:
        with suppress(OSError):  # it has ended: SIGCHLD is on its way; or it is frozen
            self.channel.send(word, socket.MSG_DONTWAIT)

    def kill(self) -> None:
        """End it at once. It is not buried yet, so that its number is still its own."""
        self.was_killed, self.end_at = True, math.inf
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def read(channel: socket.socket) -> bytes:
    """Return the next word on a channel, nothing if the other side has ended."""
    try:
        return channel.recv(1)
    except ConnectionResetError:  # it had not read all of ours
        return b""


def fork(body: Callable[[socket.socket], int], log: Log) -> tuple[int, socket.socket]:
    """Run ``body`` in a child with its end of the channel; return process id and our end.

    What ``body`` returns is the exit status. It must close what it does not need of ours,
    the channels of others above all: they would never end otherwise.
    """
    ours, theirs = socket.socketpair()
    # A signal between the fork and the child's own settings would be taken for ours.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN_SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            ours.close()
            _run_child(body, theirs, log)
    except OSError:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    return pid, ours


def _run_child(body: Callable[[socket.socket], int], channel: socket.socket, log: Log) -> NoReturn:
    status = _EX_SOFTWARE
    try:
        signal.set_wakeup_fd(-1)
        for number in _TAKEN_SIGNALS:
            signal.signal(number, signal.SIG_DFL if number is signal.SIGCHLD else signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TAKEN_SIGNALS)
        status = body(channel)
    except BaseException as fault:  # nothing may get back to the supervisor's own work
        log(error_line("child process", fault))
    finally:
        # Threads of libmilter may still be there, and must not keep a process that has ended.
        os._exit(status)


def ended() -> Iterator[tuple[int, str]]:
    """Bury the children that have ended: the process id of each, and how it came about."""
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            code = os.waitstatus_to_exitcode(found[1])
            how = f"exited with status {code}" if code >= 0 else f"was killed by signal {-code}"
            yield found[0], how if code else ""


class Signals:
    """The signals that this process takes from now on."""

    def __init__(self) -> None:
        # A pipe, since each byte of a socket's buffer costs a thousand; 65,536 signals fit.
        self.descriptor, self._sender = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(self._sender, warn_on_full_buffer=False)
        for number in _TAKEN_SIGNALS:
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TAKEN_SIGNALS)

    def taken(self) -> Counter[int]:
        """Return how often each signal came since the last call."""
        with suppress(BlockingIOError):
            return Counter(os.read(self.descriptor, 1 << 16))
        return Counter()

    def close(self) -> None:
        """Close the pipe, in a child."""
        os.close(self.descriptor)
        os.close(self._sender)


def backoff(failures: int, most: float = 60.0) -> float:
    """Return the seconds to wait after so many failures: 0, then 0.1, 0.2, 0.4 and so on."""
    return min(most, 0.1 * 2 ** min(failures - 1, 30)) if failures > 0 else 0.0


class RestartBackoff:
    """The deaths of late, which tell how long to wait before the next try, and when to give up."""

    LIMIT = 5
    WINDOW = 10.0  # seconds

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=self.LIMIT)

    def note(self, now: float) -> float:
        """Count one and return the seconds to wait: none after the first."""
        self._times.append(now)
        recent = sum(now - time < self.WINDOW for time in self._times)
        return backoff(recent - 1)

    def exhausted(self, now: float) -> bool:
        """Tell whether trying again is pointless."""
        return len(self._times) == self.LIMIT and now - self._times[0] < self.WINDOW
