"""The parent: starts the workers, reloads, hands over, and ends in good order.

It has no threads and answers no mail. A reload begins a new generation of workers; a file with
errors, or workers that cannot start, change nothing. What signals, deaths and time ask for is
done in one loop, one thing after the other, in whatever order they come.
"""

import math
import select
import signal
import time
from collections import Counter

from crm_milter.daemon import floodtable, handover
from crm_milter.daemon.beside import Beside
from crm_milter.daemon.child import REPLACE_SIGNAL, STOP_SIGNALS, Child, Signals, ended
from crm_milter.daemon.handover import Inherited, Store, listener_name, worker_name
from crm_milter.daemon.inforce import InForce
from crm_milter.daemon.lastgood import state_directory
from crm_milter.daemon.loading import Loaded, Loader, RefusedError, freeze
from crm_milter.daemon.pausing import PauseLog
from crm_milter.daemon.systemd import notify, watchdog_interval
from crm_milter.daemon.workers import Step, Workers
from crm_milter.libmilter.listener import Listener
from crm_milter.libmilter.opening import ListenError
from crm_milter.log import Log
from crm_milter.metrics.memory import SharedCounters
from crm_milter.wording import counted, why

_SETTLE = 0.1  # seconds in which further SIGHUPs are part of the same reload
_LOOK = 2.0  # seconds between two looks at the socket's file, and at those of the configuration
_PING = 10.0  # seconds between two words to each worker
_EX_GAVE_UP = 1


