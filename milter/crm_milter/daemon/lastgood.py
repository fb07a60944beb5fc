"""The last configuration that was served, whole, in the state directory of the service.

It is served again if the file is bad at a start. The bytes of each file are kept under their
digest and a manifest says which file they were; the manifest is replaced last, so that there is
always one that is complete.
"""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from crm_milter.config.atomic import replace
from crm_milter.config.sources import MAX_BYTES, Disk, Found, copied, domains_key, key

_MANIFEST = "last-good.json"
_OBJECTS = "last-good"


class Store:
    """The state directory, as systemd names it; without one nothing is kept."""

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def save(self, path: Path, sources: Disk) -> None:
        """Keep what ``path`` and the files that it names were read from; raises OSError."""
        if self._folder is None or not sources.copies:
            return
        objects = self._folder / _OBJECTS
        objects.mkdir(mode=0o700, exist_ok=True)
        digests = sources.digests | sources.tables
        for name, copy in sources.copies.items():
            _write(objects / digests[name], copy)
        manifest = {
            "path": key(path),
            "accepted": time.time(),
            "digest": sources.digest(),
            "files": {name: digests[name] for name in sources.copies},
            "folders": sources.folders,
        }
        replace(self._folder / _MANIFEST, json.dumps(manifest, indent=1).encode())
        for each in objects.iterdir():
            if each.name not in manifest["files"].values():  # type: ignore[attr-defined]
                each.unlink()

    def kept(self, path: Path) -> "Kept | None":
        """Return what was last served from ``path``, if it is there and whole."""
        if self._folder is None:
            return None
        try:
            with _opened(self._folder / _MANIFEST) as stream:
                manifest = json.loads(stream.read(MAX_BYTES))
        except (OSError, ValueError, RecursionError):
            return None
        if not _is_whole(manifest) or manifest["path"] != key(path):
            return None
        return Kept(self._folder / _OBJECTS, manifest)


def _is_whole(manifest: Any) -> bool:
    """Tell whether a manifest has what it had when it was written: a disk may have damaged it."""
    try:
        texts = [manifest["path"], manifest["digest"], *manifest["files"].values()]
        for names in manifest["folders"].values():
            texts += [*names]
        time.gmtime(manifest["accepted"])
    except (TypeError, KeyError, AttributeError, ValueError, OverflowError, OSError):
        return False
    return all(isinstance(each, str) and "\0" not in each for each in texts)


def _opened(path: Path) -> BinaryIO:
    """Open a file; if it is a FIFO, do not wait for a writer."""
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")


@dataclass(frozen=True, slots=True)
class Kept:
    """Sources that are copies."""

    _objects: Path
    _manifest: dict[str, Any]

    @property
    def accepted(self) -> float:
        """Return when it was served first, in seconds since the epoch."""
        return float(self._manifest["accepted"])

    @property
    def digest(self) -> str:
        """Return the digest of all the files together."""
        return str(self._manifest["digest"])

    def digest_of(self, path: Path) -> str:
        """Return the SHA-256 of one of the files."""
        return str(self._manifest["files"].get(key(path), ""))

    def open(self, path: Path, most: int = MAX_BYTES) -> BinaryIO:
        """Return the bytes of a file as they were."""
        self.find(path)
        expected = self._manifest["files"][key(path)]
        with _opened(self._objects / expected) as stream:
            copy, digest = copied(stream, most)
        if digest != expected:
            raise OSError(0, "the copy that was kept is damaged")
        return copy

    def names(self, folder: Path) -> list[str]:
        """Return the names that a directory had."""
        names: list[str] | None = self._manifest["folders"].get(key(folder))
        if names is None:
            raise FileNotFoundError(2, os.strerror(2))
        return names

    def find(self, path: Path) -> None:
        """Return if the file was kept."""
        if key(path) not in self._manifest["files"]:
            raise FileNotFoundError(2, os.strerror(2))

    def domains(self, path: Path) -> Found:
        """Return the domains that a table had."""
        with self.open(Path(domains_key(path))) as stream:
            listed = stream.read().decode("utf-8", "surrogateescape")
        return Found(listed.split("\n") if listed else [])


def state_directory() -> Path | None:
    """Return the directory that the service may keep something in (systemd.exec(5))."""
    name = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    return Path(name) if name else None


def _write(path: Path, copy: BinaryIO) -> None:
    copy.seek(0)
    data = copy.read()
    if not _has(path, data):
        replace(path, data)


def _has(path: Path, data: bytes) -> bool:
    try:
        return path.is_file() and path.read_bytes() == data
    except OSError:
        return False
