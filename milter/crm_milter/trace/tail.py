"""The end of a log file, followed from a position that outlives the process.

A position is the file's number, an offset behind a whole line, and a digest of what is before that.
So a place is found again after a restart: in the file itself, in one that it was renamed to
(logrotate's default) or in the copy made of it before it was truncated (copytruncate).
"""

import hashlib
import os
import stat
import time
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crm_milter.trace.file import DAMAGE, LogError, opened
from crm_milter.trace.records import whole
from crm_milter.trace.sources import with_rotated
from crm_milter.wording import why

_CHUNK = 1 << 18
_LONGEST = 1 << 16  # a longer line is not from a mail log, and is skipped
_PRINT = 256  # bytes before the offset by which a place is known again
_QUIET = 5.0  # seconds
_EVER = datetime.fromtimestamp(0, UTC)

Position = dict[str, Any]  # as JSON has it


def is_place(value: Any) -> bool:
    """Tell whether this is a position, or the lack of one: a file may have been damaged."""
    if value is None:
        return True
    with suppress(LookupError, TypeError, ValueError):
        offset, length, inode = value["offset"], value["length"], value["inode"]
        numbers = (offset, length, *(inode or ()))
        return (
            all(type(each) is int for each in numbers)
            and 0 <= length <= min(offset, _PRINT)
            and offset < 1 << 63
            and (inode is None or len(inode) == 2)
            and isinstance(value["print"], str)
        )
    return False


class Tail:
    """Lines that are appended to a file; without a position, those from now on."""

    def __init__(self, path: Path, position: Position | None = None) -> None:
        self.name = str(path)
        self._path = path
        self._place = position
        self._file: _File | None = None
        self._to_come: list[Path] = []  # after this file, the live one the last

    @property
    def position(self) -> Position | None:
        """Return where the next lines are."""
        return self._file.position if self._file else self._place

    def lines(self) -> list[bytes]:
        """Return the next lines, none if there are no more for now; raises LogError."""
        try:
            file = self._file or self._first()
            if not self._to_come and file.was_rewritten():
                file = self._found({**file.position, "inode": None})
            found = file.lines()
            while not found and (following := self._following(file)):
                file = following
                found = file.lines()
        except DAMAGE as error:
            self.close()
            raise LogError(f"{self._path}: {why(error)}") from error
        return found

    def close(self) -> None:
        """Close the file and remember the position in it."""
        self._place = self.position
        if self._file:
            self._file.close()
            self._file = None

    def _first(self) -> "_File":
        """Open the file with the place that is known, or the live one at its end."""
        if self._place is not None:
            return self._found(self._place)
        try:
            return self._use(_File(self._path, self._path.stat().st_size))
        except FileNotFoundError:
            self._place = _NOWHERE  # once it is made, all of it is new
            raise

    def _found(self, place: Position) -> "_File":
        """Open the file with a place; what was written later is to come."""
        paths = self._paths()
        for path in sorted(paths, key=lambda each: _is_another(each, place)):
            with suppress(*DAMAGE):
                file = _File(path, place["offset"], place["length"])
                if file.is_at(place):
                    return self._use(file, *paths[paths.index(path) + 1 :])
                file.close()
        return self._use(_File(self._path))  # the place is gone: all of it is new

    def _use(self, file: "_File", *to_come: Path) -> "_File":
        if self._file:
            self._file.close()
        self._file = file
        self._to_come = [*to_come]
        return file

    def _following(self, file: "_File") -> "_File | None":
        """Open the next file, if all of this one was read."""
        if len(self._to_come) > 1:
            return self._use(_File(self._to_come[0]), *self._to_come[1:])
        with suppress(FileNotFoundError):
            # A writer goes on with the old file until it is told of the new one, and postlogd(8)
            # with both for a moment.
            new = self._path.stat().st_size and _is_another(self._path, file.position)
            if new and file.is_quiet():
                return file if file.has_more() else self._after(file)
        return None

    def _after(self, file: "_File") -> "_File":
        """Open the file that was written next: the live one, or one that was rotated since."""
        paths = self._paths()
        mine = [each for each in paths if not _is_another(each, file.position)]
        following = paths[paths.index(mine[0]) + 1 :] if mine else [self._path]
        return self._use(_File(following[0]), *following[1:])

    def _paths(self) -> list[Path]:
        """Return the files of the log in the order in which they were written."""
        rotated = [each for each in with_rotated(self._path, _EVER) if each != self._path]
        # While one is being compressed, or was copied, its other form is nothing new.
        return [*(each for each in rotated if each.with_suffix("") not in rotated), self._path]


