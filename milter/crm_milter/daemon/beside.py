"""Starts the processes next to the workers, restarts those that exit, and ends them.

One serves the metrics, one follows Postfix's log. Neither has any part in the mail.
"""

import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from socket import socket

from crm_milter.config.load import Config
from crm_milter.daemon.child import backoff, fork
from crm_milter.daemon.lastgood import state_directory
from crm_milter.log import Log
from crm_milter.metrics.memory import Board, SharedCounters
from crm_milter.wording import why

_LONG_LIFE = 60.0  # seconds after which a death is a first one again
_TO_END = 5.0  # seconds that one has to end when the next one waits for that


Run = Callable[[socket], int]


class SideProcess:
    """A process as the supervisor sees it.

    ``due`` is when to start one, ``end_at`` when to kill the one that is there, both on the clock
    of time.monotonic(). ``make`` takes what it needs, and returns what it does until it is hung
    up on.
    """

    def __init__(self, name: str, make: Callable[[], Run], log: Log, is_wanted: bool) -> None:
        self._name = name
        self._make = make
        self._log = log
        self._pid = 0
        self._channel: socket | None = None
        self._started = 0.0
        self._failures = 0
        self._wait = 0.0
        self._is_renewed = False
        self._is_wanted = is_wanted
        self.due = 0.0 if is_wanted else math.inf
        self.end_at = math.inf

    def start(self, close_inherited: Callable[[], None]) -> None:
        """Start one; ``close_inherited`` closes there what belongs to others."""
        self._started, self._is_renewed = time.monotonic(), False

        def body(channel: socket) -> int:
            run = self._make()
            close_inherited()
            return run(channel)

        try:
            self._pid, self._channel = fork(body, self._log)
        except OSError as error:
            self._log(f"error: cannot start the {self._name}: {why(error)}")
            self._try_later()
        else:
            self.due = math.inf

    def renew(self, is_wanted: bool) -> None:
        """Have the next one take over, if one is wanted, when this one has ended."""
        self._is_renewed = self._pid != 0
        if self._is_renewed:
            self.end_at = time.monotonic() + _TO_END
        self.close_channel()
        self.due = 0.0 if is_wanted and not self._pid else math.inf
        self._is_wanted = is_wanted

    def reap(self, pid: int, trouble: str) -> None:
        """Take note that a process has ended, if it was ours, and when to start the next."""
        if pid == self._pid:
            self._pid = 0
            self.end_at = math.inf
            self.close_channel()
            if self._is_renewed:
                self.due = 0.0 if self._is_wanted else math.inf
                return
            self._try_later()
            what = f"warning: {self._name} {trouble or 'exited unexpectedly'}"
            self._log(f"{what}, restarting it in {self._wait:g} seconds")

    def close_channel(self) -> None:
        """Close our end of the channel: a child of ours must, or the exporter would not end."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def kill(self) -> None:
        """Kill the one that does not end, because it hangs."""
        self._log(f"warning: {self._name} does not end, killing it")
        self.end_at = math.inf
        os.kill(self._pid, signal.SIGKILL)

    def end(self) -> None:
        """End it at once, and have no other."""
        self.due = math.inf
        self.close_channel()
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            with suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pid = 0

    def _try_later(self) -> None:
        now = time.monotonic()
        lived_long = now - self._started > _LONG_LIFE
        self._failures = 1 if lived_long else self._failures + 1
        self._wait = backoff(self._failures)
        self.due = now + self._wait


class Beside:
    """Both of them, as far as they are wanted."""

    def __init__(
        self, config: Callable[[], Config], socket_path: str, numbers: SharedCounters, log: Log
    ) -> None:
        self._config = config
        self._numbers = numbers
        address = config().metrics_listen
        memory = Board("crm-milter-followed")

        # Imported there and not above: it takes ten megabytes that nothing else needs.
        def exporting() -> Run:
            from crm_milter.metrics import http

            folder = state_directory()
            return lambda channel: http.run(address, socket_path, numbers, channel, log, folder)  # type: ignore[arg-type]

        def following() -> Run:
            from crm_milter.daemon import deliveries

            wanted = deliveries.wanted(config())
            boards = (numbers.deliveries, memory)
            return lambda channel: deliveries.run(wanted, state_directory(), boards, channel, log)

        self._exporter = SideProcess("metrics exporter", exporting, log, address is not None)
        self._follower = SideProcess("follower of the mail log", following, log, self._is_followed)
        self._all = (self._exporter, self._follower)

    @property
    def due(self) -> float:
        """Return when to start or kill one (time.monotonic())."""
        return min(min(each.due, each.end_at) for each in self._all)

    def start(self, now: float, close_inherited: Callable[[], None]) -> None:
        """Start what is due and kill what is overdue; ``close_inherited`` as for one."""
        for each in self._all:
            if now >= each.end_at:
                each.kill()
            if now >= each.due:
                each.start(close_inherited)

    def reap(self, pid: int, trouble: str) -> None:
        """Take note that a process has ended, which may be one of these."""
        for each in self._all:
            each.reap(pid, trouble)

    def close_channel(self) -> None:
        """Close our ends of the channels, as a child must."""
        for each in self._all:
            each.close_channel()

    def reloaded(self) -> None:
        """Have the log followed by the rules that are in force now."""
        if not self._is_followed:
            self._numbers.deliveries.clear()
        self._follower.renew(self._is_followed)

    def end(self) -> None:
        """End them at once, and have no others."""
        for each in self._all:
            each.end()

    def revive(self) -> None:
        """Have them again."""
        self._exporter.renew(is_wanted=self._config().metrics_listen is not None)
        self._follower.renew(self._is_followed)

    @property
    def _is_followed(self) -> bool:
        """Tell whether the log is followed: not without an exporter to show what is counted."""
        config = self._config()
        return bool(config.metrics_listen and config.deliveries)
