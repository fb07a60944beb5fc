"""Where the mail log is, and the lines in it that mention something, fast and in little memory.

Files are read in chunks, and only lines that hold a wanted word are ever looked at; rotated and
compressed files are found beside the file. The journal is asked for such lines alone.
"""

import bz2
import gzip
import io
import lzma
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol, cast

from crm_milter.maillog import Line, Parser
from crm_milter.postfix.postconf import Postconf, PostfixError

PLACES = ("/var/log/mail.log", "/var/log/maillog")
UNIT = "crm-milter.service"
_CHUNK = 1 << 20
_OPENERS = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open))
_ZSTANDARD = b"\x28\xb5\x2f\xfd"
_STALE = 60.0  # seconds that a log file may be behind the journal
_ANY_ID = re.compile(rb"\b[0-9A-Za-z]{6,20}(?=: )")
_FEW = 64  # words that are sought one by one; beyond, a regular expression is faster
_TIMEOUT = 10  # seconds for journalctl, where it answers at once


class LogError(Exception):
    """The mail log cannot be read; the text says which and why."""


class Source(Protocol):
    """One place where lines are."""

    name: str

    def lines(self, words: Iterable[str], fold: bool = False) -> Iterator[Line]:
        """Yield the lines that hold one of the words, regardless of case where ``fold``."""

    def entries(self, queue_ids: frozenset[str]) -> Iterator[Line]:
        """Yield the lines of messages, by their queue ids."""

    def forget(self) -> None:
        """Let only what is written from now on count."""

    def close(self) -> None:
        """Let go of it."""


def mentioning(chunk: bytes, words: list[bytes]) -> Iterator[tuple[int, int]]:
    """Yield where lines with one of the words begin and end, each once, in order."""
    found: dict[int, int] = {}
    for word in words:
        at = chunk.find(word)
        while at >= 0:
            end = chunk.find(b"\n", at)
            end = len(chunk) if end < 0 else end
            found[chunk.rfind(b"\n", 0, at) + 1] = end
            at = chunk.find(word, end)
    return iter(sorted(found.items()))


