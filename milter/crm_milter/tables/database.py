"""A SQLite file as it is read here: never changed, never waited for longer than is said.

A connection belongs to one state of the file, by its number, size and time: a file that was
replaced or overwritten is opened again.
"""

import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

from crm_milter.wording import why

Version = tuple[int, int, int, int]

_LOCKED = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_POLL_INTERVAL = 0.01  # seconds between two looks at a lock
_CACHE = 256  # KiB of each connection; the system keeps the file's pages as well
_STEPS = 20_000  # of SQLite's machine between two looks at the time
_WAL = 2  # in bytes 18 and 19 of the file (sqlite.org/fileformat2.html)

# Regardless of case, as addresses are; an index that helps is one "COLLATE NOCASE".
ROUTE = "SELECT target FROM routes WHERE address = ? COLLATE NOCASE LIMIT 101"
_DOMAIN = "substr(address, length(rtrim(address, replace(address, '@', ''))) + 1)"
_DOMAINS = f"SELECT DISTINCT lower({_DOMAIN}) FROM routes"  # noqa: S608 - nothing of others


def version(path: Path) -> Version:
    """Return what tells one state of a regular file from another; raises OSError."""
    status = os.stat(path)  # noqa: PTH116 - asked for every recipient
    if not stat.S_ISREG(status.st_mode):  # to open a FIFO would wait for a writer
        raise OSError(0, "is not a regular file")
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


class Connection:
    """A connection that only reads; one thread at a time may use it."""

    def __init__(self, path: Path, opened: Version) -> None:
        self.version = opened
        self._deadline = 0.0
        self._base = sqlite3.connect(
            f"file:{quote(os.fsencode(path))}?mode=ro",
            uri=True,
            timeout=0,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=8,
        )
        self._base.text_factory = _text
        self._is_set = False
        self._base.set_progress_handler(self._is_overdue, _STEPS)

    def rows(self, query: str, *values: str, patience: float) -> list[tuple[object, ...]]:
        """Return the rows within so many seconds; raises sqlite3.Error."""
        self._deadline = time.monotonic() + patience
        while True:
            try:
                if not self._is_set:  # not at once: even this waits for a lock
                    self._base.execute(f"PRAGMA cache_size = -{_CACHE}")
                    self._is_set = True
                return self._base.execute(query, values).fetchall()
            except sqlite3.OperationalError as error:
                code = getattr(error, "sqlite_errorcode", 0) & 0xFF
                if code not in _LOCKED or self._is_overdue():
                    raise
            time.sleep(_POLL_INTERVAL)

    def stream(self, query: str) -> Iterator[tuple[object, ...]]:
        """Yield the rows, however long that takes."""
        self._deadline = float("inf")
        yield from self._base.execute(query)

    def _is_overdue(self) -> bool:
        return time.monotonic() > self._deadline

    def close(self) -> None:
        """Close it; what it did not need was not opened."""
        self._base.close()

    def __del__(self) -> None:
        with suppress(AttributeError):  # a file that could not be opened
            self.close()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


@contextmanager
def connected(path: Path) -> Iterator[Connection]:
    """Give a connection for a while; raises OSError for whatever is wrong with the file."""
    connection = None
    try:
        connection = Connection(path, version(path))
        yield connection
    except sqlite3.Error as error:
        raise OSError(0, trouble(path, error)) from error
    finally:
        if connection is not None:
            connection.close()


def domains(path: Path, patience: float) -> list[str]:
    """Return the domains of a table: those that it lists, or else those of its addresses.

    Raises OSError, also if the file has no such table.
    """
    with connected(path) as connection:
        connection.rows(ROUTE, "", patience=patience)  # is there what is asked for later?
        listed = connection.rows(
            "SELECT 1 FROM sqlite_master WHERE name = 'domains'", patience=patience
        )
        query = "SELECT domain FROM domains" if listed else _DOMAINS
        return [str(domain) for (domain,) in connection.stream(query) if domain]


def trouble(path: Path, error: Exception) -> str:
    """Return what is wrong with a file, in words."""
    if isinstance(error, OSError):
        return why(error)
    reason = str(error)
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_INTERRUPT:
        return "took too long"
    if _cannot_be_opened(error) and is_wal(path):
        return f"{reason}: it is in WAL mode, which needs the right to write in its directory"
    return reason


def _cannot_be_opened(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)


def is_wal(path: Path) -> bool:
    """Tell whether a database is in WAL mode (sqlite.org/wal.html)."""
    try:
        with path.open("rb") as stream:
            return stream.read(20)[18:20] == bytes((_WAL, _WAL))
    except OSError:
        return False
