"""Signals that end a command become an exception, so that what was begun can be undone."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)
_held = False


class Interrupted(BaseException):
    """A signal asked the command to end; the text names it."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise Interrupted on a signal that would end the process."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.getsignal(each) for each in _SIGNALS}
    for each, handler in before.items():
        if handler is not signal.SIG_IGN:  # such as by nohup(1)
            signal.signal(each, _raise)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        _hold(False)


@contextmanager
def uninterruptible() -> Iterator[None]:
    """Ignore such signals: what is being done must be completed."""
    before = _hold(True)
    try:
        yield
    finally:
        _hold(before)


def committed() -> None:
    """Ignore such signals until the command ends: its work is done."""
    _hold(True)


def _hold(wanted: bool) -> bool:
    global _held
    before, _held = _held, wanted
    return before


def _raise(number: int, _frame: FrameType | None) -> None:
    if not _held:
        raise Interrupted(signal.Signals(number).name)
