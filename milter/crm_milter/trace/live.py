"""Where Postfix's log is written now, to be followed: files, the journal, or both."""

import os
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from crm_milter.trace import journal_tail, tail
from crm_milter.trace.file import LogError
from crm_milter.trace.journal_tail import JournalTail
from crm_milter.trace.sources import PLACES, has_journal, live_file
from crm_milter.trace.tail import Tail

_TIMEOUT = 10  # seconds for postconf(1)


class Live(Protocol):
    """A log that is followed; ``position`` is where the next lines are, as JSON has it."""

    name: str

    @property
    def position(self) -> Any: ...

    def lines(self) -> list[bytes]:
        """Return the next lines, none if there are no more for now; raises LogError."""

    def close(self) -> None:
        """Close it; ``lines`` continues from the same position."""


def sources(logs: tuple[str, ...], positions: Mapping[str, Any]) -> list[Live]:
    """Return what ``metrics.deliveries`` names, from where it was left; raises LogError.

    Next to a file the journal is read for the lines of crm-milter alone.
    """
    logs = _found() if logs == ("auto",) else logs
    # A file is followed once, however often and by whatever name it is given.
    files = {os.path.realpath(each): each for each in logs if each != "journal"}.values()
    found: list[Live] = [Tail(Path(each), positions.get(each)) for each in files]
    if "journal" in logs:
        place = positions.get(JournalTail.name)
        found.append(JournalTail(place, ours_alone=bool(files)))
    return found


def checked(positions: Any) -> dict[str, Any]:
    """Return positions as they were saved; raises ValueError if there is one that cannot be."""
    for name, place in dict(positions).items():
        is_place = journal_tail.is_place if name == JournalTail.name else tail.is_place
        if not is_place(place):
            raise ValueError(f"the place in {name} is damaged")
    return dict(positions)


def _found() -> tuple[str, ...]:
    """Return which logs can be read; raises LogError."""
    path = live_file(_maillog_file())
    logs = [str(path)] if path and os.access(path, os.R_OK) else []
    if has_journal() and JournalTail.is_readable():
        logs.append("journal")
    if not logs:
        tried = f"{path} cannot be read, nor the journal" if path else f"none of {_tried()}"
        raise LogError(f"no mail log found ({tried}); see metrics.deliveries")
    return tuple(logs)


def _tried() -> str:
    return f"{', '.join(PLACES)} and the journal"


def _maillog_file() -> str:
    """Return where Postfix writes its log itself, "" if it does not (postconf(5))."""
    with suppress(OSError, subprocess.TimeoutExpired):
        done = subprocess.run(
            ["postconf", "-h", "maillog_file"],  # noqa: S607
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        return done.stdout.strip()
    return ""