class Supervisor:
    """The loop of the parent. Its children are the workers, and the processes next to them.

    ``given`` has the workers and the flood table of an earlier supervisor. With a store that is
    used, the workers go on when this process ends.
    """

    def __init__(
        self,
        loader: Loader,
        loaded: Loaded,
        listener: Listener,
        signals: Signals,
        store: Store,
        given: Inherited,
        log: Log,
    ) -> None:
        self._listener = listener
        self._signals = signals
        self._store = store
        self._log = log
        self._numbers = SharedCounters()
        config = loaded.config
        self._rules = InForce(loader, loaded, self._numbers, log)
        self._floods = floodtable.create() if given.floods is None else given.floods
        self._workers = Workers(
            *(config, listener, self._numbers, self._close_inherited, log, store),
            *(self._floods, given.workers),
        )
        self._beside = Beside(config, listener.path, self._numbers, self._forget_rules, log)
        self._pauses = PauseLog(state_directory(), log)
        self._trial = 0  # the process that tries whether this one can be replaced
        self._stopping = False
        self._status = 0
        # When what is due, on the clock of time.monotonic().
        self._reload_at = math.inf
        self._cut_off_at = math.inf
        self._watchdog = watchdog_interval() or math.inf
        self._watchdog_at = time.monotonic() + self._watchdog
        self._look_at = self._ping_at = 0.0

    def run(self) -> int:
        """Do what is asked for until told to stop and the last child has ended."""
        freeze()
        self._store.keep(self._listener.descriptor, listener_name(self._listener.identity))
        self._store.keep(self._floods, handover.FLOODS)
        while not self._stopping or (self._children() and not self._store.is_used):
            self._run_due_tasks(time.monotonic())
            self._wait()
            signals = self._signals.taken()  # first: a child that ends later sends another
            self._reap()
            self._handle_signals(signals)
            if self._workers.gave_up and not self._stopping:
                self._status = _EX_GAVE_UP
                self._stop()
        self._beside.end()
        self._log("stopped")
        return self._status

    def _children(self) -> list[Child]:
        return self._workers.children

    def _close_inherited(self) -> None:
        """Close, in a new child, what belongs to the supervisor alone."""
        for child in self._children():
            child.channel.close()
        self._beside.close_channel()
        self._signals.close()
        self._listener.give_up_lock()

    def _let_go_of_mail(self) -> None:
        """Close the socket for mail as well, in a child beside: a client would wait forever."""
        self._close_inherited()
        self._listener.close()

    def _forget_rules(self) -> None:
        self._rules.forget()
        self._workers.forget()

    def _run_due_tasks(self, now: float) -> None:
        if now >= self._watchdog_at:
            self._ping_watchdog(now)
        if now >= self._cut_off_at:
            seconds = self._rules.config.milter.drain_timeout
            self._kill_sessions(f"drain_timeout ({counted(seconds, 'second')}) exceeded")
        if now >= self._look_at and not self._stopping:
            self._look_at = now + _LOOK
            self._watch_socket(now)
            self._pauses.look()
            if self._reload_at == math.inf and self._rules.has_changed():
                self._log("the configuration has changed, reading it")
                self._reload_at = now
        if now >= self._ping_at:
            self._ping_at = now + _PING
            self._workers.ping()
        if now >= self._reload_due():
            self._reload(now)
        step = self._workers.step(now)
        if step is Step.TAKEN_OVER:
            is_reload = self._workers.generation > 1
            self._rules.taken_over(is_reload=is_reload)
            if is_reload:
                self._beside.reloaded()
        elif step is Step.GAVE_UP:
            self._rules.refuse([], f": {self._workers.trouble}")
            self._beside.refused()
        self._beside.start(now, self._let_go_of_mail)

    def _ping_watchdog(self, now: float) -> None:
        notify("WATCHDOG=1")
        self._watchdog_at = now + self._watchdog

    def _wait(self) -> None:
        """Return when there is something to do; hear what the children say."""
        self._numbers.set_workers(self._workers.serving(), self._workers.restarts)
        poll = select.poll()
        poll.register(self._signals.descriptor, select.POLLIN)
        speakers = {each.channel.fileno(): each for each in self._children() if not each.is_gone}
        for descriptor in speakers:
            poll.register(descriptor, select.POLLIN)
        now = time.monotonic()
        due = min(self._watchdog_at, self._cut_off_at, self._ping_at, self._beside.due)
        due = min(due, self._workers.due(now), math.inf if self._stopping else self._look_at)
        due = min(due, self._reload_due())
        for descriptor, _ in poll.poll(max(0, math.ceil((due - now) * 1000))):
            if descriptor in speakers:
                speakers[descriptor].listen()

    def _reap(self) -> None:
        now = time.monotonic()
        for pid, trouble in ended():
            self._beside.reap(pid, trouble)
            if pid == self._trial:
                self._tried(trouble)
            # As process 1 of a container we inherit the children of others as well.
            for child in [each for each in self._children() if each.pid == pid]:
                self._workers.reap(child, trouble, now)
        # The end of those that are not children of this process is only heard.
        for child in [each for each in self._children() if each.is_gone and each.slot is None]:
            self._workers.reap(child, "", now)

    def _handle_signals(self, signals: Counter[int]) -> None:
        for _ in range(sum(signals[number] for number in STOP_SIGNALS)):
            if self._stopping:
                self._kill_sessions("second stop signal received")
            else:
                self._stop()
        if self._stopping:
            return
        if signals[signal.SIGHUP]:
            self._reload_at = min(self._reload_at, time.monotonic() + _SETTLE)
            self._rules.ask(signals[signal.SIGHUP])
        if signals[REPLACE_SIGNAL] and not self._trial:
            self._try_to_replace()

    # The rules

    def _reload_due(self) -> float:
        """Return when to read the file again: after the reload before, and with room for more."""
        ready = self._workers.taken_over
        return self._workers.room_at(self._reload_at) if ready else math.inf

    def _reload(self, now: float) -> None:
        """Read the file; if it is good, let a generation begin with it."""
        self._reload_at = math.inf
        if self._watchdog < math.inf:
            self._ping_watchdog(now)  # a long file keeps us busy for seconds
        try:
            config = self._rules.read()
        except RefusedError as refused:
            self._rules.refuse(refused.lines)
            return
        self._beside.prepare(config)
        freeze()
        self._workers.begin(config, time.monotonic())

    # The socket

    def _watch_socket(self, now: float) -> None:
        """Listen again if the socket's file is gone; end if that cannot be."""
        lost = self._listener.is_lost()
        self._numbers.lost_socket(lost)
        if not lost or not self._workers.taken_over:
            return
        self._log(f'error: "{self._listener.path}" is no longer this socket, listening again')
        before = listener_name(self._listener.identity)
        try:
            self._listener.bind()
        except ListenError as error:
            self._log(f"error: {error}, giving up")
            self._status = _EX_GAVE_UP
            self._stop()
            return
        self._numbers.lost_socket(is_lost=False)
        self._store.drop(before)
        self._store.keep(self._listener.descriptor, listener_name(self._listener.identity))
        self._workers.begin(self._rules.config, now)

    # The end

    def _try_to_replace(self) -> None:
        try:
            self._trial = handover.trial()
        except OSError as error:
            self._log(f"error: cannot start the program again: {why(error)}")

    def _tried(self, trouble: str) -> None:
        """Become the program as it is installed now, if it has shown that it can start."""
        self._trial = 0
        if self._stopping:
            return
        if trouble:
            self._log(f"error: the program cannot replace itself, it {trouble}")
            return
        self._log("replacing this process, open sessions go on")
        self._beside.end()
        self._listener.give_up_lock()
        descriptors = {each.channel.fileno(): worker_name(each.pid) for each in self._children()}
        descriptors[self._floods] = handover.FLOODS
        descriptors[self._listener.descriptor] = listener_name(self._listener.identity)
        try:
            handover.become(descriptors)
        except OSError as error:
            self._log(f"error: cannot replace this process: {why(error)}")
            self._beside.revive()

    def _stop(self) -> None:
        """Accept no more, and give the open sessions their time; or leave both to the next."""
        now, seconds = time.monotonic(), self._rules.config.milter.drain_timeout
        self._stopping = True
        self._reload_at = math.inf
        if self._store.is_used:
            self._log("stopping, the workers go on until they are replaced or systemd stops them")
            notify("STOPPING=1", "STATUS=stopping")
            return
        self._cut_off_at = now + seconds
        self._listener.remove()
        self._workers.drain(now)
        self._log(f"stopping, waiting up to {counted(seconds, 'second')} for open sessions")
        notify("STOPPING=1", "STATUS=stopping, waiting for open sessions")

    def _kill_sessions(self, reason: str) -> None:
        self._cut_off_at = math.inf
        if self._children():
            workers = counted(len(self._children()), "worker")
            self._log(f"warning: closing the open sessions of {workers}: {reason}")
        for child in self._children():
            child.kill()
