"""Child processes of the supervisor: forked, told to stop, heard of, and buried.

A child is told what to do on a channel, not by signals: it ignores those that stop or reload,
since libmilter takes them for itself, and they come to the whole group anyway (^C, systemd).
The channel also tells it, by its end, that the supervisor has died.
"""

import os
import signal
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from crm_milter.log import Log, fault_line

READY = b"r"  # from a child: it does its work
DRAIN = b"d"  # to a child: begin nothing new, and end
CLOSED = b"c"  # from a child: what comes from now on is not for it

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_TAKEN_SIGNALS = (*STOP_SIGNALS, signal.SIGHUP, signal.SIGCHLD)
_EX_SOFTWARE = 70  # sysexits.h


class State(Enum):
    """How far a child has come."""

    STARTING = "starting"
    SERVING = "serving"
    CLOSING = "closing"  # it was told to end
    ENDING = "ending"  # it accepts nothing more, but may have sessions


@dataclass(eq=False)
class Child:
    """A child process.

    ``generation`` is the one whose rules it has and ``place`` its number in that. ``slot`` is
    the lowest number that no other living child has, so that few are ever in use.
    """

    pid: int
    channel: socket.socket
    slot: int
    generation: int
    place: int
    state: State = State.STARTING

    def __str__(self) -> str:
        return f"worker w{self.slot} (pid {self.pid})"

    @property
    def owes_word(self) -> bool:
        """Tell whether it will say something, if only by hanging up."""
        return self.state in (State.STARTING, State.CLOSING)

    def listen(self) -> None:
        """Read what it says."""
        word = read(self.channel)
        if word != READY:
            self.state = State.ENDING
        elif self.state is State.STARTING:
            self.state = State.SERVING

    def drain(self) -> None:
        """Tell it to begin nothing new, and to end."""
        if self.state in (State.STARTING, State.SERVING):
            self.state = State.CLOSING
            with suppress(OSError):  # it has ended: SIGCHLD is on its way
                self.channel.send(DRAIN)

    def kill(self) -> None:
        """End it at once. It is not buried yet, so that its number is still its own."""
        os.kill(self.pid, signal.SIGKILL)


def read(channel: socket.socket) -> bytes:
    """Return the next word on a channel, nothing where the other side has ended."""
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
            _live(body, theirs, log)
    except OSError:
        ours.close()
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    return pid, ours


def _live(body: Callable[[socket.socket], int], channel: socket.socket, log: Log) -> NoReturn:
    status = _EX_SOFTWARE
    try:
        signal.set_wakeup_fd(-1)
        for number in _TAKEN_SIGNALS:
            signal.signal(number, signal.SIG_DFL if number is signal.SIGCHLD else signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _TAKEN_SIGNALS)
        status = body(channel)
    except BaseException as fault:  # nothing may get back to the supervisor's own work
        log(fault_line("child process", fault))
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


class Deaths:
    """The deaths of late, which tell how long to wait before the next try, and when to give up."""

    LIMIT = 5
    WINDOW = 10.0  # seconds

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=self.LIMIT)

    def note(self, now: float) -> float:
        """Count one and return the seconds to wait: 0, then 0.1, 0.2, 0.4, 0.8."""
        self._times.append(now)
        recent = sum(now - time < self.WINDOW for time in self._times)
        return 0.1 * 2 ** (recent - 2) if recent > 1 else 0.0

    def too_many(self, now: float) -> bool:
        """Tell whether trying again is in vain."""
        return len(self._times) == self.LIMIT and now - self._times[0] < self.WINDOW
