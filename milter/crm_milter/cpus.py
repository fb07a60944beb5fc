"""How many workers a machine can use, and which processor each of them stays on."""

import contextlib
import os
from pathlib import Path

# Two workers that stay put do twice the work of two that wander: the lock of an interpreter is
# handed between threads, and between processors that is slow (tests/bench).
PIN = True

_MOST_WORKERS = 4
_CGROUPS = Path("/sys/fs/cgroup")


def worker_count(asked: int | None) -> int:
    """Return how many workers to run: as many as asked for, else one a usable processor."""
    return asked or min(_MOST_WORKERS, len(os.sched_getaffinity(0)))


def pin(place: int, workers: int) -> None:
    """Keep this process, worker number ``place`` of so many, on a processor of its own.

    Does nothing where workers would have to share one, or all are slowed by a quota.
    """
    usable = sorted(os.sched_getaffinity(0))
    if PIN and 2 <= workers <= len(usable) and place < workers <= _quota():
        with contextlib.suppress(OSError):  # a sandbox may forbid it; it only costs speed
            os.sched_setaffinity(0, {usable[place]})


def _quota() -> float:
    """Return how many processors' worth of time the control groups allow (cgroups(7), cpu.max)."""
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="ascii").partition("0::/")[2].strip()
    except (OSError, UnicodeDecodeError):
        return float("inf")
    folder = _CGROUPS / own
    return min(_limit(each / "cpu.max") for each in (folder, *folder.parents))


def _limit(path: Path) -> float:
    try:
        allowed, period = path.read_text(encoding="ascii").split()
        return int(allowed) / int(period)
    except (OSError, ValueError):  # not there, or "max"
        return float("inf")
