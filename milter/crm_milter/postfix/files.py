"""main.cf and master.cf as texts: read together, written whole."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from crm_milter.postfix.postconf import PostfixError
from crm_milter.wording import why

# Postfix waits until main.cf is two seconds old, since an editor may still be writing it. These
# appear at once and complete, so readers need not wait.
_AGE = 3
_SUFFIX = ".tmp"  # that of postconf's edit_file(3)


class ChangedError(Exception):
    """A file is not what it was when its new text was made."""


def write_atomically(path: Path, data: str | bytes, mode: int = 0o644) -> None:
    """Replace a file in one step, keeping owner, mode and label; a new one gets ``mode``."""
    path = real(path)
    with _draft(path) as draft:
        _finish(path, draft, _bytes(data), mode)


def replace_if(path: Path, before: str | bytes, after: str | bytes) -> None:
    """As write_atomically(), but raises ChangedError if the file is not ``before``."""
    path = real(path)
    with _draft(path) as draft:
        if path.read_bytes() != _bytes(before):
            raise ChangedError
        _finish(path, draft, _bytes(after), 0o644)


def copy_as(source: Path, path: Path, data: str | bytes) -> None:
    """Write a file with the mode and the owner of another: what that hides stays hidden."""
    with _draft(path) as draft:
        _finish(source, draft, _bytes(data), 0o600, path)


def is_abandoned(draft: Path) -> bool:
    """Tell whether a draft is there that no process holds."""
    try:
        number = os.open(draft, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(number)


def real(path: Path) -> Path:
    """Return the file itself where a path is a symbolic link."""
    return Path(os.path.realpath(path))


def age(path: Path) -> None:
    """Let a file look as old as Postfix wants it."""
    then = time.time() - _AGE
    os.utime(path, (then, then))


def _bytes(data: str | bytes) -> bytes:
    return data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data


@contextmanager
def _draft(path: Path) -> Iterator[int]:
    """Open and lock the draft of a file; it is gone afterwards."""
    name = path.with_name(path.name + _SUFFIX)
    number = _locked(name)
    try:
        yield number
    except BaseException:
        with suppress(OSError):
            name.unlink()
        raise
    finally:
        os.close(number)


def _locked(name: Path) -> int:
    while True:
        number = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(number, fcntl.LOCK_EX)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(number), name.stat()):
                    return number
        except BaseException:
            os.close(number)
            raise
        os.close(number)  # its holder has moved it in place meanwhile


def _finish(like: Path, draft: int, data: bytes, mode: int, path: Path | None = None) -> None:
    path = path or like
    name = path.with_name(path.name + _SUFFIX)
    os.ftruncate(draft, 0)
    with open(draft, "wb", closefd=False) as stream:
        stream.write(data)
    os.fsync(draft)
    if like.exists():
        status = like.stat()
        os.chown(name, status.st_uid, status.st_gid)  # before the mode lets the group in
        shutil.copystat(like, name)
    else:
        name.chmod(mode)
    age(name)
    name.replace(path)


FILES = ("main.cf", "master.cf")

Texts = Mapping[str, str]  # by the name of the file


def read_texts(folder: Path) -> dict[str, str]:
    """Return main.cf and master.cf, to the byte; raises PostfixError."""
    try:
        return {
            name: (folder / name).read_bytes().decode("utf-8", "surrogateescape") for name in FILES
        }
    except OSError as error:
        raise PostfixError(f'cannot read "{error.filename}": {why(error)}') from error
