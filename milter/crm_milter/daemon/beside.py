"""Starts the processes next to the workers, restarts those that exit, and ends them.

One serves the metrics, one follows Postfix's log. Neither has any part in the mail.
"""

import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from socket import MSG_DONTWAIT, socket

from crm_milter.config.load import Config
from crm_milter.daemon.child import RELOADED, backoff, fork, read
from crm_milter.daemon.lastgood import state_directory
from crm_milter.log import Log, error_line
from crm_milter.metrics.memory import Board, SharedCounters
from crm_milter.wording import why

_LONG_LIFE = 60.0  # seconds after which a death is a first one again
_TO_END = 5.0  # seconds that one has to end when the next one waits for that


Run = Callable[[socket], int]


class SideProcess:
    """A process as the supervisor sees it.

    ``due`` is when to start one, ``end_at`` when to kill the one that is there, both on the clock
    of time.monotonic(). ``run`` is what it does until it is hung up on, None if none is wanted.
    """

    def __init__(self, name: str, run: Run | None, log: Log) -> None:
        self.run = run
        self._name = name
        self._log = log
        self._pid = 0
        self._channel: socket | None = None
        self._started = 0.0
        self._failures = 0
        self._wait = 0.0
        self._is_renewed = False
        self.due = self._at_once()
        self.end_at = math.inf

    def start(self, close_inherited: Callable[[], None]) -> None:
        """Start one; ``close_inherited`` closes there what belongs to others."""
        self._started, self._is_renewed = time.monotonic(), False
        run = self.run
        if run is None:
            self.due = math.inf
            return

        def body(channel: socket) -> int:
            close_inherited()
            return run(channel)

        try:
            self._pid, self._channel = fork(body, self._log)
        except OSError as error:
            self._log(f"error: cannot start the {self._name}: {why(error)}")
            self._try_later()
        else:
            self.due = math.inf

    def tell_reloaded(self) -> None:
        """Tell it that its rules are in force no more."""
        if self._channel is not None:
            with suppress(OSError):  # it has ended, or hangs
                self._channel.send(RELOADED, MSG_DONTWAIT)

    def renew(self) -> None:
        """Have the next one take over, if one is wanted, when this one has ended."""
        self._is_renewed = self._pid != 0
        if self._is_renewed:
            self.end_at = time.monotonic() + _TO_END
        self.close_channel()
        self.due = math.inf if self._pid else self._at_once()

    def reap(self, pid: int, trouble: str) -> None:
        """Take note that a process has ended, if it was ours, and when to start the next."""
        if pid == self._pid:
            self._pid = 0
            self.end_at = math.inf
            self.close_channel()
            if self._is_renewed:
                self.due = self._at_once()
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

    def _at_once(self) -> float:
        return math.inf if self.run is None else 0.0

    def _try_later(self) -> None:
        now = time.monotonic()
        lived_long = now - self._started > _LONG_LIFE
        self._failures = 1 if lived_long else self._failures + 1
        self._wait = backoff(self._failures)
        self.due = now + self._wait


class Beside:
    """Both of them, as far as they are wanted. ``forget`` lets go, in a child, of all rules."""

    def __init__(
        self,
        config: Config,
        socket_path: str,
        numbers: SharedCounters,
        forget: Callable[[], None],
        log: Log,
    ) -> None:
        self._address = config.metrics_listen
        self._socket_path = socket_path
        self._numbers = numbers
        self._memory = Board("crm-milter-followed")
        self._forget = forget
        self._log = log
        self._next = self._following(config)
        exporting = None if self._address is None else self._prepared(self._exporting)
        self._exporter = SideProcess("metrics exporter", exporting, log)
        self._follower = SideProcess("follower of the mail log", self._next, log)
        self._all = (self._exporter, self._follower)

    def prepare(self, config: Config) -> None:
        """Take what is needed of the next rules, before the fork: who reads them copies them."""
        self._next = self._following(config)

    def refused(self) -> None:
        """Take note that the next rules do not come into force."""
        self._next = self._follower.run

    def _following(self, config: Config) -> Run | None:
        # Without an exporter nothing shows what is counted.
        is_wanted = self._address is not None and config.deliveries
        return self._prepared(partial(self._following_by, config)) if is_wanted else None

    def _prepared(self, make: Callable[[], Run]) -> Run:
        """Return what one of them runs; what cannot be made here fails there, and stops no mail."""
        try:
            return make()
        except Exception as fault:
            self._log(error_line("preparation", fault))
            return lambda channel: make()(channel)

    # What they run is imported where it is wanted, and before the fork: so the pages are shared.

    def _exporting(self) -> Run:
        from crm_milter.metrics import http

        def run(channel: socket) -> int:
            where, folder = (self._address, self._socket_path), state_directory()
            hear = partial(self._hear, channel)
            return http.run(*where, self._numbers, channel, hear, self._log, folder)  # type: ignore[arg-type]

        return run

    def _following_by(self, config: Config) -> Run:
        from crm_milter.daemon import deliveries

        wanted, boards = deliveries.wanted(config), (self._numbers.deliveries, self._memory)
        return lambda channel: deliveries.run(wanted, state_directory(), boards, channel, self._log)

    def _hear(self, channel: socket) -> bool:
        """Hear, in the exporter, what the supervisor says; return whether it is over.

        The exporter outlives rules: when others are in force it lets go of those of its start, so
        that many of them are not kept. Not before, for pages that it writes are shared no more.
        """
        if not read(channel):
            return True
        self._forget()
        self._next = self._follower.run = None
        return False

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
        """Have the log followed by the rules that are in force now, and those before forgotten."""
        self._follower.run = self._next
        if self._next is None:
            self._numbers.deliveries.clear()
        self._follower.renew()
        self._exporter.tell_reloaded()

    def end(self) -> None:
        """End them at once, and have no others."""
        for each in self._all:
            each.end()

    def revive(self) -> None:
        """Have them again."""
        for each in self._all:
            each.renew()
