"""Changes of main.cf and master.cf, tried on a copy before the real files see them.

postconf edits the copy of main.cf; in master.cf only the option itself is replaced, so that the
layout and the marked blocks of other tools stay as they are.
"""

import errno
import tempfile
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from crm_milter.postfix import mastercf
from crm_milter.postfix.files import ChangedError, age, real, replace_if, write_atomically
from crm_milter.postfix.postconf import Postconf, PostfixError, last_line, split_list
from crm_milter.tables import why

FILES = ("main.cf", "master.cf")

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
    """A directory with a copy of the two files of ``home``, to be edited."""

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
        """Change one parameter; raises PostfixError if that is impossible."""
        if edit.scope:
            self._apply_master(edit)
        else:
            self._apply_main(edit)
        for name in FILES:
            age(self.path / name)

    def _apply_main(self, edit: Edit) -> None:
        text = self.texts["main.cf"]
        if not text.endswith("\n"):  # postconf would append to the last line, a comment even
            write_atomically(self.path / "main.cf", text + "\n")
        done = self.postconf.run("postconf", *edit.arguments)
        if done.returncode != 0 or "unmatched" in done.stderr:
            raise PostfixError(last_line(done.stderr) or "postconf failed")

    def _apply_master(self, edit: Edit) -> None:
        value = None if edit.value is None else without_blanks(edit.value)
        text = mastercf.with_option(self.texts["master.cf"], edit.scope, edit.name, value)
        if text is not None:
            write_atomically(self.path / "master.cf", text)
        if text is None or self._explicit(edit) != value:
            raise PostfixError(f'cannot change {edit.name} of "{edit.scope}" in master.cf')

    def _explicit(self, edit: Edit) -> str | None:
        found = (each for each in self.postconf.services if each.label == edit.scope)
        value = next((each.overrides.get(edit.name) for each in found), None)
        return None if value is None else without_blanks(value)


def read_texts(folder: Path) -> dict[str, str]:
    """Return main.cf and master.cf, to the byte; raises PostfixError."""
    try:
        return {
            name: (folder / name).read_bytes().decode("utf-8", "surrogateescape") for name in FILES
        }
    except OSError as error:
        raise PostfixError(f'cannot read "{error.filename}": {error.strerror}') from error


def replace_text(path: Path, before: str, after: str) -> None:
    """Replace a file of Postfix if it still has the text ``before``; raises PostfixError if not."""
    try:
        replace_if(path, before, after)
    except ChangedError:
        raise PostfixError(
            f'"{path}" changed in the meantime and was not touched; run the command again'
        ) from None
    except OSError as error:
        made = "" if error.errno != errno.EROFS else "; if it is generated, change its source"
        raise PostfixError(f'cannot write "{real(path)}": {why(error)}{made}') from error
