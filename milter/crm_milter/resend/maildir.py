"""The messages of a Maildir, and the flag that says that one was passed on."""

from collections.abc import Iterator
from pathlib import Path

# https://cr.yp.to/proto/maildir.html
_PASSED = "P"
_TRASHED = "T"
_DONE = frozenset({_PASSED, _TRASHED})


def is_maildir(path: Path) -> bool:
    """Tell whether a directory holds a Maildir."""
    return all((path / each).is_dir() for each in ("cur", "new"))


def messages(path: Path) -> Iterator[Path]:
    """Yield the messages that are neither passed on nor deleted, oldest first; raises OSError."""
    found = [each for name in ("new", "cur") for each in (path / name).iterdir()]
    for each in sorted(found, key=lambda message: message.name):
        if not each.name.startswith(".") and _DONE.isdisjoint(_flags(each.name)):
            yield each


def mark(message: Path) -> None:
    """Mark a message as passed on, if it is one of a Maildir; raises OSError."""
    message = message.absolute()
    folder = message.parent.parent
    if message.parent.name in ("cur", "new") and is_maildir(folder):
        base = message.name.partition(":2,")[0]
        flags = "".join(sorted({*_flags(message.name), _PASSED}))
        message.rename(folder / "cur" / f"{base}:2,{flags}")


def _flags(name: str) -> str:
    return name.partition(":2,")[2]
