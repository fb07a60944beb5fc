"""Files that are the old one or the new one, never half of it."""

import os
import tempfile
from pathlib import Path


def replace(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Write a file such that there is the old one or the new one, even after a power cut."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        Path(name).rename(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