class _File:
    """A file, compressed or not, from an offset on, before which up to ``length`` bytes are known.

    Raises what DAMAGE holds.
    """

    def __init__(self, path: Path, offset: int = 0, length: int = _PRINT) -> None:
        # Neither opening nor reading one of these waits for anything.
        if not stat.S_ISREG(path.stat().st_mode):
            raise OSError(0, "not a regular file")
        with ExitStack() as files:
            self._raw, unpacked = opened(path, files)
            status = os.fstat(self._raw.fileno())
            self._inode = [status.st_dev, status.st_ino]
            self._stream = unpacked(self._raw)
            self._is_plain = self._stream is self._raw
            self._offset = offset  # behind the last whole line
            start = max(0, offset - length)
            self._stream.seek(start)
            self._before = self._stream.read(offset - start)
            self._open = files.pop_all()
        self._rest = b""  # the beginning of a line
        self._is_skipping = False

    @property
    def position(self) -> Position:
        """Return the place of the next line."""
        digest, length = _digest(self._before), len(self._before)
        return {"inode": self._inode, "offset": self._offset, "print": digest, "length": length}

    def is_at(self, place: Position) -> bool:
        """Tell whether this is the file of a place, or has what that had."""
        mine = self.position
        same_text = [mine[each] for each in _TEXT] == [place[each] for each in _TEXT]
        return same_text and (bool(self._before) or mine["inode"] == place["inode"])

    def lines(self) -> list[bytes]:
        """Return the next lines, none at the end."""
        while chunk := self._stream.read(_CHUNK):
            if found := self._split(chunk):
                return list(whole(found[0], iter(found[1:])))
        return []

    def has_more(self) -> bool:
        """Tell whether something was written since it was at its end."""
        if not self._stream.read(1):
            return False
        self._stream.seek(-1, os.SEEK_CUR)
        return True

    def is_quiet(self) -> bool:
        """Tell whether nothing was written to it lately."""
        return abs(time.time() - os.fstat(self._raw.fileno()).st_mtime) > _QUIET

    def was_rewritten(self) -> bool:
        """Tell whether it was truncated, whatever was written to it since."""
        length = len(self._before)
        # Not by the stream, which has read that before.
        now = os.pread(self._raw.fileno(), length, self._offset - length)
        return self._is_plain and now != self._before

    def close(self) -> None:
        self._open.close()

    def _split(self, chunk: bytes) -> list[bytes]:
        """Return the whole lines up to here, and keep what may become one."""
        text = self._rest + chunk
        end = text.rfind(b"\n") + 1
        done, self._rest = text[:end], text[end:]
        self._advance(done)
        lines = done.split(b"\n")[:-1]
        if self._is_skipping and lines:
            del lines[0]
            self._is_skipping = False
        # Zeros are a hole, left by a writer that went on behind a truncation.
        text = self._rest.lstrip(b"\0")
        self._advance(self._rest[: len(self._rest) - len(text)])
        self._rest = text
        if len(text) > _LONGEST:
            self._advance(text)
            self._rest, self._is_skipping = b"", True
        return [each.lstrip(b"\0") for each in lines]

    def _advance(self, octets: bytes) -> None:
        self._offset += len(octets)
        self._before = (self._before + octets[-_PRINT:])[-_PRINT:]


def _is_another(path: Path, place: Position) -> bool:
    """Tell whether a file has another number than that of a place."""
    with suppress(OSError):
        status = path.stat()
        return [status.st_dev, status.st_ino] != [*(place["inode"] or ())]
    return True


def _digest(octets: bytes) -> str:
    return hashlib.blake2b(octets, digest_size=16).hexdigest()


_TEXT = ("offset", "print", "length")
_NOWHERE: Position = {"inode": None, "offset": 0, "print": _digest(b""), "length": 0}
