"""The life of one worker: serve sessions until told to stop, then let them finish.

Its rules never change. Sessions that are open when it is told to stop go on to their own end.
"""

import contextlib
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Sequence

from crm_milter.daemon.child import CLOSED, DRAIN, PING, READY, read
from crm_milter.libmilter.mainloop import (
    Door,
    descriptors,
    is_connection,
    is_idle,
    open_sessions,
    run_libmilter,
    stop_accepting,
    wait_for_any,
)
from crm_milter.libmilter.service import Service
from crm_milter.libmilter.session import register
from crm_milter.log import Log, lines_lost
from crm_milter.rules import regexes
from crm_milter.rules.rule import LiveTable
from crm_milter.wording import counted

_POLL_INTERVAL = 0.05  # seconds between two looks at the sessions while draining
_LOOK = 1.0  # seconds between two looks at the descriptors
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
    libmilter = threading.Thread(target=run_libmilter, args=(stopped, log), daemon=True)
    ours = frozenset(filter(is_connection, descriptors()))
    tables = service.policy.table.live()
    for table in tables:
        table.report_to(log)
    libmilter.start()
    channel.send(READY)
    _serve(channel, running, _Look(service, Door(descriptor, log), tables))
    if not libmilter.is_alive() or wait_for_any(running, seconds=0):
        log("error: libmilter stopped unexpectedly")
        return _EX_SOFTWARE
    stop_accepting(descriptor, libmilter)
    _say(channel, CLOSED)
    _drain(ours, channel, drain_timeout, log)
    return 0


class _Look:
    """What a worker looks at while it serves, and counts."""

    def __init__(self, service: Service, door: Door, tables: Sequence[LiveTable]) -> None:
        self._tally = service.tally
        self._tables = tables
        self._lost = lines_lost()  # by the supervisor, before this process
        self.door = door

    def now(self) -> None:
        if self.door.look():
            self._tally.shut()
        for table in self._tables:
            table.look(time.monotonic())
        before, self._lost = self._lost, lines_lost()
        if self._lost > before:
            self._tally.lost(self._lost - before)


def _serve(channel: socket.socket, running: int, look: _Look) -> None:
    """Return when told to, when the supervisor has gone for good, or with libmilter."""
    while True:
        if not wait_for_any(channel.fileno(), running, seconds=_LOOK):
            look.now()
            continue
        if wait_for_any(running, seconds=0) or read(channel) != PING:
            look.door.close()
            return
        _say(channel, PING)


def _say(channel: socket.socket, word: bytes) -> None:
    with contextlib.suppress(OSError):  # there may be no supervisor any more
        channel.send(word, socket.MSG_DONTWAIT)


def _drain(ours: frozenset[int], channel: socket.socket, timeout: int, log: Log) -> None:
    """Return when no session is open, or, without a supervisor, when their time is over."""
    deadline = math.inf
    while not is_idle(ours):
        if deadline == math.inf and _supervisor_is_gone(channel):
            deadline = time.monotonic() + timeout
        if time.monotonic() >= deadline:
            sessions = counted(sum(1 for _ in open_sessions(ours)), "session")
            log(f"warning: {sessions} still open after {counted(timeout, 'second')}, closing them")
            return
        time.sleep(_POLL_INTERVAL)


def _supervisor_is_gone(channel: socket.socket) -> bool:
    while wait_for_any(channel.fileno(), seconds=0):
        word = read(channel)
        if not word:
            return True
        # One that has taken over does not know that this was said already.
        _say(channel, CLOSED if word == DRAIN else word)
    return False
