"""One stream of log lines on stderr: whole lines, and a full disk under it hurts no mail."""

import contextlib
import os
import traceback
from collections.abc import Callable
from pathlib import PurePath

from crm_milter.wording import printable

Log = Callable[[str], None]

_STDERR = 2


def stderr_log(prefix: str = "") -> Log:
    """Return a function that writes one line to stderr, after a prefix."""

    def write(line: str) -> None:
        # One write a line, so that lines of several threads and processes do not mix.
        with contextlib.suppress(OSError):
            os.write(_STDERR, f"{prefix}{line}\n".encode("utf-8", "backslashreplace"))

    return write


def fault_line(stage: str, fault: BaseException) -> str:
    """Return the line for an exception that no one expected: what, and where it came from."""
    frames = traceback.extract_tb(fault.__traceback__)[-3:]
    places = ", ".join(f"{PurePath(each.filename).name}:{each.lineno}" for each in frames)
    return f"error: at {stage}: {printable(repr(fault))} ({places})"
