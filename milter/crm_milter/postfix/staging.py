"""Changes of main.cf and master.cf, tried by postconf on a copy before the real files see them."""

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from crm_milter.postfix.postconf import Postconf, PostfixError, last_line, split_list

FILES = ("main.cf", "master.cf")

# Postfix waits until main.cf is two seconds old, since an editor may still be writing it. Ours
# appear at once and complete, so nobody has to wait.
_AGE = 3

Texts = Mapping[str, str]  # by the name of the file


@dataclass(frozen=True, slots=True)
class Edit:
    """A parameter's new value, unexpanded; None removes it from the file.

    ``scope`` is a service such as ``smtp/inet``, or "" for main.cf.
    """

    scope: str
    name: str
    value: str | None

    @property
    def arguments(self) -> tuple[str, ...]:
        """Return the arguments of postconf that make the change."""
        target = f"{self.scope}/{self.name}" if self.scope else self.name
        if self.value is None:
            return ("-PX" if self.scope else "-X", target)
        if self.scope:
            return ("-P", f"{target}={without_blanks(self.value)}")
        return ("-e", f"{target} = {self.value}")


def without_blanks(value: str) -> str:
    """Return a list as postconf -P takes it, which refuses blanks in a value."""
    items = (
        "{" + without_blanks(item[1:-1]) + "}" if item.startswith("{") else item
        for item in split_list(value)
    )
    return ",".join(items).replace(",=,", "=").replace("=,", "=").replace(",=", "=")


class Staging(AbstractContextManager["Staging"]):
    """A folder with a copy of the two files of ``home``, for postconf to edit."""

    def __init__(self, texts: Texts, home: Path) -> None:
        self._home = home
        self._folder = tempfile.TemporaryDirectory(prefix="crm-milter-")
        self.path = Path(self._folder.name)
        for name, text in texts.items():
            write_atomically(self.path / name, text)

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    @property
    def texts(self) -> dict[str, str]:
        """Return the files as they are now."""
        return read_texts(self.path)

    @property
    def postconf(self) -> Postconf:
        """Return the configuration as it is now."""
        return Postconf(self.path, self._home)

    def apply(self, edit: Edit) -> None:
        """Change one parameter; raises PostfixError where postconf refuses."""
        for name, text in self.texts.items():
            if not text.endswith("\n"):  # postconf would append to the last line, a comment even
                write_atomically(self.path / name, text + "\n")
        done = self.postconf.run("postconf", *edit.arguments)
        if done.returncode != 0 or "unmatched" in done.stderr:
            raise PostfixError(last_line(done.stderr) or "postconf failed")
        for name in FILES:
            _age(self.path / name)


def read_texts(folder: Path) -> dict[str, str]:
    """Return main.cf and master.cf, to the byte; raises PostfixError."""
    try:
        return {
            name: (folder / name).read_bytes().decode("utf-8", "surrogateescape") for name in FILES
        }
    except OSError as error:
        raise PostfixError(f'cannot read "{error.filename}": {error.strerror}') from error


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step, keeping owner, mode and label; other readers see all or none."""
    path = Path(os.path.realpath(path))
    temporary = path.with_name(f".{path.name}.crm-milter")
    with temporary.open("wb") as stream:
        stream.write(text.encode("utf-8", "surrogateescape"))
        stream.flush()
        os.fsync(stream.fileno())
    try:
        if path.exists():
            shutil.copystat(path, temporary)
            status = path.stat()
            os.chown(temporary, status.st_uid, status.st_gid)
        else:
            temporary.chmod(0o644)
        _age(temporary)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _age(path: Path) -> None:
    then = time.time() - _AGE
    os.utime(path, (then, then))
