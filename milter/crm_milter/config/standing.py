"""What the running daemon has in force, in a file of its runtime directory.

``crm-milter reload`` waits there for the answer to its signal, and ``map --in-force`` learns
which configuration was accepted. The file holds digests and the lines of the log; no reader
takes more from it, since another user may read or write it than the one who believes it.
"""

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_NAME = "in-force.json"
_DIRECTORY = "/run/crm-milter"
_MAX_BYTES = 1 << 20
_MAX_LINES = 50


@dataclass(frozen=True, slots=True)
class Standing:
    """``asked`` counts the signals to reload, ``answered`` those that had their reload.

    ``digest`` is that of all files of the configuration in force, ``is_last_good`` tells that it
    is a copy; ``problems`` are those of the last reload if it failed.
    """

    pid: int
    asked: int = 0
    answered: int = 0
    digest: str = ""
    rules: int = 0
    is_last_good: bool = False
    problems: tuple[str, ...] = ()


class Answers:
    """Counts what was asked and answered, and publishes it with what is in force."""

    def __init__(self) -> None:
        self._asked = self._answering = self._answered = 0
        self._problems: tuple[str, ...] = ()

    def ask(self, count: int) -> None:
        """Count signals to reload."""
        self._asked += count

    def begin(self) -> None:
        """Take note that the file is read now: what was asked before has its answer with it."""
        self._answering = self._asked

    def answer(self, *problems: str) -> None:
        """Take note of the result: nothing is wrong, or these problems."""
        self._answered, self._problems = self._answering, problems

    def publish(self, digest: str, rules: int, *, is_last_good: bool) -> None:
        """Write it all to the file."""
        counts = self._asked, self._answered
        publish(Standing(os.getpid(), *counts, digest, rules, is_last_good, self._problems))


def path() -> Path:
    """Return where the file is: below what systemd says, or the usual place."""
    name = os.environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(name or _DIRECTORY) / _NAME


def publish(standing: Standing) -> None:
    """Write the file, if this is a service that has a directory for it."""
    if "RUNTIME_DIRECTORY" not in os.environ:
        return
    place = path()
    draft = place.with_suffix(f".{os.getpid()}")
    data = asdict(standing) | {"problems": standing.problems[:_MAX_LINES]}
    with suppress(OSError):
        draft.write_text(json.dumps(data), encoding="utf-8", errors="backslashreplace")
        draft.rename(place)


def read() -> Standing | None:
    """Return what the file says, None if there is none that makes sense."""
    try:
        descriptor = os.open(path(), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            data = json.loads(stream.read(_MAX_BYTES))
        numbers = {each: int(data[each]) for each in ("pid", "asked", "answered", "rules")}
        problems = tuple(map(str, data["problems"]))
        digest, is_last_good = str(data["digest"]), bool(data["is_last_good"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Standing(**numbers, digest=digest, is_last_good=is_last_good, problems=problems)
