"""What was handed in again so far, so that nothing is handed in twice."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STATE = Path("/var/lib/crm-milter")
_NAME = "resent"


class Record:
    """A file with a line for each message: by what it is known, its new queue id, the time."""

    def __init__(self, descriptor: int, path: Path) -> None:
        self._descriptor = descriptor
        self._path = path
        with os.fdopen(os.dup(descriptor), "rb") as file:
            text = file.read().decode("ascii", "replace")
        # A full disk may have cut the last line.
        self._begin = "" if text.endswith("\n") or not text else "\n"
        words = (line.split() for line in text.splitlines())
        self._known = {each[0]: each[1] for each in words if len(each) == 3}

    def queue_id(self, known_as: str) -> str:
        """Return under which queue id a message was handed in, "" if it was not."""
        return self._known.get(known_as, "")

    def add(self, known_as: str, queue_id: str) -> None:
        """Take down that a message was handed in; raises OSError."""
        self._known[known_as] = queue_id or "-"
        line = f"{self._begin}{known_as} {queue_id or '-'} {time.time():.0f}\n"
        try:
            self._append(line.encode())
        except OSError as error:
            error.filename = str(self._path)
            raise
        self._begin = ""

    def _append(self, octets: bytes) -> None:
        os.lseek(self._descriptor, 0, os.SEEK_END)
        if os.write(self._descriptor, octets) < len(octets):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.fsync(self._descriptor)


@contextmanager
def opened() -> Iterator[Record]:
    """Open the record in the state directory, for one process at a time; raises OSError."""
    place = path()
    place.parent.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield Record(descriptor, place)
    finally:
        os.close(descriptor)


def read() -> Record:
    """Return the record as it is now, to be asked only; raises OSError."""
    place = path()
    descriptor = os.open(place if place.exists() else os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return Record(descriptor, place)
    finally:
        os.close(descriptor)


def path() -> Path:
    """Return where the record is."""
    name = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return (Path(name) if name else STATE) / _NAME
