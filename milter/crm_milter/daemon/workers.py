"""The workers in their generations: one with the rules in force, others that only end.

A generation is complete before the one before is told to end, and has taken over once that
accepts nothing more. A worker of the newest generation that dies is replaced.
"""

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from socket import socket

from crm_milter.config.load import Config
from crm_milter.config.paused import Pauses
from crm_milter.daemon import worker
from crm_milter.daemon.child import Child, ChildState, RestartBackoff, backoff, fork
from crm_milter.daemon.floodtable import FloodTable
from crm_milter.daemon.handover import Store, worker_name
from crm_milter.daemon.lastgood import state_directory
from crm_milter.daemon.processors import configure_scheduling, quota, worker_count
from crm_milter.libmilter.listener import Listener
from crm_milter.libmilter.service import Service
from crm_milter.log import Log
from crm_milter.metrics.counting import WorkerCounters
from crm_milter.metrics.memory import SharedCounters, room_for
from crm_milter.wording import counted, why

_START = 30.0  # seconds in which the workers of a reload have to be ready
_TRIES = 4  # failures after which a reload is given up

# Old workers that wait for their sessions share less and less memory with the others. With more
# than _FEW generations of them the next one waits a little, with _MANY until one has ended:
# no session is cut off before drain_timeout for a reload, and memory has a limit.
_FEW, _MANY = 2, 20
_ROOM = 2.0  # seconds


class Step(Enum):
    """What step() has done about the newest generation."""

    WAITED = "waited"
    TAKEN_OVER = "taken over"
    GAVE_UP = "gave up"  # the generation before serves on; ``trouble`` says why


@dataclass(frozen=True, slots=True)
class _Standby:
    """What to return to if the newest generation cannot start; until when to try that."""

    config: Config
    generation: int
    deadline: float


