"""How many workers a machine can use, and how each of them uses its processor."""

import contextlib
import os
from pathlib import Path

# The lock of an interpreter is handed between its threads, and between processors that is slow:
# a worker that stays put does twice the work of one that wanders (tests/bench).
PIN = True

_MAX_WORKERS = 4
_CGROUPS = Path("/sys/fs/cgroup")


def worker_count(asked: int | None) -> int:
    """Return how many workers to run: as many as asked for, else one a usable processor."""
    return asked or min(_MAX_WORKERS, len(os.sched_getaffinity(0)))


def configure_scheduling(place: int, workers: int, usable: float) -> None:
    """Make this process, worker number ``place`` of so many, do its work in few strokes.

    Places may count from any number; ``usable`` is what quota() returned. A sandbox may forbid any
    of it, which only costs speed.
    """
    with contextlib.suppress(OSError):
        # A thread that wakes up would interrupt the one that holds the interpreter's lock, only
        # to wait for that (sched(7)). Another policy was chosen by an administrator.
        if os.sched_getscheduler(0) == os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with contextlib.suppress(OSError):
        _pin(place, workers, usable)


def _pin(place: int, workers: int, usable: float) -> None:
    """Keep the worker on one processor, unless a quota allows less than one a worker."""
    processors = sorted(os.sched_getaffinity(0))
    if PIN and len(processors) > 1 and usable >= min(workers, len(processors)):
        os.sched_setaffinity(0, {processors[place % len(processors)]})


def quota() -> float:
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
