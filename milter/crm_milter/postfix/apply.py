"""Put a changed configuration in place, have Postfix take it up, and put it back if that fails."""

import os
import pty
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from crm_milter.postfix import mapfile, record
from crm_milter.postfix.postconf import Postconf, PostfixError, last_line
from crm_milter.postfix.staging import FILES, Texts, read_texts, write_atomically
from crm_milter.postfix.tables import INDEXED

_MOST = 65536  # bytes of what postfix(1) says


def replace(home: Path, before: Texts, after: Texts) -> None:
    """Replace the files that differ; raises PostfixError, also where another changed them."""
    if read_texts(home) != before:
        raise PostfixError(
            f'main.cf or master.cf in "{home}" changed in the meantime; run the command again'
        )
    for name in FILES:
        if after[name] != before[name]:
            try:
                write_atomically(home / name, after[name])
            except OSError as error:
                raise PostfixError(f'cannot write "{home / name}": {error.strerror}') from error


def take_up(postconf: Postconf) -> bool:
    """Have Postfix check and read its configuration; False if it is not running.

    Raises PostfixError if the configuration is not good.
    """
    _do(postconf, "check")
    if postconf.run("postfix", "status").returncode != 0:
        return False
    _do(postconf, "reload")
    return True


def _do(postconf: Postconf, action: str) -> None:
    # To anything but a terminal postfix(1) says nothing: it writes to the log of mail.
    ours, theirs = pty.openpty()
    os.set_blocking(ours, False)
    try:
        done = postconf.run("postfix", action, stderr=theirs)
        if done.returncode != 0:
            text = b""
            with suppress(BlockingIOError):
                text = os.read(ours, _MOST)
            reason = last_line(text.decode("utf-8", "replace")) or "see the mail log"
            raise PostfixError(f'"postfix {action}" failed: {reason}')
    finally:
        os.close(ours)
        os.close(theirs)


def map_files(home: Path) -> list[Path]:
    """Return all files that the table of virtual aliases may consist of."""
    suffixes = ("", *sorted(set(INDEXED.values())))
    return [home / f"{mapfile.NAME}{suffix}" for suffix in suffixes]


class Undo:
    """Puts files, table and record back if its block raises PostfixError or is interrupted."""

    def __init__(self, postconf: Postconf, texts: Texts) -> None:
        self._postconf = postconf
        self._home = postconf.directory
        self._texts = texts
        folder = self._home / record.FOLDER
        kept = [*map_files(self._home), *(folder / name for name in (*FILES, "record.json"))]
        self._files = {each: each.read_bytes() if each.exists() else None for each in kept}
        self._reason = ""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> bool:
        if error is None:
            return False
        self._reason = str(error) or "interrupted"
        self._back()
        return isinstance(error, PostfixError)

    def _back(self) -> None:
        now = read_texts(self._home)
        for name, text in self._texts.items():
            if now[name] != text:
                write_atomically(self._home / name, text)
        for path, data in self._files.items():
            if data is None:
                path.unlink(missing_ok=True)
            elif not path.exists() or path.read_bytes() != data:
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
        with suppress(OSError):
            (self._home / record.FOLDER).rmdir()  # stays where it is not empty
        self._postconf.run("postfix", "reload")

    def told(self, tell: Callable[[str], None], done: str) -> bool:
        """Say how it ended, and return whether that is what was wanted."""
        tell(f"rolled back: {self._reason}" if self._reason else done)
        return not self._reason
