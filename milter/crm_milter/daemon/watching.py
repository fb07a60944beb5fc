"""Whether the files of a configuration have changed since they were read, and are complete now.

A file is known by its number, size and time, whatever links lead to it: so a ConfigMap that is
replaced as a whole is also seen. What has changed has to stay as it is for one interval, since it
may be half written.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from crm_milter.config.sources import State, state_of

Seen = tuple[dict[str, State], dict[str, list[str]]]


@dataclass(slots=True)
class Watch:
    """Looks at what was read last: files by their state, directories by their names."""

    _read: Seen = field(default_factory=lambda: ({}, {}))
    _before: tuple[Seen, dict[str, State]] | None = None  # at the last look, if not as read

    def begin(self, files: dict[str, State], folders: dict[str, list[str]]) -> None:
        """Compare with these from now on."""
        self._read = files, {name: _visible(names) for name, names in folders.items()}
        self._before = None

    def has_changed(self) -> bool:
        """Tell whether something is another than it was, and the same as at the last look."""
        files, folders = self._read
        now = {name: state_of(name) for name in files}, {name: _names(name) for name in folders}
        if now == self._read:
            self._before = None
            return False
        # One that is new may not be complete either; those that no include means may change.
        new = set(_paths(now[1])) - set(_paths(folders))
        others = {path: state_of(path) for path in new}
        is_complete = (now, others) == self._before
        self._before = now, others
        return is_complete


def _paths(folders: dict[str, list[str]]) -> Iterator[str]:
    return (f"{folder}/{name}" for folder, names in folders.items() for name in names)


def _names(folder: str) -> list[str]:
    try:
        return _visible(sorted(os.listdir(folder)))  # noqa: PTH208 - names are what is compared
    except OSError:
        return []


def _visible(names: list[str]) -> list[str]:
    """Return names without those of editors, which no pattern of an include means."""
    return [name for name in names if not name.startswith(".") and not name.endswith("~")]
