"""The parent: opens the socket, starts the workers, reloads, and ends in good order.

It has no threads and answers no mail. A reload begins a new generation of workers; a file with
errors changes nothing. What signals, deaths and time ask for is done in one loop, one thing
after the other, in whatever order they come.
"""

import contextlib
import gc
import math
import os
import resource
import select
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from crm_milter.children import STOP_SIGNALS, Child, Signals, ended
from crm_milter.config import Config, ConfigError, load
from crm_milter.cpus import worker_count
from crm_milter.keeper import Keeper
from crm_milter.listener import Listener
from crm_milter.log import Log, counted, fault_line
from crm_milter.metrics import Numbers, digest_of
from crm_milter.notify import notify, reloading, watchdog_interval
from crm_milter.problem import Problem, Severity
from crm_milter.workers import Workers

_SETTLE = 0.1  # seconds in which further SIGHUPs are part of the same reload
_EX_GAVE_UP = 1


def serve(path: Path, config: Config, log: Log) -> int:
    """Serve until SIGTERM or SIGINT and return the exit status; raises ListenError.

    ``config`` is what ``path`` holds now.
    """
    _allow_many_sessions()
    signals = Signals()  # first: who finds the socket may also send a signal
    settings = config.milter
    listener = Listener(settings.listen, settings.socket_mode, settings.socket_group)
    return Supervisor(path, config, listener, signals, log).run()


