"""One file of log lines, compressed or not, read line by line.

A stream that can be read only once is copied first. A damaged file is read as far as possible,
with a warning; a file that grows, is rotated or is truncated while it is read is followed.
"""

import bz2
import gzip
import importlib
import io
import json
import lzma
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from crm_milter.trace.lines import Line, Parser
from crm_milter.trace.records import whole
from crm_milter.wording import why

Warn = Callable[[str], None]

FEW = 64  # words that are sought one by one; beyond, ids are looked up
_LONGEST_LINE = 1 << 20
_HEAD = 200  # lines in which the first time is looked for
_ANY_ID = re.compile(rb"\b[0-9A-Za-z]{6,20}(?=: )")
_ZSTANDARD = b"\x28\xb5\x2f\xfd"
OPENERS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
DAMAGE = (OSError, EOFError, lzma.LZMAError, zlib.error)


class LogError(Exception):
    """The mail log cannot be read; the text says which and why."""


class LogFile:
    """A file; ``warn`` is called once if it is damaged. Raises LogError if it cannot be opened."""

    def __init__(
        self, path: Path, since: datetime | None = None, warn: Warn = lambda _: None
    ) -> None:
        self.name = str(path)
        self._path = path
        self._since = since
        self._warn = warn
        self._open = ExitStack()
        self._start = 0
        self._rotated: LogFile | None = None
        self._damaged = False
        try:
            self._raw, self._unpacked = opened(path, self._open)
            newest = path.stat().st_mtime if path.is_file() else None
        except DAMAGE as error:
            self._open.close()
            raise LogError(f"{path}: {why(error)}") from error
        now = datetime.now(UTC)
        self._newest = datetime.fromtimestamp(newest, UTC) if newest else now
        self._parser = Parser(self._newest, self.name)

    def begin(self) -> tuple[datetime, datetime]:
        """Return the time of the first line that has one, and of the last: an order of files."""
        parser = Parser(self._newest)
        for octets, _ in zip(self._octets(), range(_HEAD), strict=False):
            if time := parser.line(octets).time:
                return time, self._newest
        return self._newest, self._newest

    def holds(self, wanted: Callable[[Line], bool]) -> bool:
        """Tell whether there is such a line."""
        return any(map(wanted, map(self._parser.line, self._octets())))

    def is_empty(self) -> bool:
        return next(self._octets(), None) is None and not self._damaged

    def forget(self) -> None:
        """Skip what the file holds now; raises LogError."""
        if self._unpacked is not _as_it_is:
            raise LogError(
                f"{self.name} is compressed, so no new lines will appear: name the live log"
            )
        self._start = self._raw.seek(0, io.SEEK_END)

    def lines(self, words: Iterable[str], fold: bool = False) -> Iterator[Line]:
        """Yield the lines that hold one of the words, regardless of case with ``fold``."""
        sought = "|".join(map(re.escape, _as_written(words))).encode()
        found = re.compile(sought, re.IGNORECASE if fold else 0).search
        for octets in self._octets():
            if found(octets):
                yield from self._parsed(octets)

    def entries(self, queue_ids: frozenset[str]) -> Iterator[Line]:
        """Yield the lines of messages; lines that lead to them as well if these are few."""
        if len(queue_ids) <= FEW:
            yield from self.lines(queue_ids)
            return
        wanted = {each.encode() for each in queue_ids}
        for octets in self._octets():
            if not wanted.isdisjoint(_ANY_ID.findall(octets)):
                yield from self._parsed(octets)

    def close(self) -> None:
        self._open.close()
        if self._rotated:
            self._rotated.close()

    def _parsed(self, octets: bytes) -> Iterator[Line]:
        line = self._parser.line(octets)
        if not (self._since and line.time and line.time < self._since):
            yield line

    def _octets(self) -> Iterator[bytes]:
        yield from self._own_octets()
        if self._start:
            self._look_for_a_new_file()
        if self._rotated:
            yield from self._rotated._octets()

    def _own_octets(self) -> Iterator[bytes]:
        try:
            self._raw.seek(self._start)
            stream = self._unpacked(self._raw)
            lines = iter(partial(stream.readline, _LONGEST_LINE), b"")
            first = next(lines, b"")
            yield from whole(first, lines)
        except DAMAGE as error:
            if not self._damaged:
                self._warn(f"{self.name}: {why(error)}, read only as far as that")
            self._damaged = True

    def _look_for_a_new_file(self) -> None:
        with suppress(OSError):
            mine = self._raw.seek(0, io.SEEK_END)
            if mine < self._start:  # truncated, as by logrotate's copytruncate
                self._start = 0
            elif self._rotated is None and not _same_file(self._raw, self._path):
                self._rotated = LogFile(self._path, self._since, self._warn)


def _same_file(stream: BinaryIO, path: Path) -> bool:
    return not path.is_file() or Path(f"/proc/self/fd/{stream.fileno()}").samefile(path)


def _as_written(words: Iterable[str]) -> list[str]:
    """Return words as a log may have them: also as JSON escapes a quoted local part."""
    found = list(words)
    return [*found, *(json.dumps(each)[1:-1] for each in found if '"' in each or "\\" in each)]


def _as_it_is(stream: BinaryIO) -> BinaryIO:
    return stream


def opened(path: Path, files: ExitStack) -> tuple[BinaryIO, Callable[[BinaryIO], BinaryIO]]:
    """Return a stream that can be read again, and what unpacks it from its beginning."""
    stream: BinaryIO = files.enter_context(path.open("rb"))
    if not stream.seekable():
        aside = files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        shutil.copyfileobj(stream, aside)
        aside.seek(0)
        stream = aside
    magic = stream.read(8)
    stream.seek(0)
    if magic == b"LPKSHHRH":
        raise OSError(0, f"is a file of the journal; try --log <(journalctl --file {path})")
    if magic.startswith(_ZSTANDARD):
        return stream, _zstandard(path)
    for start, opener in OPENERS:
        if magic.startswith(start):
            return stream, cast("Callable[[BinaryIO], BinaryIO]", opener)
    return stream, _as_it_is


class _Zstandard(io.RawIOBase):
    """A stream of either library, whose errors are those of a file."""

    def __init__(self, stream: Any, error: type[Exception]) -> None:
        self._stream = stream
        self._error = error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return int(self._stream.readinto(buffer))
        except self._error as error:
            raise OSError(0, str(error)) from error


def _zstandard(path: Path) -> Callable[[BinaryIO], BinaryIO]:
    with suppress(ImportError):  # Python 3.14
        standard: Any = importlib.import_module("compression.zstd")
        return lambda raw: io.BufferedReader(_Zstandard(standard.open(raw), standard.ZstdError))
    try:
        library: Any = importlib.import_module("zstandard")
    except ImportError:
        hint = f"use --log <(zstdcat {path}), or install python3-zstandard"
        raise OSError(0, f"zstd is not supported; {hint}") from None

    def unpacked(raw: BinaryIO) -> BinaryIO:
        unpacker = library.ZstdDecompressor()
        stream = unpacker.stream_reader(raw, read_across_frames=True, closefd=False)
        return io.BufferedReader(_Zstandard(stream, library.ZstdError))

    return unpacked
