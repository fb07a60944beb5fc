"""The workers in their generations: one with the rules in force, others that only end.

A generation is complete before the one before is told to end, and has taken over once that
accepts nothing more. A worker of the newest generation that dies is replaced.
"""

import math
import os
from collections.abc import Callable
from socket import socket

from crm_milter import worker
from crm_milter.children import Child, Deaths, State, fork
from crm_milter.config import Config
from crm_milter.cpus import settle, worker_count
from crm_milter.listener import Listener
from crm_milter.log import Log, counted
from crm_milter.metrics import Numbers
from crm_milter.session import Service
from crm_milter.tally import UNCOUNTED, Tally


class Workers:
    """The workers behind one listening socket.

    ``children`` are all that live, ``generation`` is the number of the newest and ``taken_over``
    tells whether that has; ``restarts`` counts the replacements, ``hopeless`` tells that more
    would be in vain. A new child calls ``let_go`` to close what is not its own.
    """

    def __init__(
        self,
        config: Config,
        listener: Listener,
        numbers: Numbers,
        let_go: Callable[[], None],
        log: Log,
    ) -> None:
        self.children: list[Child] = []
        self.generation = 1
        self.taken_over = False
        self.restarts = 0
        self.hopeless = False
        self._listener = listener
        self._numbers = numbers
        self._let_go = let_go
        self._log = log
        self._deaths = Deaths()
        self._config = config
        self._counts = config.metrics_listen is not None
        self._ending = False
        self._first_place = os.urandom(1)[0]  # several instances use different processors
        self._fork_at = 0.0  # on the clock of time.monotonic()

    def begin(self, config: Config) -> None:
        """Let a new generation begin; tend() does the work."""
        self._config = config
        self.generation += 1
        self.taken_over = False

    def tend(self, now: float) -> bool:
        """Do what is due; return True when the newest generation has just taken over."""
        if now >= self._fork_at:
            self._fork_missing(now)
        if self.taken_over or not self._complete():
            return False
        before = [each for each in self.children if each.generation != self.generation]
        for child in before:
            child.drain()
        # Until it says so, one of them may take a new session.
        self.taken_over = not any(each.state is State.CLOSING for each in before)
        return self.taken_over

    @property
    def due(self) -> float:
        """When tend() has something to do, even if nothing happens until then."""
        return self._fork_at if self._missing() else math.inf

    def bury(self, child: Child, trouble: str, now: float) -> None:
        """Take note that a worker has ended, and ``trouble``, if how it did is worth a word."""
        self.children.remove(child)
        child.channel.close()
        self._numbers.bury(child.slot)
        if child.generation == self.generation and self._wanted:
            self._log(f"warning: {child} {trouble or 'exited unexpectedly'}, starting a new one")
            self._count_death(now)
        elif trouble:
            self._log(f"warning: {child} {trouble} while finishing its sessions")

    def serving(self) -> int:
        """Return how many accept mail."""
        return sum(each.state is State.SERVING for each in self.children)

    def drain(self) -> None:
        """Let all come to their end, and begin no more."""
        self._ending = True
        for child in self.children:
            child.drain()

    @property
    def _wanted(self) -> int:
        return 0 if self._ending else worker_count(self._config.milter.workers)

    def _current(self) -> list[Child]:
        return [each for each in self.children if each.generation == self.generation]

    def _missing(self) -> int:
        return max(0, self._wanted - len(self._current()))

    def _complete(self) -> bool:
        serving = [each for each in self._current() if each.state is State.SERVING]
        return 0 < self._wanted <= len(serving)

    def _fork_missing(self, now: float) -> None:
        for _ in range(self._missing()):
            try:
                self.children.append(self._fork())
            except OSError as error:
                self._log(f"error: cannot start a worker: {(error.strerror or '').lower()}")
                self._count_death(now)
                return

    def _fork(self) -> Child:
        config, wanted = self._config, self._wanted
        place = _lowest_free({each.place for each in self._current()})
        slot = _lowest_free({each.slot for each in self.children})
        self._numbers.admit(slot)

        def body(channel: socket) -> int:
            self._let_go()
            settle(self._first_place + place, wanted)
            rules = config.policy.table.rules
            tally = Tally(self._numbers, slot, rules) if self._counts else UNCOUNTED
            service = Service(config.policy, self._log, tally)
            descriptor, seconds = self._listener.descriptor, config.milter.drain_timeout
            return worker.run(descriptor, service, channel, seconds)

        pid, channel = fork(body, self._log)
        return Child(pid, channel, slot, self.generation, place)

    def _count_death(self, now: float) -> None:
        self.restarts += 1
        self._fork_at = now + self._deaths.note(now)
        if self._deaths.too_many(now):
            died = f"{counted(Deaths.LIMIT, 'worker')} died within {Deaths.WINDOW:g} seconds"
            self._log(f"error: {died}, giving up")
            self.hopeless = True


def _lowest_free(taken: set[int]) -> int:
    return next(number for number in range(len(taken) + 1) if number not in taken)
