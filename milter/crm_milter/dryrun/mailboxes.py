"""Old mail, message by message: mbox files, Maildirs, single messages, compressed or from a pipe.

Of each message only the header is kept, of a mailbox nothing: memory does not grow with either. A
damaged mailbox is read as far as it goes, with a warning.
"""

import os
import re
import stat
import sys
from codecs import BOM_UTF8
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from crm_milter.trace.file import DAMAGE, OPENERS
from crm_milter.wording import counted, why

Warn = Callable[[str], None]
Advance = Callable[[int], None]  # told how many octets of a source were read

STDIN = "-"
_CHUNK = 1 << 18
_MAX_HEADER = 1 << 20
_LONGEST_SEPARATOR = 1024
# A line "From " with a date stands between two messages; one without is a sentence.
_SEPARATOR = re.compile(rb"From [^\r\n]*\d\d:\d\d[^\r\n]*\d{4}[^\r\n]*\r?\n?")
_HEADER_END = re.compile(rb"\n\r?\n")
# What tells the header of a lone message from another file that has words with colons.
_OF_MAIL = re.compile(
    rb"(?im)^(?:return-path|received|delivered-to|x-original-to|from|to|cc|date|subject"
    rb"|message-id)[ \t]*:"
)
_BEGINNING = re.compile(rb"From |[!-9;-~]+[ \t]*:")
_SIZE = re.compile(r",S=(\d{1,15})")
_TIME = re.compile(r"(\d{9,11})\.")


class OldMail(NamedTuple):
    """A message: where it is, its header as it stands there, its size in octets."""

    where: str
    header: bytes
    size: int
    stamp: str = ""  # what the mailbox itself says of its time


def messages(source: str, warn: Warn, advance: Advance = lambda _: None) -> Iterator[OldMail]:
    """Yield the messages of a mailbox; raises OSError if it cannot be read at all."""
    path = Path(source)
    if source == STDIN:
        yield from _stream(sys.stdin.buffer, "stdin", warn, advance)
    elif path.is_dir():
        yield from _maildir(path, warn, advance)
    else:
        with path.open("rb") as stream:
            yield from _stream(stream, source, warn, advance)


def octets(source: str) -> int:
    """Return how many octets ``advance`` will be told of, 0 if that is not known."""
    try:
        status = Path(source).stat()
    except OSError:  # it is said when it is read
        return 0
    return status.st_size if source != STDIN and stat.S_ISREG(status.st_mode) else 0


class _Counted:
    """A stream that tells how far it was read."""

    def __init__(self, stream: BinaryIO, advance: Advance) -> None:
        self._stream = stream
        self._advance = advance

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._advance(len(data))
        return data


def _stream(raw: BinaryIO, name: str, warn: Warn, advance: Advance) -> Iterator[OldMail]:
    peeked = raw.peek(8) if isinstance(raw, BufferedReader) else b""
    opener = next((each for magic, each in OPENERS if peeked.startswith(magic)), None)
    counted = cast("BinaryIO", _Counted(raw, advance))
    try:
        with ExitStack() as stack:
            stream = stack.enter_context(opener(raw)) if opener else counted
            yield from _Mbox(cast("BinaryIO", stream), name).messages()
    except _NoMailboxError:
        warn(f"{name}: neither a mailbox nor a message")
    except DAMAGE as error:
        reason = why(error) if isinstance(error, OSError) else str(error)
        warn(f"{name}: damaged, read only as far as that ({reason})")


class _NoMailboxError(Exception):
    """A file has no message: it begins with neither a separator nor the header of one."""


