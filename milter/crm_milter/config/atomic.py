"""Files that are the old one or the new one, never half of it."""

import os
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path


def replace(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file such that there is the old one or the new one, even after a power cut."""
    new = _written(path.parent, data, mode)
    try:
        new.rename(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise


def create(files: Mapping[Path, bytes], mode: int = 0o644) -> None:
    """Write new files, all of them or none; raises OSError, also if one is there already."""
    with ExitStack() as undo:
        staged = {}
        with ExitStack() as temporary:
            for path, data in files.items():
                staged[path] = _written(path.parent, data, mode)
                temporary.callback(staged[path].unlink, missing_ok=True)
            for path, new in staged.items():
                path.hardlink_to(new)  # a rename would replace what is there
                undo.callback(path.unlink, missing_ok=True)
        undo.pop_all()


def _written(folder: Path, data: bytes, mode: int) -> Path:
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
    return Path(name)
