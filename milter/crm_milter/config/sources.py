"""Where the files of a configuration come from: the disk, or a copy that was kept.

A file is copied into memory before it is read, so that what is parsed, what the digest says and
what is kept are the same bytes, whatever happens to the file meanwhile.
"""

import hashlib
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from crm_milter.wording import why

MAX_BYTES = 256 * 1024 * 1024
_TIMEOUT = 2.0  # seconds to wait for a lock on a database
_CHUNK = 1 << 20


State = tuple[int, int, int, int] | None  # of a file; None: it cannot be read


def state(status: os.stat_result) -> State:
    """Return what tells one state of a file from another."""
    return status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def state_of(name: str | Path) -> State:
    """Return the state of a file as it is now; that it may be read is a part of it."""
    try:
        found = state(os.stat(name))  # noqa: PTH116 - asked often
        return found if os.access(name, os.R_OK, effective_ids=True) else None
    except OSError:
        return None


class Sources(Protocol):
    """Every method raises OSError for what is not there or cannot be read."""

    def open(self, path: Path, most: int = MAX_BYTES) -> BinaryIO:
        """Return the bytes of a regular file, ``most`` at most; never waits."""

    def names(self, folder: Path) -> list[str]:
        """Return the names of the files in a directory."""

    def find(self, path: Path) -> None:
        """Return if there is such a file."""

    def domains(self, path: Path) -> "Found":
        """Return the domains of a table in a database."""


class Found(NamedTuple):
    """The domains of a table, and why they are those that it had before, if they are."""

    domains: list[str]
    trouble: str = ""


class Remembered(Protocol):
    """What was kept of an earlier configuration."""

    def domains(self, path: Path) -> Found:
        """Return the domains that a table in a database had; raises OSError."""


class Disk:
    """The files as they are now. With ``keep``, what was read can be kept.

    ``before`` has the domains of the tables that cannot be read now. ``databases`` are the files
    that are read later, ``tables`` the digests of what was read of them.
    """

    def __init__(self, *, keep: bool = False, before: Remembered | None = None) -> None:
        self.digests: dict[str, str] = {}
        self.seen: dict[str, State] = {}  # what was asked for, there or not
        self.tables: dict[str, str] = {}
        self.databases: list[str] = []
        self.folders: dict[str, list[str]] = {}
        self.copies: dict[str, BinaryIO] = {}
        self._keep = keep
        self._before = before

    def open(self, path: Path, most: int = MAX_BYTES) -> BinaryIO:
        """Return a copy of a regular file in memory."""
        name = key(path)
        self.seen[name] = state_of(path)  # also of what cannot be opened, such as a socket
        # Without O_NONBLOCK, opening a FIFO would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            self.seen[name] = state(status)
            if not stat.S_ISREG(status.st_mode):
                directory = stat.S_ISDIR(status.st_mode)
                raise OSError(0, "is a directory" if directory else "is not a regular file")
            if status.st_size > most:
                raise OSError(0, f"larger than {most >> 20} MiB")
            copy, digest = copied(stream, most)
        self.digests[name] = digest
        if self._keep and name not in self.copies:
            self.copies[name] = os.fdopen(os.dup(copy.fileno()), "rb")
        return copy

    def names(self, folder: Path) -> list[str]:
        """Return the names of the files in a directory."""
        self.folders[key(folder)] = []
        names = sorted(os.listdir(folder))  # noqa: PTH208 - names are what is compared
        self.folders[key(folder)] = names
        return names

    def find(self, path: Path) -> None:
        """Return if there is such a file."""
        self.seen.setdefault(key(path), state_of(path))
        path.stat()

    def domains(self, path: Path) -> Found:
        """Return the domains of a table in a database, those of before if it cannot be read."""
        from crm_milter.tables import database  # here: SQLite takes memory that few need

        self.databases.append(key(path))
        try:
            found = Found(database.domains(path, _TIMEOUT))
        except OSError as error:
            found = self._remembered(path, error)
        if self._keep:
            name = domains_key(path)
            listed = "\n".join(found.domains).encode("utf-8", "surrogateescape")
            self.copies[name] = copy = os.fdopen(os.memfd_create("crm-milter-domains"), "w+b")
            copy.write(listed)
            copy.seek(0)
            self.tables[name] = hashlib.sha256(listed).hexdigest()
        return found

    def _remembered(self, path: Path, error: OSError) -> Found:
        if self._before is not None:
            with suppress(OSError):
                return self._before.domains(path)._replace(trouble=why(error))
        raise error

    def forget(self) -> None:
        """Give the memory of the copies back."""
        for copy in self.copies.values():
            copy.close()
        self.copies.clear()

    def digest(self) -> str:
        """Return one digest of all the files that were read, names included."""
        entries = (f"{digest} {name}\n" for name, digest in sorted(self.digests.items()))
        return hashlib.sha256("".join(entries).encode("utf-8", "surrogateescape")).hexdigest()


def key(path: Path) -> str:
    """Return the name by which a file is known."""
    return os.path.normpath(path.absolute())


def domains_key(path: Path) -> str:
    """Return the name by which the domains of a table are kept."""
    return f"{key(path)} domains"


def copied(stream: BinaryIO, most: int = MAX_BYTES) -> tuple[BinaryIO, str]:
    """Return a copy in memory and its SHA-256 in hexadecimal; raises OSError if it is too long."""
    copy = os.fdopen(os.memfd_create("crm-milter-source"), "w+b")
    os.fchmod(copy.fileno(), stat.S_IMODE(os.fstat(stream.fileno()).st_mode))
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK):
        digest.update(chunk)
        copy.write(chunk)
        if copy.tell() > most:  # it has grown
            copy.close()
            raise OSError(0, f"larger than {most >> 20} MiB")
    copy.seek(0)
    return copy, digest.hexdigest()