class Workers:
    """The workers behind one listening socket.

    ``children`` are all that live, ``generation`` is the number of the newest and ``taken_over``
    tells whether that has; ``restarts`` counts the replacements, ``gave_up`` tells that more
    would be pointless. A new child calls ``close_inherited`` to close what is not its own.
    ``adopted`` are those of an earlier supervisor: they serve until the first generation does.
    ``floods`` is the descriptor of the flood guard's table.
    """

    def __init__(
        self,
        config: Config,
        listener: Listener,
        numbers: SharedCounters,
        close_inherited: Callable[[], None],
        log: Log,
        store: Store,
        floods: int,
        adopted: Iterable[tuple[int, socket]] = (),
    ) -> None:
        self.children = [Child(*each, None, 0, 0, ChildState.SERVING) for each in adopted]
        self.generation = self._newest = 1
        self.taken_over = False
        self.restarts = 0
        self.gave_up = False
        self.trouble = ""
        self._listener = listener
        self._numbers = numbers
        self._close_inherited = close_inherited
        self._log = log
        self._store = store
        self._floods = floods
        self._deaths = RestartBackoff()
        self._failures = 0
        self._prepare(config)
        self._standby: _Standby | None = None
        self._ending = False
        self._first_place = os.urandom(1)[0]  # several instances use different CPUs
        self._fork_at = 0.0  # on the clock of time.monotonic()

    def begin(self, config: Config, now: float) -> None:
        """Let a new generation begin; step() does the work."""
        self._standby = _Standby(self._config, self.generation, now + _START)
        self._prepare(config)
        self._newest += 1
        self.generation = self._newest
        self.taken_over = False
        self._failures, self._fork_at = 0, now

    def _prepare(self, config: Config) -> None:
        """Work out, before the fork, what all workers need: each would copy pages that it reads."""
        self._config = config
        self._room = room_for(config.policy.table.rules)

    def step(self, now: float) -> Step:
        """Do what is due."""
        self._end_overdue(now)
        if self._standby is not None and now >= self._standby.deadline:
            self.trouble = f"no new worker was ready within {_START:g} seconds"
            self._failures = _TRIES
        if self._standby is not None and self._failures >= _TRIES:
            self._give_up(self._standby, now)
            return Step.GAVE_UP
        if now >= self._fork_at:
            self._fork_missing(now)
        if self.taken_over or not self._complete():
            return Step.WAITED
        self._standby = None
        before = [each for each in self.children if each.generation != self.generation]
        for child in before:
            child.drain(now, self._config.milter.drain_timeout)
        # Until it says so, one of them may take a new session.
        self.taken_over = not any(each.may_accept(now) for each in before)
        return Step.TAKEN_OVER if self.taken_over else Step.WAITED

    def _give_up(self, standby: _Standby, now: float) -> None:
        failed = self._current()
        self._prepare(standby.config)
        self.generation = standby.generation
        self.taken_over, self._standby = True, None
        self._fork_at = now
        for child in failed:
            child.drain(now, self._config.milter.drain_timeout)

    def _end_overdue(self, now: float) -> None:
        for child in self.children:
            if child.is_deaf(now):
                self._log(f"warning: {child} does not respond, killing it")
            elif now >= child.end_at:
                seconds = counted(self._config.milter.drain_timeout, "second")
                why = f"drain_timeout ({seconds}) exceeded"
                self._log(f"warning: closing the open sessions of {child}: {why}")
            else:
                continue
            child.kill()

    def room_at(self, asked: float) -> float:
        """Return when there may be one more generation, if that was asked for at this time."""
        # One that was adopted has no generation here; each of them may be of another.
        old = {each.generation or -each.pid for each in self.children} - {self.generation}
        if len(old) < _FEW:
            return asked
        return asked + _ROOM if len(old) < _MANY else math.inf

    def ping(self) -> None:
        """Have each that serves say that it is alive; one that is deaf is killed later."""
        for child in self.children:
            child.ping()

    def due(self, now: float) -> float:
        """When step() has something to do, even if nothing happens until then."""
        times = [each.wakes_at(now) for each in self.children]
        if self._missing():
            times.append(self._fork_at)
        if self._standby is not None:
            times.append(self._standby.deadline)
        return min(times, default=math.inf)

    def reap(self, child: Child, trouble: str, now: float) -> None:
        """Take note that a worker has ended, and ``trouble``, if how it did is worth a word."""
        self.children.remove(child)
        child.channel.close()
        self._store.drop(worker_name(child.pid))
        if child.slot is not None:
            self._numbers.reap(child.slot)
        if child.generation == self.generation and self._wanted:
            self._replace(child, trouble or "exited unexpectedly", now)
        elif trouble and not child.was_killed:
            self._log(f"warning: {child} {trouble} while finishing its sessions")

    def _replace(self, child: Child, trouble: str, now: float) -> None:
        if self._standby is not None:
            self._note_failure(f"{child} {trouble}", now)
            return
        self._log(f"warning: {child} {trouble}, starting a new one")
        self.restarts += 1
        self._count_death(now, "died")

    def _note_failure(self, trouble: str, now: float) -> None:
        """Count a worker of a reload that could not start: not a reason to end the others."""
        self.trouble = trouble
        self._failures += 1
        self._fork_at = now + backoff(self._failures + 1)

    def forget(self) -> None:
        """Let go of all rules, in a child that needs none."""
        vars(self).clear()

    def serving(self) -> int:
        """Return how many accept mail."""
        return sum(each.state is ChildState.SERVING for each in self.children)

    def drain(self, now: float) -> None:
        """Let all come to their end, and begin no more."""
        self._ending = True
        self._standby = None
        for child in self.children:
            child.drain(now, math.inf)

    @property
    def _wanted(self) -> int:
        return 0 if self._ending else worker_count(self._config.milter.workers)

    def _current(self) -> list[Child]:
        return [each for each in self.children if each.generation == self.generation]

    def _missing(self) -> int:
        return max(0, self._wanted - len(self._current()))

    def _complete(self) -> bool:
        serving = [each for each in self._current() if each.state is ChildState.SERVING]
        return 0 < self._wanted <= len(serving)

    def _fork_missing(self, now: float) -> None:
        for _ in range(self._missing()):
            try:
                self.children.append(self._fork())
            except OSError as error:
                self._not_started(f"cannot start a worker: {why(error)}", now)
                return

    def _not_started(self, trouble: str, now: float) -> None:
        if self._standby is not None:
            self._note_failure(trouble, now)
            return
        self._log(f"error: {trouble}")
        self._count_death(now, "died or could not be started")

    def _fork(self) -> Child:
        config, wanted = self._config, self._wanted
        place = _lowest_free({each.place for each in self._current()})
        slot = _lowest_free({each.slot for each in self.children if each.slot is not None})
        self._numbers.ensure_row(slot)
        usable = quota()  # here, since to read it there costs a megabyte of its own

        def body(channel: socket) -> int:
            self._close_inherited()
            configure_scheduling(self._first_place + place, wanted, usable)
            tally = WorkerCounters(self._numbers, slot, self._room)
            pauses = Pauses(state_directory())
            counts = config.policy.counts_floods
            floods = FloodTable(self._floods, tell_uncounted=tally.uncounted)
            meter = floods.exceeds if counts else None
            service = Service(config.policy, self._log, tally, pauses, meter)
            descriptor, seconds = self._listener.descriptor, config.milter.drain_timeout
            return worker.run(descriptor, service, channel, seconds)

        pid, channel = fork(body, self._log)
        self._store.keep(channel.fileno(), worker_name(pid))
        return Child(pid, channel, slot, self.generation, place)

    def _count_death(self, now: float, what: str) -> None:
        self._fork_at = now + self._deaths.note(now)
        if self._deaths.exhausted(now):
            many = counted(RestartBackoff.LIMIT, "worker")
            self._log(f"error: {many} {what} within {RestartBackoff.WINDOW:g} seconds, giving up")
            self.gave_up = True


def _lowest_free(taken: set[int]) -> int:
    return next(number for number in range(len(taken) + 1) if number not in taken)
