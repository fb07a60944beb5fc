"""One libmilter process: serves sessions until it is told to stop, then lets them finish.

libmilter runs in a thread of its own with the signals blocked, the main thread takes them:
libmilter's own handling would hang open sessions (SIGTERM) or stop serving (SIGHUP).
"""

import os
import select
import signal
import socket
import stat
import threading
import time

import milter

from crm_milter.listener import Listener
from crm_milter.log import Log, fault_line
from crm_milter.routing import Policy
from crm_milter.session import register

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
_TAKEN_SIGNALS = STOP_SIGNALS | {signal.SIGHUP}
_GLANCE = 0.05  # seconds between two looks at the sessions while draining


def serve(listener: Listener, policy: Policy, drain_timeout: float, log: Log) -> int:
    """Serve until SIGTERM or SIGINT, drain, and return the exit status.

    Open sessions get ``drain_timeout`` seconds to end; a second signal ends at once.
    """
    register(policy, log)
    wakeup = _take_signals()
    idle = len(_sockets())
    os.set_blocking(listener.descriptor, False)  # libmilter would block in accept() otherwise
    ended = threading.Event()
    threading.Thread(target=_run_libmilter, args=(ended, log), daemon=True).start()
    log(f"serving {len(policy.table.rules)} rules")
    asked = _wait_for_stop(wakeup, ended, log)
    listener.remove()
    if not asked:
        log("error: libmilter ended by itself")
        return 1
    _stop_accepting(listener.descriptor)
    _drain(wakeup, idle, drain_timeout, log)
    return 0


def _take_signals() -> socket.socket:
    """Install the handlers and return the socket that each signal taken is written to."""
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    receiver.setblocking(False)
    signal.set_wakeup_fd(sender.detach())
    for number in _TAKEN_SIGNALS:
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TAKEN_SIGNALS)
    return receiver


def _run_libmilter(ended: threading.Event, log: Log) -> None:
    # First of all: a signal that this thread or libmilter took would stop the listener.
    signal.pthread_sigmask(signal.SIG_BLOCK, _TAKEN_SIGNALS)
    try:
        milter.main()
    except milter.error as fault:
        log(fault_line("main loop of libmilter", fault))
    finally:
        ended.set()


def _wait_for_stop(wakeup: socket.socket, ended: threading.Event, log: Log) -> bool:
    """Return True once asked to stop, False if libmilter ended before that."""
    while not ended.is_set():
        taken = _signals(wakeup, timeout=1.0)
        if taken & STOP_SIGNALS:
            return True
        if signal.SIGHUP in taken:
            log("reload is not supported yet, restart to read the file again")
    return False


def _signals(wakeup: socket.socket, timeout: float) -> set[int]:
    ready, _, _ = select.select([wakeup], [], [], timeout)
    return set(wakeup.recv(64)) if ready else set()


def _stop_accepting(descriptor: int) -> None:
    """Put a socket that nobody can reach in the place of the one that libmilter accepts from."""
    with socket.socket(socket.AF_UNIX) as unreachable:
        unreachable.bind("")  # an abstract name that nobody was told (unix(7), autobind)
        unreachable.listen(1)
        unreachable.setblocking(False)
        os.dup2(unreachable.fileno(), descriptor)


def _drain(wakeup: socket.socket, idle: int, timeout: float, log: Log) -> None:
    deadline = time.monotonic() + timeout
    while open_sessions := len(_sockets()) - idle:
        if time.monotonic() >= deadline:
            log(f"warning: {open_sessions} sessions did not end within {timeout:g} seconds")
            return
        if _signals(wakeup, _GLANCE) & STOP_SIGNALS:
            log(f"warning: told to stop again, {open_sessions} sessions are cut off")
            return


def _sockets() -> list[int]:
    """Return the open sockets; those of accepted connections not yet counted are among them."""
    return [descriptor for descriptor in _descriptors() if _is_socket(descriptor)]


def _descriptors() -> list[int]:
    return [int(entry.name) for entry in os.scandir("/proc/self/fd")]


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False  # closed meanwhile
