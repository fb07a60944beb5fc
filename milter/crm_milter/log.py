"""One stream of log lines on stderr: whole lines, and a full disk under it hurts no mail.

The first word of a line is its level: "error:", "warning:", else it is a plain message. Under
systemd it becomes the priority that the journal understands (sd-daemon(3)).
"""

import contextlib
import os
import select
import stat
import traceback
from collections.abc import Callable
from pathlib import PurePath

from crm_milter.wording import counted, printable

Log = Callable[[str], None]

_STDERR = 2
# LOG_ERR, LOG_WARNING and, for what starts with none of the words, LOG_INFO (syslog(3)).
_PRIORITIES = ((b"error: ", b"<3>"), (b"warning: ", b"<4>"))
_INFO = b"<6>"
_LONGEST = select.PIPE_BUF - len(_INFO + b"\n")  # longer writes to a pipe mix with others (pipe(7))
_CUT = b"..."
_TIMEOUT = 0.5  # seconds to wait for room, before the first line that is dropped


class _Stderr:
    """Writes whole lines; mail never waits long for a reader that is slow or gone."""

    lost = 0  # by this process and, before it began, by the one that it comes from

    def __init__(self) -> None:
        self._to_journal = is_journal(_STDERR)
        self._can_fill = _is_pipe_or_socket(_STDERR)
        self._dropped = 0

    def __call__(self, line: str) -> None:
        """Write one line, or drop and count it if nothing reads what was written before."""
        if not self._has_room():
            self._dropped += 1
            _Stderr.lost += 1
            return
        if self._dropped:
            dropped, self._dropped = self._dropped, 0
            lost = f"{counted(dropped, 'line')} of the log lost"
            self._write(f"warning: {lost}: nothing read standard error")
        self._write(line)

    def _has_room(self) -> bool:
        # A pipe or a socket that can be written takes a whole line (pipe(7), PIPE_BUF).
        if not self._can_fill:
            return True
        poll = select.poll()
        poll.register(_STDERR, select.POLLOUT)
        return bool(poll.poll(0 if self._dropped else _TIMEOUT * 1000))

    def _write(self, line: str) -> None:
        octets = line.encode("utf-8", "backslashreplace")
        if len(octets) > _LONGEST:
            kept = octets[: _LONGEST - len(_CUT)].decode("utf-8", "ignore")
            octets = kept.encode() + _CUT
        priority = _priority(octets) if self._to_journal else b""
        # One write a line, so that lines of several threads and processes do not mix.
        with contextlib.suppress(OSError):
            os.write(_STDERR, b"%b%b\n" % (priority, octets))


def stderr_log() -> Log:
    """Return a function that writes one line to stderr, with a priority where that is a journal."""
    return _Stderr()


def lines_lost() -> int:
    """Return how many lines were dropped so far."""
    return _Stderr.lost


def _is_pipe_or_socket(descriptor: int) -> bool:
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def is_journal(descriptor: int) -> bool:
    """Tell whether systemd connected this descriptor to its journal (systemd.exec(5))."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def error_line(stage: str, fault: BaseException) -> str:
    """Return the line for an exception that no one expected: what, and where it came from."""
    frames = traceback.extract_tb(fault.__traceback__)[-3:]
    places = ", ".join(f"{PurePath(each.filename).name}:{each.lineno}" for each in frames)
    return f"error: internal error at {stage}: {printable(repr(fault))} ({places})"


def _priority(octets: bytes) -> bytes:
    for word, priority in _PRIORITIES:
        if octets.startswith(word):
            return priority
    return _INFO
