"""Where the mail log is: files, rotated ones next to them, and the journal.

Only lines that hold a wanted word are parsed; the journal is asked for such lines alone.
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from crm_milter.trace.file import FEW, LogError, LogFile, Warn
from crm_milter.trace.lines import Line, Parser

PLACES = ("/var/log/mail.log", "/var/log/maillog")
UNIT = "crm-milter.service"
_STALE = 60.0  # seconds that a log file may be behind the journal
_TIMEOUT = 10  # seconds for journalctl, which answers at once


class Source(Protocol):
    """One place where lines are."""

    name: str

    def lines(self, words: Iterable[str], fold: bool = False) -> Iterator[Line]:
        """Yield the lines that hold one of the words, regardless of case where ``fold``."""

    def entries(self, queue_ids: frozenset[str]) -> Iterator[Line]:
        """Yield the lines of messages, by their queue ids."""

    def holds(self, wanted: Callable[[Line], bool]) -> bool:
        """Tell whether there is such a line."""

    def is_empty(self) -> bool:
        """Tell whether nothing is in it."""

    def forget(self) -> None:
        """Skip what is there now."""

    def close(self) -> None:
        """Close it."""


@dataclass(slots=True)
class Journal:
    """The systemd journal since a time: lines of Postfix and crm-milter, or of crm-milter alone."""

    since: datetime
    ours_alone: bool = False
    name: str = "the journal"

    def lines(self, words: Iterable[str], fold: bool = False) -> Iterator[Line]:
        """Yield the lines that hold one of the words."""
        pattern = "|".join(re.escape(word.lower() if fold else word) for word in words)
        sensitive = "false" if fold else "true"
        return self._ask([f"--grep={pattern}", f"--case-sensitive={sensitive}"])

    def entries(self, queue_ids: frozenset[str]) -> Iterator[Line]:
        """Yield the lines of messages; lines that lead to them as well if these are few."""
        if len(queue_ids) <= FEW:
            yield from self.lines(queue_ids)
            return
        yield from (line for line in self._ask([]) if line.queue_id in queue_ids)

    def holds(self, wanted: Callable[[Line], bool]) -> bool:
        """Tell whether there is such a line, and this user may read it."""
        return any(map(wanted, self._ask([])))

    def is_empty(self) -> bool:
        """Tell whether it has no line of Postfix or crm-milter."""
        return next(self._ask(["--lines=1"]), None) is None

    def forget(self) -> None:
        """Skip what is there now."""
        self.since = datetime.now(UTC)

    def close(self) -> None:
        """Do nothing: it is asked again each time."""

    def _ask(self, arguments: list[str]) -> Iterator[Line]:
        # The short format holds all that is wanted of a line in a third of the bytes of JSON.
        command = ["journalctl", "--quiet", "--no-pager", "--all", "-o", "short-iso-precise"]
        command += [
            f"--since=@{self.since.timestamp():.6f}",
            *arguments,
            *journal_matches(ours_alone=self.ours_alone),
        ]
        parser = Parser(datetime.now(UTC))
        with tempfile.TemporaryFile() as errors:
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process:
                try:
                    yield from map(parser.line, process.stdout or ())
                except GeneratorExit:  # the reader has seen enough
                    process.terminate()
                    raise
            errors.seek(0)
            words = errors.read(1000).decode("utf-8", "replace").strip()
            # With --grep it ends with 1 where nothing is found.
            if process.returncode != 0 and words:
                raise LogError(f"journalctl: {words.lower()}")


def journal_matches(*, ours_alone: bool) -> list[str]:
    """Return the matches of journalctl for the lines of crm-milter, and those of Postfix."""
    ours = [f"_SYSTEMD_UNIT={UNIT}", "+", "SYSLOG_IDENTIFIER=crm-milter"]
    return ours if ours_alone else ["SYSLOG_FACILITY=2", "+", *ours]


@contextmanager
def given(
    paths: Iterable[Path], since: datetime | None, warn: Warn = lambda _: None
) -> Iterator[list[Source]]:
    """Return the files that a person named, the oldest first, without those named twice.

    What cannot be read is skipped with a warning; raises LogError if nothing is left.
    """
    with ExitStack() as opened:
        files, errors = _files(paths, since, warn, opened)
        if errors and not files:
            raise LogError("; ".join(errors))
        for each in errors:
            warn(f"{each}, skipped")
        yield files


def _files(
    paths: Iterable[Path], since: datetime | None, warn: Warn, opened: ExitStack
) -> tuple[list[Source], list[str]]:
    files: list[LogFile] = []
    errors: list[str] = []
    for path in _once(paths):
        try:
            files.append(LogFile(path, since, warn))
        except LogError as error:
            errors.append(str(error))
        else:
            opened.callback(files[-1].close)
    if len(files) > 1:
        files.sort(key=LogFile.begin)
    return [*files], errors


def _once(paths: Iterable[Path]) -> Iterator[Path]:
    seen = set()
    for path in paths:
        with suppress(OSError):
            status = path.stat()
            if path.is_file() and (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
        yield path


@contextmanager
def found(
    since: datetime, maillog_file: str = "", warn: Warn = lambda _: None
) -> Iterator[list[Source]]:
    """Return where the lines of Postfix and ours are since a time; raises LogError.

    What Postfix writes itself (``maillog_file``), or the file of syslog unless the journal is
    ahead of it, or the journal. Ours may be in the journal alone, so that is asked in any case.
    """
    live = live_file(maillog_file)
    with ExitStack() as opened:
        paths = with_rotated(live, since) if live else []
        sources, errors = _files(paths, since, warn, opened)
        if has_journal():
            sources.append(Journal(since, ours_alone=bool(live)))
        for each in errors:
            warn(f"{each}, skipped")
        if not sources:
            places = ", ".join(PLACES)
            raise LogError(f"no mail log found (tried {places} and the journal); use --log")
        yield sources


def readable(sources: list[Source], warn: Warn) -> list[Source]:
    """Return the sources that have a line of Postfix or crm-milter.

    Raises LogError if none has, and there are other lines.
    """
    found = [each for each in sources if each.holds(_is_of_mail)]
    other = [each.name for each in sources if each not in found and not each.is_empty()]
    if other and not found:
        raise LogError(f"no line of Postfix or crm-milter in {', '.join(other)}")
    for name in other:
        warn(f"no line of Postfix or crm-milter in {name}, skipped")
    return found


def check(sources: list[Source]) -> None:
    """Raise LogError if every source has lines, and none of Postfix or crm-milter."""
    if not any(each.is_empty() or each.holds(_is_of_mail) for each in sources):
        names = ", ".join(each.name for each in sources)
        raise LogError(f"no line of Postfix or crm-milter in {names}")


def _is_of_mail(line: Line) -> bool:
    return line.is_of_mail


def live_file(maillog_file: str) -> Path | None:
    """Return the file that Postfix's lines are written to now, None if it is not a file."""
    return _own_file(maillog_file) or _syslog_file()


def _own_file(name: str) -> Path | None:
    return Path(name) if name and not name.startswith("/dev/") else None


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


def has_journal() -> bool:
    """Tell whether there is a journal and what reads it."""
    stored = Path("/run/log/journal").is_dir() or Path("/var/log/journal").is_dir()
    return stored and shutil.which("journalctl") is not None


def with_rotated(live: Path, since: datetime) -> list[Path]:
    """Return a log and what was rotated away from it since a time, the oldest first."""
    dated = []
    for path in {live, *live.parent.glob(f"{live.name}[.-]*")}:
        with suppress(OSError):
            written = path.stat().st_mtime
            if path == live or (path.is_file() and written >= since.timestamp()):
                dated.append((written, path))
    return [path for _, path in sorted(dated)]
