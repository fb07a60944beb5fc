"""Changes of main.cf and master.cf, tried on a copy before the real files see them.

postconf edits the copy of main.cf; in master.cf only the option itself is replaced, so that the
layout and the marked blocks of other tools stay as they are.
"""

import errno
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path

from crm_milter.postfix import mastercf
from crm_milter.postfix.edit import Edit, without_blanks
from crm_milter.postfix.files import (
    FILES,
    ChangedError,
    Texts,
    age,
    read_texts,
    real,
    replace_if,
    write_atomically,
)
from crm_milter.postfix.postconf import Postconf, PostfixError, last_line
from crm_milter.wording import why


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
            raise PostfixError(
                f'cannot change {edit.name} of "{edit.scope}" in master.cf: write that option on'
                f" one line, -o {{ {edit.name} = value }}"
            )

    def _explicit(self, edit: Edit) -> str | None:
        found = (each for each in self.postconf.services if each.label == edit.scope)
        value = next((each.overrides.get(edit.name) for each in found), None)
        return None if value is None else without_blanks(value)


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
