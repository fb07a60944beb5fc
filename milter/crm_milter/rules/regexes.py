"""RE2: found whenever it is needed, and asked in a Python thread if it insists on one.

pymilter keeps one Python thread state per session, and libmilter serves the session in any thread
of its pool, so PyGILState_Check() is false in most callbacks. An extension module that relies on
it, as Debian's build of RE2 does, then fails at random. A question to a thread of its own costs
some 20 us, so a build that does not check is called directly.
"""

import importlib
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from types import ModuleType
from typing import Any

_Answer = tuple[Any, Exception | None]


def module() -> ModuleType | None:
    """Return RE2, None if it is not installed. It may be installed while the program runs."""
    importlib.invalidate_caches()
    try:
        return importlib.import_module("re2")
    except ImportError:
        return None


_CLASS = re.compile(r"\[\^?\]?(?:\[:\^?\w+:\]|\\.|[^\]\\])*\]")


def blanked(expression: str) -> str:
    r"""Return an expression with "x" for what is escaped or in a class: it opens and ends nothing.

    Not for one with ``\\Q``, which quotes all that follows.
    """
    plain = re.sub(r"\\.", _blank, expression, flags=re.DOTALL)
    return _CLASS.sub(_blank, plain)


def has_outer_bar(expression: str) -> bool:
    """Tell whether an expression has alternatives outside of all groups."""
    if "\\Q" in expression:  # what is quoted is not known
        return "|" in expression
    depth = 0
    for character in blanked(expression):
        depth += (character == "(") - (character == ")")
        if character == "|" and depth == 0:
            return True
    return False


def _blank(found: re.Match[str]) -> str:
    return "x" * len(found[0])


def options(re2: ModuleType, **values: int) -> Any:
    """Return options for expressions that ignore case, without messages on stderr."""
    chosen = re2.Options()
    chosen.case_sensitive = False
    chosen.log_errors = False
    for name, value in values.items():
        setattr(chosen, name, value)
    return chosen


def checks_thread_state(extension: ModuleType) -> bool:
    """Tell whether an extension module calls PyGILState_Check: it then fails in callbacks."""
    return b"PyGILState_Check" in Path(extension.__file__ or "/dev/null").read_bytes()


class _OwnThread:
    """Calls functions in a Python thread, one after the other."""

    def __init__(self) -> None:
        self._questions: SimpleQueue[
            tuple[SimpleQueue[_Answer], Callable[..., Any], tuple[Any, ...]]
        ] = SimpleQueue()
        thread = Thread(target=self._answer, name="re2", daemon=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        thread.start()  # with all signals blocked: they are the main thread's
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any:
        answer: SimpleQueue[_Answer] = SimpleQueue()
        self._questions.put((answer, function, arguments))
        value, error = answer.get()
        if error is not None:
            raise error
        return value

    def _answer(self) -> None:
        while True:
            answer, function, arguments = self._questions.get()
            try:
                answer.put((function(*arguments), None))
            except Exception as error:  # it is the caller's
                answer.put((None, error))


def _directly(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


_ask: Callable[..., Any] = _directly


def ask(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function that uses RE2, where RE2 can be called; returns and raises what it does."""
    return _ask(function, *arguments)


def serve_callbacks() -> None:
    """Make ask() usable in callbacks of libmilter. Call it in the process that serves them.

    RE2 was found by now if a rule needs it: nothing more is loaded for others.
    """
    global _ask
    re2 = sys.modules.get("re2")
    if re2 is not None and checks_thread_state(re2._re2):
        _ask = _OwnThread()
