"""Rules that are paused: a file in the state directory, written by a command, read by workers.

It says until when, so that a pause ends by itself, and survives a restart. It is looked at a few
times a second at most, and only when a rule matches.
"""

import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from crm_milter.config.atomic import replace
from crm_milter.routing.decision import NONE_PAUSED

GLANCE = 0.2  # seconds between two looks
_DIRECTORY = "/var/lib/crm-milter"
_NAME = "paused.json"
_HELD = "held."
_MAX_BYTES = 1 << 20
_LATEST = 10**11  # seconds; no calendar has much more


class Pause(NamedTuple):
    """One rule's; times are seconds since the epoch."""

    since: float
    until: float
    hold: bool = False
    why: str = ""


def folder() -> Path:
    """Return the state directory of the service: what systemd says, or the usual place."""
    return Path(os.environ.get("STATE_DIRECTORY", "").partition(":")[0] or _DIRECTORY)


def read(directory: Path) -> dict[str, Pause]:
    """Return all pauses by rule, those that have ended as well; {} if nothing makes sense."""
    try:
        with (directory / _NAME).open("rb") as stream:
            found = json.loads(stream.read(_MAX_BYTES))
        return {
            str(rule): Pause(float(since), float(until), bool(hold), str(why))
            for rule, (since, until, hold, why) in found.items()
            if 0 <= since <= until < _LATEST
        }
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def current(directory: Path) -> dict[str, Pause]:
    """Return the pauses that have not ended, and those for which mail is held."""
    now = time.time()
    found = read(directory).items()
    return {rule: pause for rule, pause in found if now < pause.until or held(directory, rule)}


def paused_now() -> Mapping[str, bool]:
    """Return, for commands, the rules that are paused, and whether their mail is held."""
    return Pauses(folder()).now()


def write(directory: Path, pauses: Mapping[str, Pause]) -> None:
    """Replace the file; raises OSError. The service must be able to read it."""
    data = {rule: list(pause) for rule, pause in pauses.items()}
    replace(directory / _NAME, json.dumps(data).encode(), mode=0o644)


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Let only one command at a time read the pauses and write them; raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class Pauses:
    """What is paused now, for all threads of a worker; without a directory nothing ever is."""

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._look_at = 0.0
        self._state: tuple[int, ...] = ()
        self._known: dict[str, Pause] = {}

    def now(self) -> Mapping[str, bool]:
        """Return the rules that are paused, and whether their mail is held."""
        if self._directory is None:
            return NONE_PAUSED
        known = self._look(self._directory)
        if not known:
            return NONE_PAUSED
        now = time.time()
        return {rule: pause.hold for rule, pause in known.items() if now < pause.until}

    def _look(self, directory: Path) -> dict[str, Pause]:
        now = time.monotonic()
        if now < self._look_at:
            return self._known
        self._look_at = now + GLANCE
        state: tuple[int, ...] = ()
        with suppress(OSError):
            found = os.stat(directory / _NAME)  # noqa: PTH116 - asked often
            state = (found.st_ino, found.st_mtime_ns, found.st_size)
        if state != self._state:
            self._known = read(directory) if state else {}
            self._state = state
        return self._known

    def note_held(self, queue_id: str, rules: Iterable[str]) -> None:
        """Note a message that is held for rules, for the command that releases it."""
        if self._directory is None:
            return
        for rule in set(rules):
            with (self._directory / f"{_HELD}{rule}").open("a") as stream:
                stream.write(f"{queue_id} {time.time():.0f}\n")


def held(directory: Path, rule: str) -> dict[str, float]:
    """Return the messages that were held for a rule by queue id, and when."""
    try:
        lines = (directory / f"{_HELD}{rule}").read_text("ascii", "replace").splitlines()
    except OSError:
        return {}
    words = (line.split() for line in lines)
    return {each[0]: float(each[1]) for each in words if len(each) == 2 and each[1].isdecimal()}


def forget_held(directory: Path, rule: str) -> None:
    """Forget the messages that were held for a rule; raises OSError."""
    (directory / f"{_HELD}{rule}").unlink(missing_ok=True)