class Supervisor:
    """The loop of the parent. Its children are the workers, and the exporter beside them."""

    def __init__(
        self, path: Path, config: Config, listener: Listener, signals: Signals, log: Log
    ) -> None:
        self._path = path
        self._config = self._config_at_start = config
        self._listener = listener
        self._signals = signals
        self._log = log
        self._numbers = Numbers()
        self._numbers.loaded(digest_of(path), config.policy.table.rules)
        self._workers = Workers(config, listener, self._numbers, self._let_go, log)
        self._exporter = Keeper(config.metrics_listen, self._numbers, log)
        self._stopping = False
        self._status = 0
        # When what is due, on the clock of time.monotonic().
        self._reload_at = math.inf
        self._cut_off_at = math.inf
        self._watchdog = watchdog_interval() or math.inf
        self._watchdog_at = time.monotonic() + self._watchdog

    def run(self) -> int:
        """Do what is asked for until told to stop and the last child has ended."""
        _freeze()
        while not self._stopping or self._children():
            self._do_what_is_due(time.monotonic())
            self._wait()
            signals = self._signals.taken()  # first: a child that ends later sends another
            self._bury()
            self._obey(signals)
            if self._workers.hopeless and not self._stopping:
                self._status = _EX_GAVE_UP
                self._stop()
        self._exporter.end()
        self._log("stopped")
        return self._status

    def _children(self) -> list[Child]:
        return self._workers.children

    def _let_go(self) -> None:
        """Close, in a new child, what belongs to the supervisor alone."""
        for child in self._children():
            child.channel.close()
        self._exporter.hang_up()
        self._signals.close()
        self._listener.give_up_lock()

    def _let_go_of_mail(self) -> None:
        """Close, in the exporter, also the socket for mail: who connected would wait for ever."""
        self._let_go()
        os.close(self._listener.descriptor)

    def _do_what_is_due(self, now: float) -> None:
        if now >= self._watchdog_at:
            self._feed_watchdog(now)
        if now >= self._cut_off_at:
            seconds = self._config.milter.drain_timeout
            self._cut_off(f"drain_timeout ({counted(seconds, 'second')}) exceeded")
        if now >= self._reload_at and self._workers.taken_over:
            self._reload()
        if self._workers.tend(now):
            again = self._workers.generation > 1
            self._log(f"{'reloaded, ' if again else ''}serving {self._size()}")
            notify("READY=1", f"STATUS=serving {self._size()}")
        if now >= self._exporter.due:
            self._exporter.start(self._let_go_of_mail)

    def _feed_watchdog(self, now: float) -> None:
        notify("WATCHDOG=1")
        self._watchdog_at = now + self._watchdog

    def _wait(self) -> None:
        """Return when there is something to do; hear what the children say."""
        self._numbers.staffed(self._workers.serving(), self._workers.restarts)
        poll = select.poll()
        poll.register(self._signals.descriptor, select.POLLIN)
        speakers = {each.channel.fileno(): each for each in self._children() if each.owes_word}
        for descriptor in speakers:
            poll.register(descriptor, select.POLLIN)
        due = min(self._watchdog_at, self._cut_off_at, self._workers.due, self._exporter.due)
        if self._workers.taken_over:
            due = min(due, self._reload_at)
        seconds = max(0.0, due - time.monotonic())
        for descriptor, _ in poll.poll(None if due == math.inf else math.ceil(seconds * 1000)):
            if descriptor in speakers:
                speakers[descriptor].listen()

    def _bury(self) -> None:
        for pid, trouble in ended():
            self._exporter.bury(pid, trouble)
            # As process 1 of a container we inherit the children of others as well.
            for child in [each for each in self._children() if each.pid == pid]:
                self._workers.bury(child, trouble, time.monotonic())

    def _obey(self, signals: Counter[int]) -> None:
        for _ in range(sum(signals[number] for number in STOP_SIGNALS)):
            if self._stopping:
                self._cut_off("second stop signal received")
            else:
                self._stop()
        if signals[signal.SIGHUP] and not self._stopping:
            self._reload_at = min(self._reload_at, time.monotonic() + _SETTLE)

    # The rules

    def _reload(self) -> None:
        """Read the file; if it is good, let a generation begin with it."""
        self._reload_at = math.inf
        if self._watchdog < math.inf:
            self._feed_watchdog(time.monotonic())  # a long file keeps us busy for seconds
        reloading()
        digest = digest_of(self._path)
        try:
            config = load(self._path)
        except ConfigError as error:
            self._refuse_reload(list(map(_line, error.problems)))
        except Exception as fault:  # whatever it is, the mail goes on
            self._refuse_reload([fault_line("reload", fault)])
        else:
            if self._config.policy.table.rules and not config.policy.table.rules:
                # More likely a file that is just being written, or a full disk, than a wish.
                reason = (
                    "the file no longer contains any rules; if that is intended, restart crm-milter"
                )
                self._refuse_reload([f"error: {self._path}: {reason}"])
                return
            for problem in config.warnings:
                self._log(_line(problem))
            for key in _changed_for_good(self._config_at_start, config):
                self._log(f"warning: {self._path}: {key}: changed; takes effect after a restart")
            self._config = config
            self._numbers.loaded(digest, config.policy.table.rules)
            _freeze()
            self._workers.begin(config)

    def _refuse_reload(self, lines: list[str]) -> None:
        for line in lines:
            self._log(line)
        self._numbers.reload_failed()
        self._log("error: reload failed, keeping the previous rules")
        notify("READY=1", f"STATUS=serving {self._size()}, the last reload failed")

    def _size(self) -> str:
        rules, workers = len(self._config.policy.table.rules), self._config.milter.workers
        return f"{counted(rules, 'rule')} with {counted(worker_count(workers), 'worker')}"

    # The end

    def _stop(self) -> None:
        """Accept no more, and give the open sessions their time."""
        seconds = self._config.milter.drain_timeout
        self._stopping = True
        self._reload_at = math.inf
        self._cut_off_at = time.monotonic() + seconds
        self._listener.remove()
        self._workers.drain()
        self._log(f"stopping, waiting up to {counted(seconds, 'second')} for open sessions")
        notify("STOPPING=1", "STATUS=stopping, waiting for open sessions")

    def _cut_off(self, why: str) -> None:
        self._cut_off_at = math.inf
        if self._children():
            workers = counted(len(self._children()), "worker")
            self._log(f"warning: closing the open sessions of {workers}: {why}")
        for child in self._children():
            child.kill()


def _allow_many_sessions() -> None:
    """Raise the limit of open descriptors: a session is one, and the default is low."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # then there may be fewer
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _freeze() -> None:
    """Keep the collector of children off what they share with us: a page written is copied."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _changed_for_good(before: Config, now: Config) -> list[str]:
    """Return the keys that differ and only count at the start."""
    pairs = {
        "milter.listen": (before.milter.listen, now.milter.listen),
        "milter.socket_mode": (before.milter.socket_mode, now.milter.socket_mode),
        "milter.socket_group": (before.milter.socket_group, now.milter.socket_group),
        "metrics.listen": (before.metrics_listen, now.metrics_listen),
    }
    return [key for key, (old, new) in pairs.items() if old != new]


def _line(problem: Problem) -> str:
    """Return a problem as a line of the log, where the level comes first."""
    return f"{problem.severity.value}: {replace(problem, severity=Severity.ERROR)}"
