"""Keeps an exporter running beside the workers, whatever becomes of it, and ends it at the end."""

import math
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from socket import socket

from crm_milter.daemon.child import backoff, fork
from crm_milter.log import Log
from crm_milter.metrics.memory import Numbers
from crm_milter.wording import why

_LONG_LIFE = 60.0  # seconds after which a death is a first one again


class Keeper:
    """The exporter as the supervisor sees it; ``due`` is when to start one (time.monotonic())."""

    def __init__(
        self, address: tuple[str, int] | None, socket_path: str, numbers: Numbers, log: Log
    ) -> None:
        self._socket_path = socket_path
        self._address = address
        self._numbers = numbers
        self._log = log
        self._pid = 0
        self._channel: socket | None = None
        self._started = 0.0
        self._failures = 0
        self._wait = 0.0
        self.due = math.inf if address is None else 0.0

    def start(self, let_go: Callable[[], None]) -> None:
        """Start one; ``let_go`` closes there what belongs to the supervisor and the workers."""
        address, self._started = self._address, time.monotonic()
        if address is None:
            return

        def body(channel: socket) -> int:
            let_go()
            # Here and not above: it takes ten megabytes that nobody else needs.
            from crm_milter.metrics import http

            return http.run(address, self._socket_path, self._numbers, channel, self._log)

        try:
            self._pid, self._channel = fork(body, self._log)
        except OSError as error:
            self._log(f"error: cannot start the metrics exporter: {why(error)}")
            self._try_later()
        else:
            self.due = math.inf

    def bury(self, pid: int, trouble: str) -> None:
        """Take note that a process has ended, if it was ours, and when to start the next."""
        if pid == self._pid:
            self._pid = 0
            self.hang_up()
            self._try_later()
            what = f"warning: metrics exporter {trouble or 'exited unexpectedly'}"
            self._log(f"{what}, restarting it in {self._wait:g} seconds")

    def hang_up(self) -> None:
        """Close our end of the channel: a child of ours must, or the exporter would not end."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def end(self) -> None:
        """End it at once, and have no other."""
        self.due = math.inf
        self.hang_up()
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