def whole_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Yield a stream in chunks that end where a line ends."""
    rest = b""
    while data := stream.read(_CHUNK):
        head, newline, tail = data.rpartition(b"\n")
        if newline:
            yield rest + head
            rest = tail
        else:
            rest += data
    if rest:
        yield rest


class LogFile:
    """A file, compressed or not; what can be read only once is kept aside first."""

    def __init__(self, path: Path, since: datetime | None = None) -> None:
        self.name = str(path)
        self._since = since
        self._open = ExitStack()
        try:
            self._stream = _opened(path, self._open)
            newest = path.stat().st_mtime if path.is_file() else None
        except (OSError, EOFError) as error:
            self._open.close()
            reason = getattr(error, "strerror", None) or str(error)
            raise LogError(f"{path}: {reason.lower()}") from error
        now = datetime.now(UTC)
        self._parser = Parser(datetime.fromtimestamp(newest, UTC) if newest else now)
        self._start = 0

    def forget(self) -> None:
        """Let only what is written from now on count; raises LogError."""
        try:
            self._start = self._stream.seek(0, io.SEEK_END)
        except ValueError as error:
            raise LogError(
                f"{self.name} is compressed, so no new lines will appear: name the live log"
            ) from error

    def lines(self, words: Iterable[str], fold: bool = False) -> Iterator[Line]:
        """Yield the lines that hold one of the words."""
        sought = [word.lower().encode() if fold else word.encode() for word in words]
        for chunk in self._chunks():
            # bytes.lower() folds ASCII alone, and keeps every byte in its place.
            places = mentioning(chunk.lower() if fold else chunk, sought)
            yield from self._parsed(chunk[start:end] for start, end in places)

    def entries(self, queue_ids: frozenset[str]) -> Iterator[Line]:
        """Yield the lines of messages; lines that lead to them as well where these are few."""
        if len(queue_ids) <= _FEW:
            yield from self.lines(queue_ids)
            return
        wanted = {each.encode() for each in queue_ids}
        for chunk in self._chunks():
            for found in _ANY_ID.finditer(chunk):
                if found[0] in wanted:
                    start = chunk.rfind(b"\n", 0, found.start()) + 1
                    end = chunk.find(b"\n", found.end())
                    yield from self._parsed([chunk[start : end if end >= 0 else len(chunk)]])

    def close(self) -> None:
        """Close the file."""
        self._open.close()

    def _parsed(self, octets: Iterable[bytes]) -> Iterator[Line]:
        for each in octets:
            line = self._parser.line(each.rstrip(b"\r"))
            if not (self._since and line.time and line.time < self._since):
                yield line

    def _chunks(self) -> Iterator[bytes]:
        self._stream.seek(self._start)
        try:
            yield from whole_lines(self._stream)
        except EOFError:
            return  # a compressed file that is still being written ends early
        except (OSError, lzma.LZMAError) as error:
            raise LogError(f"{self.name}: {str(error).lower()}") from error


def _opened(path: Path, files: ExitStack) -> BinaryIO:
    stream: BinaryIO = files.enter_context(path.open("rb"))
    if not stream.seekable():
        aside = files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        shutil.copyfileobj(stream, aside)
        aside.seek(0)
        stream = aside
    magic = stream.read(6)
    stream.seek(0)
    if magic.startswith(_ZSTANDARD):
        raise OSError(0, f"zstd is not supported; use --log <(zstdcat {path})")
    for start, opener in _OPENERS:
        if magic.startswith(start):
            return cast("BinaryIO", files.enter_context(opener(stream)))
    return stream


@dataclass(slots=True)
class Journal:
    """The journal of systemd, from a time on: what Postfix logs, or only what we do."""

    since: datetime
    ours_alone: bool = False
    name: str = "the journal"

    def lines(self, words: Iterable[str], fold: bool = False) -> Iterator[Line]:
        """Yield the lines that hold one of the words."""
        pattern = "|".join(re.escape(word.lower() if fold else word) for word in words)
        sensitive = "false" if fold else "true"
        return self._ask([f"--grep={pattern}", f"--case-sensitive={sensitive}"])

    def entries(self, queue_ids: frozenset[str]) -> Iterator[Line]:
        """Yield the lines of messages; lines that lead to them as well where these are few."""
        if len(queue_ids) <= _FEW:
            yield from self.lines(queue_ids)
            return
        yield from (line for line in self._ask([]) if line.queue_id in queue_ids)

    def forget(self) -> None:
        """Let only what is written from now on count."""
        self.since = datetime.now(UTC)

    def close(self) -> None:
        """Do nothing: it is asked anew each time."""

    def _ask(self, arguments: list[str]) -> Iterator[Line]:
        # The short format holds all that is wanted of a line in a third of the bytes of JSON.
        command = ["journalctl", "--quiet", "--no-pager", "--all", "-o", "short-iso-precise"]
        command += [f"--since=@{self.since.timestamp():.6f}", *arguments, *self._matches()]
        parser = Parser(datetime.now(UTC))
        with tempfile.TemporaryFile() as errors:
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process:
                output = process.stdout
                if output is not None:
                    yield from (parser.line(each.rstrip(b"\n")) for each in output)
            errors.seek(0)
            words = errors.read(1000).decode("utf-8", "replace").strip()
            # With --grep it ends with 1 where nothing is found.
            if process.returncode != 0 and words:
                raise LogError(f"journalctl: {words.lower()}")

    def _matches(self) -> list[str]:
        ours = [f"_SYSTEMD_UNIT={UNIT}", "+", "SYSLOG_IDENTIFIER=crm-milter"]
        return ours if self.ours_alone else ["SYSLOG_FACILITY=2", "+", *ours]


@contextmanager
def given(paths: Iterable[Path], since: datetime | None) -> Iterator[list[Source]]:
    """Return the files that a person named, as they are; raises LogError."""
    with ExitStack() as files:
        sources: list[Source] = []
        for path in paths:
            sources.append(LogFile(path, since))
            files.callback(sources[-1].close)
        yield sources


@contextmanager
def found(since: datetime, config_directory: Path | None = None) -> Iterator[list[Source]]:
    """Return where the lines of Postfix and ours are since a time; raises LogError.

    What Postfix writes itself (``maillog_file``), or the file of syslog unless the journal is
    ahead of it, or the journal. Ours may be in the journal alone, so that is asked in any case.
    """
    live = _own_file(config_directory) or _syslog_file()
    with given(_with_rotated(live, since) if live else [], since) as sources:
        if _has_journal():
            sources.append(Journal(since, ours_alone=bool(live)))
        if not sources:
            places = ", ".join(PLACES)
            raise LogError(f"no mail log found (tried {places} and the journal); use --log")
        yield sources


def _own_file(config_directory: Path | None) -> Path | None:
    with suppress(PostfixError):
        name = Postconf(config_directory).value("maillog_file")
        return Path(name) if name and not name.startswith("/dev/") else None
    return None


def _syslog_file() -> Path | None:
    """Return the file of syslog, unless the journal has newer lines: a leftover of before."""
    for name in PLACES:
        path = Path(name)
        with suppress(OSError):
            status = path.stat()
            if status.st_size and status.st_mtime + _STALE > _newest_in_journal():
                return path
    return None


def _newest_in_journal() -> float:
    command = ["journalctl", "-q", "--no-pager", "-n", "1", "-o", "short-unix"]
    with suppress(OSError, subprocess.TimeoutExpired, ValueError):
        done = subprocess.run(
            [*command, "SYSLOG_FACILITY=2"],
            capture_output=True,
            text=True,
            timeout=_TIMEOUT,
            check=False,
        )
        return float(done.stdout.partition(" ")[0] or 0)
    return 0.0


def _has_journal() -> bool:
    stored = Path("/run/log/journal").is_dir() or Path("/var/log/journal").is_dir()
    return stored and shutil.which("journalctl") is not None


def _with_rotated(live: Path, since: datetime) -> list[Path]:
    """Return a log and what was rotated away from it since a time, the oldest first."""
    dated = []
    for path in {live, *live.parent.glob(f"{live.name}[.-]*")}:
        with suppress(OSError):
            written = path.stat().st_mtime
            if path == live or written >= since.timestamp():
                dated.append((written, path))
    return [path for _, path in sorted(dated)]
