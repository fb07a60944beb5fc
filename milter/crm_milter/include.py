"""Which files ``include`` means: names, or patterns of names, in the order of the names.

Nothing that is meant may be overlooked in silence, so a folder is listed here rather than by
``glob``, which takes one that it may not read for an empty one.
"""

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from crm_milter.schema import Section
from crm_milter.sources import Sources
from crm_milter.tables import why

_SPECIAL = frozenset("*?[")


def included(section: Section, file: Path, sources: Sources) -> tuple[Path, ...]:
    """Return the files that the configuration ``file`` includes, each once.

    Notes what cannot be found.
    """
    found: dict[str, Path] = {}
    for number, name in enumerate(section["include"]):
        try:
            for path in _meant(file.parent, name, sources):
                real = os.path.realpath(path)
                if real == os.path.realpath(file):
                    raise ValueError(f'"{name}" also matches this file itself')
                found.setdefault(real, path)
        except OSError as error:
            section.place.complain(("include", number), f'"{name}": {why(error)}')
        except ValueError as error:
            section.place.complain(("include", number), str(error))
    return tuple(found.values())


def _meant(folder: Path, name: str, sources: Sources) -> Iterator[Path]:
    path = folder / name
    if _SPECIAL & set(str(Path(name).parent)):
        raise ValueError('"*", "?" and "[" are allowed in the file name only, not in its directory')
    if not _SPECIAL & set(path.name):
        sources.find(path)
        yield path
        return
    for each in sources.names(path.parent):
        if fnmatchcase(each, path.name) and not each.startswith("."):
            yield path.parent / each