class _Mbox:
    """Takes a stream apart at its separators."""

    def __init__(self, stream: BinaryIO, name: str) -> None:
        self._stream = stream
        self._name = name
        self._number = 0
        self._separator = b""
        self._begin(b"")

    def _begin(self, separator: bytes) -> None:
        self._separator = separator
        self._header = bytearray()
        self._has_header = False
        self._size = 0

    def messages(self) -> Iterator[OldMail]:
        data = self._beginning()
        if not data:
            return
        if not _BEGINNING.match(data):
            raise _NoMailboxError
        is_mailbox = data.startswith(b"From ")
        if is_mailbox:
            line, _, data = data.partition(b"\n")
            self._begin(line)
        before = b""
        is_last = False
        while not is_last:
            chunk = self._stream.read(_CHUNK)
            is_last = not chunk
            data += chunk
            start = 0
            end = len(data) if is_last else max(len(data) - _LONGEST_SEPARATOR, 0)
            while found := self._next(data, before, start, end):
                is_mailbox = True
                self._take(data[start : found.start()])
                yield self._mail(is_mailbox=True)
                self._begin(found[0])
                start = found.end()
            end = max(end, start)
            self._take(data[start:end])
            before, data = (before + data[max(end - 4, 0) : end])[-4:], data[end:]
        if not is_mailbox and not _OF_MAIL.search(self._header):
            raise _NoMailboxError
        yield self._mail(is_mailbox)

    def _beginning(self) -> bytes:
        """Return enough for a first separator, without an editor's mark and empty lines."""
        data = b""
        while len(data) < _LONGEST_SEPARATOR and (chunk := self._stream.read(_CHUNK)):
            data = (data + chunk).removeprefix(BOM_UTF8).lstrip(b"\r\n")
        return data

    def _next(self, data: bytes, before: bytes, start: int, end: int) -> re.Match[bytes] | None:
        """Return the next separator that begins before ``end``: there is an empty line above."""
        at = start - 1
        while (at := data.find(b"From ", at + 1, end + 4)) >= 0 and at < end:
            above = data[max(at - 4, 0) : at] if at >= 4 else before + data[:at]
            if above.endswith((b"\n\n", b"\n\r\n")):
                # Not on a longer line, which would take time by the square of its length.
                line_end = data.find(b"\n", at, at + _LONGEST_SEPARATOR) + 1
                found = _SEPARATOR.match(data, at, line_end or at + _LONGEST_SEPARATOR)
                if found and (line_end or found.end() == len(data)):
                    return found
        return None

    def _take(self, part: bytes) -> None:
        self._size += len(part)
        if self._has_header:
            return
        searched = max(len(self._header) - 2, 0)
        self._header += part[: _MAX_HEADER - len(self._header)]
        end = _HEADER_END.search(self._header, searched)
        if end or len(self._header) >= _MAX_HEADER:
            self._has_header = True
            if end:
                del self._header[end.start() + 1 :]

    def _mail(self, is_mailbox: bool) -> OldMail:
        self._number += 1
        where = f"{self._name}:{self._number}" if is_mailbox else self._name
        stamp = self._separator.decode("ascii", "replace").partition(" ")[2].strip()
        return OldMail(where, bytes(self._header), self._size, stamp.partition(" ")[2].strip())


def _maildir(folder: Path, warn: Warn, advance: Advance) -> Iterator[OldMail]:
    parts = [folder / name for name in ("cur", "new") if (folder / name).is_dir()]
    if not parts:
        raise OSError(0, "a directory, but not a Maildir: it has neither cur nor new")
    below = sorted(each.parent.name for each in folder.glob(".*/cur"))
    if below:
        names = f"{', '.join(below[:3])}{', ...' if len(below) > 3 else ''}"
        warn(f"{folder}: {counted(len(below), 'folder')} in it not read ({names}): name each")
    found = (
        (each.name, each.path) for part in parts for each in os.scandir(part) if not each.is_dir()
    )
    for name, path in sorted(each for each in found if not each[0].startswith(".")):
        try:
            with Path(path).open("rb") as stream:
                mail = _file(stream, path, advance)
        except DAMAGE as error:  # moved by its owner's program, for example
            warn(f"{path}: {why(error) if isinstance(error, OSError) else error}")
            continue
        time = _TIME.match(name)
        yield mail._replace(stamp=time[1] if time else "")


def _file(raw: BufferedReader, path: str, advance: Advance) -> OldMail:
    """Return the one message in a file; only a compressed one is read to its end, for its size."""
    size = os.fstat(raw.fileno()).st_size
    opener = next((each for magic, each in OPENERS if raw.peek(8).startswith(magic)), None)
    with ExitStack() as stack:
        stream = cast("BinaryIO", stack.enter_context(opener(raw)) if opener else raw)
        header = stream.read(1 << 14)
        while not _HEADER_END.search(header) and len(header) < _MAX_HEADER:
            more = stream.read(1 << 16)
            if not more:
                break
            header += more
        if opener:
            named = _SIZE.search(path)
            size = int(named[1]) if named else len(header) + _rest(stream)
    advance(size)
    end = _HEADER_END.search(header)
    return OldMail(path, header[: end.start() + 1] if end else header, size)


def _rest(stream: BinaryIO) -> int:
    return sum(iter(lambda: len(stream.read(_CHUNK)), 0))
