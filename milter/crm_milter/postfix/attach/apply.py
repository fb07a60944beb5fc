"""Install a changed configuration, have Postfix load it, and restore the old one on failure."""

import fcntl
import os
import pty
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crm_milter.postfix import alias_file, patternfile
from crm_milter.postfix.attach.staging import replace_text
from crm_milter.postfix.files import (
    FILES,
    ChangedError,
    Texts,
    is_abandoned,
    read_texts,
    replace_if,
)
from crm_milter.postfix.lookup import INDEXED
from crm_milter.postfix.postconf import Postconf, PostfixError, last_line
from crm_milter.wording import why

_MOST = 65536  # bytes of what postfix(1) says last
_REASON = re.compile(r"(?m)^.*\b(?:fatal|error|panic): .*$")


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Lock out other attach and detach runs of this instance; raises PostfixError if one is on."""
    try:
        number = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise PostfixError(f'cannot read "{home}": {why(error)}') from error
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise PostfixError(f'another attach or detach is working on "{home}"') from None
    finally:
        os.close(number)


def sweep(home: Path) -> None:
    """Remove the drafts of a command that was killed."""
    for each in home.glob(f"{alias_file.NAME}.new*"):
        process = re.sub(r"\D", "", each.name)
        if process == str(os.getpid()) or not Path("/proc", process).exists():
            remove([each])
    names = (alias_file.NAME, patternfile.NAME, *FILES)
    remove([each for each in (home / f"{name}.tmp" for name in names) if is_abandoned(each)])


def replace(home: Path, before: Texts, after: Texts) -> None:
    """Replace the files that differ; raises PostfixError, also if another changed one of them."""
    for name in FILES:
        if after[name] != before[name]:
            replace_text(home / name, before[name], after[name])


def unchanged(home: Path, texts: Texts) -> None:
    """Raise PostfixError if the files are not what they were, before the first is written."""
    if read_texts(home) != texts:
        raise PostfixError(
            f'main.cf or master.cf in "{home}" changed in the meantime; run the command again'
        )


def put_back(home: Path, ours: tuple[Texts, ...], target: Texts) -> list[Path]:
    """Make files what they were if this program wrote what they are; return those left alone."""
    left = []
    for name in FILES:
        now = read_texts(home)[name]
        if now == target[name]:
            continue
        if now not in [each[name] for each in ours]:
            left.append(home / name)
            continue
        try:
            replace_text(home / name, now, target[name])
        except PostfixError:
            left.append(home / name)
    return left


def check_and_reload(postconf: Postconf) -> bool:
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
    spoken = bytearray()
    reader = threading.Thread(target=_read, args=(ours, spoken), daemon=True)
    reader.start()
    try:
        done = postconf.run("postfix", action, stderr=theirs)
    finally:
        os.close(theirs)
        reader.join(1)
        os.close(ours)
    if done.returncode != 0:
        text = spoken.decode("utf-8", "replace")
        reasons = _REASON.findall(text)
        reason = reasons[-1].strip() if reasons else last_line(text)
        raise PostfixError(f'"postfix {action}" failed: {reason or "see the mail log"}')


def _read(terminal: int, spoken: bytearray) -> None:
    """Read all output, however much: a process that writes to a full terminal blocks."""
    with suppress(OSError):  # EIO: the other side is closed
        while data := os.read(terminal, _MOST):
            spoken += data
            del spoken[:-_MOST]


def map_files(home: Path) -> list[Path]:
    """Return all files that the tables of virtual aliases may consist of."""
    suffixes = ("", *sorted(set(INDEXED.values())))
    return [*(home / f"{alias_file.NAME}{suffix}" for suffix in suffixes), home / patternfile.NAME]


def contents(paths: list[Path]) -> dict[Path, bytes | None]:
    """Return what files hold, None for those that are not there."""
    return {each: each.read_bytes() if each.exists() else None for each in paths}


def restore(before: dict[Path, bytes | None], written: dict[Path, bytes | None]) -> None:
    """Give files back what they held, as long as they still hold what was written since."""
    for path, data in before.items():
        if written[path] == data:
            continue
        with suppress(OSError, ChangedError):
            if data is None and path.read_bytes() == written[path]:
                path.unlink()
            elif data is not None:
                replace_if(path, written[path] or b"", data)


def remove(paths: list[Path]) -> None:
    """Remove files that are there."""
    for each in paths:
        with suppress(OSError):
            each.unlink(missing_ok=True)
