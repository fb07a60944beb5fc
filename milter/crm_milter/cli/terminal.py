"""What all commands share: the option ``--config``, the words to a person, the exit status.

Whatever the standard streams are, a command says in one line that it cannot write its result, and
its diagnostics never get in the way.
"""

import argparse
import errno
import io
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO, cast

from crm_milter.config.load import Config, load
from crm_milter.config.sources import Sources
from crm_milter.wording import why

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

DEFAULT_CONFIG = "/etc/crm-milter/crm-milter.yaml"
EX_OK, EX_NO, EX_USAGE, EX_CONFIG = 0, 1, 2, 78
_STDOUT, _STDERR = 1, 2

Command = Callable[[argparse.Namespace], int]


class Wrapped(argparse.HelpFormatter):
    """Breaks lines at blanks only: "crm-milter" and paths stay whole, to be copied."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = self._split_lines(text, width - len(indent))
        return "\n".join(f"{indent}{line}" for line in lines)


def add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, function: Command
) -> argparse.ArgumentParser:
    """Add a command whose help is the docstring of its function."""
    words = (function.__doc__ or "").strip()
    summary = words.splitlines()[0].rstrip(".")
    command = commands.add_parser(name, help=summary, description=words, formatter_class=Wrapped)
    command.add_argument(
        "--config",
        type=Path,
        default=Path(DEFAULT_CONFIG),
        metavar="FILE",
        help="configuration file (default: %(default)s)",
    )
    command.set_defaults(command=function)
    return command


def say(line: str) -> None:
    """Print a diagnostic; one that cannot be written is lost, and the command goes on."""
    with suppress(OSError):
        print(f"crm-milter: {line}", file=sys.stderr, flush=True)


def asks(question: str) -> bool:
    """Ask a person and return whether the answer is yes."""
    sys.stdout.flush()  # what the question is about comes first
    say(f"{question}? [y/N]")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


class _Output(io.RawIOBase):
    """A standard stream that remembers why it could not be written, None for no reason."""

    def __init__(self, descriptor: int, *, is_closed: bool = False) -> None:
        self._descriptor = descriptor
        self.error = OSError(errno.EBADF, "it is closed") if is_closed else None

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: "Buffer") -> int:
        if self.error:
            raise self.error
        try:
            return os.write(self._descriptor, data)
        except OSError as error:
            self.error = error
            raise


class _Diagnostics(_Output):
    """Standard error: what cannot be written there is lost."""

    def write(self, data: "Buffer") -> int:
        with suppress(OSError):
            return super().write(data)
        return len(memoryview(data))


class _Nothing(io.RawIOBase):
    """Standard input that the caller has closed."""

    def readable(self) -> bool:
        return True

    def readinto(self, _buffer: "Buffer") -> int:
        return 0


def take_streams() -> None:
    """Make the standard streams of this process safe to use: to be called once, at its start.

    Python has None for one that is closed, and gives its number to the next file or socket.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STDERR:
        pass
    os.close(descriptor)
    is_tty, encodings = os.isatty(_STDOUT), [_encoding(each) for each in (sys.stdout, sys.stderr)]
    output = io.BufferedWriter(_Output(_STDOUT, is_closed=sys.stdout is None))
    diagnostics = cast("BinaryIO", _Diagnostics(_STDERR, is_closed=sys.stderr is None))
    sys.stdout = io.TextIOWrapper(output, encodings[0], "backslashreplace", line_buffering=is_tty)
    sys.stderr = io.TextIOWrapper(diagnostics, encodings[1], "backslashreplace", write_through=True)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(_Nothing()), "utf-8")


def _encoding(stream: TextIO | None) -> str:
    return stream.encoding if stream else "utf-8"


def can_print() -> bool:
    """Tell whether standard output takes the next line, as far as is known."""
    return _error() is None


def _error() -> OSError | None:
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, _Output) else None


def read_stdin() -> bytes:
    """Return all of standard input; raises OSError."""
    if isinstance(getattr(getattr(sys.stdin, "buffer", None), "raw", None), _Nothing):
        raise OSError(errno.EBADF, "standard input is closed")
    return sys.stdin.buffer.read()


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield rows as lines with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()


def show_utf8(text: str) -> None:
    """Print for a program that reads UTF-8, such as Postfix, whatever the locale is."""
    sys.stdout.flush()
    sys.stdout.buffer.write(f"{text}\n".encode())


def written(run: Callable[[], int]) -> int:
    """Run a command and return its exit status, or 1 if its result could not be written."""
    try:
        status = run()
    except (SystemExit, OSError):
        if not _is_lost():
            raise
        return EX_NO
    return EX_NO if _is_lost() else status


def _is_lost() -> bool:
    """Tell, and say, whether standard output could not be written."""
    error = _error()
    try:
        sys.stdout.flush()
    except OSError as last:
        error = last
    if error is None:
        return False
    say(f"cannot write to standard output: {why(error)}")
    # Python would try again when it exits, or lets go of the stream, and complain.
    lost, sys.stdout = sys.stdout, io.TextIOWrapper(io.BytesIO(), "utf-8")
    with suppress(OSError):
        lost.close()
    return True


def load_config(path: Path, sources: Sources | None = None) -> Config:
    """Return the configuration, its warnings said; raises ConfigError."""
    config = load(path, sources)
    for warning in config.warnings:
        say(str(warning))
    return config
