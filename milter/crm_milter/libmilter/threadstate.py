"""Python's view of the C stack in a session's callbacks.

Python 3.14 measures the C stack by the bounds that a thread state was created with, and puts off
freeing containers close to them. pymilter's thread state of a session is used by every thread of
libmilter's pool, so the bounds are those of another thread, and memory leaked with every message.
From 3.14.2 on the bounds can be set; before 3.14 there are none.
"""

import ctypes
import sys
from collections.abc import Callable

_FIRST_WITH_BOUNDS = 0x030E0000
# All addresses that a stack of any thread may have: whatever is called is within the bounds.
_LOWEST = 1 << 16
_SIZE = sys.maxsize - _LOWEST


class UnsupportedPythonError(RuntimeError):
    """Callbacks would leak memory under this version of Python; the text says what to do."""


def stack_protection(
    api: ctypes.PyDLL = ctypes.pythonapi, version: int = sys.hexversion
) -> Callable[[], None]:
    """Return what has to be called in the first callback of each session.

    Raises UnsupportedPythonError under Python 3.14.0 and 3.14.1.
    """
    if version < _FIRST_WITH_BOUNDS:
        return _nothing
    try:
        protect = api.PyUnstable_ThreadState_SetStackProtection
    except AttributeError:
        raise UnsupportedPythonError(
            f"Python {version >> 24}.{version >> 16 & 255}.{version >> 8 & 255} leaks memory in"
            " milters: use Python 3.14.2 or newer, or 3.13"
        ) from None
    current = api.PyThreadState_Get
    current.restype = ctypes.c_void_p
    protect.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    return lambda: protect(current(), _LOWEST, _SIZE) and None


def _nothing() -> None:
    pass
