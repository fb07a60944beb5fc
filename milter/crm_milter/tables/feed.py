"""Writes a table of routes from a list, in one transaction: readers see all of it or nothing.

Only rows that differ are written, so that a list which is read every few minutes hardly disturbs
those who read the table meanwhile.
"""

import csv
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from crm_milter.address import AddressError
from crm_milter.tables import columns
from crm_milter.wording import counted

Complain = Callable[[int, str], None]

_TIMEOUT = 60.0  # seconds to wait for other writers, and for readers at the end
_MODE = 0o640  # targets are secret
_COLUMNS = "(address TEXT NOT NULL COLLATE NOCASE PRIMARY KEY, target TEXT NOT NULL) WITHOUT ROWID"
_SAME = "FROM staged WHERE staged.address = routes.address COLLATE NOCASE"
_REMOVE = f"DELETE FROM live.routes WHERE NOT EXISTS (SELECT 1 {_SAME})"  # noqa: S608 - fixed
_CHANGE = (
    f"UPDATE live.routes SET target = (SELECT target {_SAME})"  # noqa: S608 - fixed
    f" WHERE target IS NOT (SELECT target {_SAME})"
)
_GONE = f"SELECT count(*) FROM live.routes WHERE NOT EXISTS (SELECT 1 {_SAME})"  # noqa: S608
_ADD = """INSERT INTO live.routes (address, target) SELECT address, target FROM staged
WHERE NOT EXISTS (
    SELECT 1 FROM live.routes WHERE routes.address = staged.address COLLATE NOCASE
)"""


class Loaded(NamedTuple):
    """What was done: rows in all, and those that were written."""

    rows: int
    added: int
    changed: int
    removed: int


class ShrunkError(Exception):
    """The table would lose more than a third of its rows; the text says so."""


class BadRowsError(Exception):
    """Rows were complained of, and nothing was written."""


def load(lines: Iterable[str], database: Path, complain: Complain, *, force: bool) -> Loaded:
    """Make the table that of the list; nothing is changed if a row is bad.

    Raises BadRowsError, ShrunkError, OSError and sqlite3.Error.
    """
    with closing(sqlite3.connect("", timeout=_TIMEOUT, isolation_level=None)) as connection:
        connection.execute(f"CREATE TABLE staged {_COLUMNS}")
        try:
            _stage(connection, lines, complain)
        except csv.Error as error:
            complain(0, str(error))
            raise BadRowsError from error
        if not force and not _count(connection, "staged"):
            raise ShrunkError("the list has no rows")
        os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _MODE))
        connection.execute("ATTACH ? AS live", (_name(database),))
        # Otherwise a long list would be written, and readers locked out, before its end.
        connection.execute("PRAGMA cache_spill = OFF")
        connection.execute("BEGIN IMMEDIATE")
        try:
            loaded = _replace(connection, force=force)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")
        return loaded


def _name(path: Path) -> bytes:
    """Return the name of a file for SQLite, which has other uses for some without a directory."""
    return os.fsencode(path.absolute())


def _stage(connection: sqlite3.Connection, lines: Iterable[str], complain: Complain) -> None:
    bad = False
    for number, cells in _rows(lines):
        try:
            key, value = _two(cells)
            _add(connection, columns.key(key), ", ".join(columns.targets(value)))
        except AddressError as error:
            complain(number, str(error))
            bad = True
    if bad:
        raise BadRowsError


def _two(cells: list[str]) -> list[str]:
    if any("\n" in cell or "\r" in cell for cell in cells):
        raise AddressError("a line break in a cell: is a quotation mark missing?")
    if len(cells) != len(("address", "target")):
        raise AddressError(f"expected address and target, not {len(cells)} columns")
    return cells


def _add(connection: sqlite3.Connection, key: str, value: str) -> None:
    insert = "INSERT OR IGNORE INTO staged VALUES (?, ?)"
    if connection.execute(insert, (key, value)).rowcount:
        return
    query = "SELECT target FROM staged WHERE address = ?"
    if connection.execute(query, (key,)).fetchone()[0] != value:
        raise AddressError(f'"{key}" is listed before with another target')


def _rows(lines: Iterable[str]) -> Iterator[tuple[int, list[str]]]:
    """Yield number and cells of each row; not those of names of columns, nor of comments."""
    source = iter(lines)
    first = next(source, "").removeprefix("\ufeff")
    reader = csv.reader(chain([first], source), delimiter=_delimiter(first), skipinitialspace=True)
    for row in reader:
        cells = [cell.strip() for cell in row]
        names = reader.line_num == 1 and "@" not in "".join(cells)
        if any(cells) and not names and not cells[0].startswith("#"):
            yield reader.line_num, cells


def _delimiter(line: str) -> str:
    return next((each for each in "\t;" if each in line and "," not in line.split(each)[0]), ",")


def _replace(connection: sqlite3.Connection, *, force: bool) -> Loaded:
    connection.execute(f"CREATE TABLE IF NOT EXISTS live.routes {_COLUMNS}")
    if not force:
        _refuse_loss(connection)
    removed, changed, added = (
        connection.execute(each).rowcount for each in (_REMOVE, _CHANGE, _ADD)
    )
    return Loaded(_count(connection, "live.routes"), added, changed, removed)


def _refuse_loss(connection: sqlite3.Connection) -> None:
    before, gone = _count(connection, "live.routes"), connection.execute(_GONE).fetchone()[0]
    if 3 * gone > before:
        raise ShrunkError(f"the table would lose {gone} of its {counted(before, 'row')}")


def _count(connection: sqlite3.Connection, table: str) -> int:
    query = f"SELECT count(*) FROM {table}"  # noqa: S608 - one of two names
    return int(connection.execute(query).fetchone()[0])
