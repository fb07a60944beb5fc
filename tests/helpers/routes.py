"""SQLite files with a table of routes, as an application of its own might write them."""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

Row = tuple[object, object]

PLAIN = "CREATE TABLE routes (address TEXT, target TEXT)"
UNIQUE = "CREATE TABLE routes (address TEXT PRIMARY KEY COLLATE NOCASE, target TEXT) WITHOUT ROWID"


def database(path: Path, rows: Iterable[Row] = (), schema: str = UNIQUE, mode: str = "") -> Path:
    """Write a file with these rows; ``mode`` is a journal mode such as WAL."""
    with closing(sqlite3.connect(path)) as connection:
        if mode:
            connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute(schema)
        connection.executemany("INSERT INTO routes VALUES (?, ?)", rows)
        connection.commit()
    return path


def execute(path: Path, statement: str, *values: object) -> None:
    """Change a file, as any program may, and commit."""
    with closing(sqlite3.connect(path, timeout=10)) as connection:
        connection.execute(statement, values)
        connection.commit()


def add(path: Path, address: object, target: object) -> None:
    """Add a row."""
    execute(path, "INSERT INTO routes VALUES (?, ?)", address, target)


def locked(path: Path) -> sqlite3.Connection:
    """Return a connection that lets nobody read, until it is closed."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    return connection
