"""``load``: a table of routes from a file with two columns."""

import argparse
import io
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from crm_milter.cli.terminal import EX_NO, EX_OK, say
from crm_milter.config.problems import ConfigError, Problems
from crm_milter.tables import feed
from crm_milter.wording import counted, why

_SHOWN = 20  # bad rows


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "table",
        metavar="TABLE.csv",
        help="CSV file with the columns address and target; - is standard input",
    )
    command.add_argument(
        "database", type=Path, metavar="DB", help="SQLite file; created if it does not exist"
    )
    command.add_argument(
        "--force",
        action="store_true",
        help="load it even if more than a third of the rows would be lost",
    )


def load_table(options: argparse.Namespace) -> int:
    """Load a table of addresses and targets into the SQLite file of an address_map.

    The file is changed in one transaction, and only if every row is valid: a running crm-milter
    uses the old table until it uses the new one. A table that would lose more than a third of its
    rows, by their addresses, is refused without --force.
    """
    problems = Problems(options.table, _SHOWN)

    def complain(line: int, message: str) -> None:
        problems.add(line, (), message)

    try:
        with _lines(options.table) as lines:
            done = feed.load(lines, options.database, complain, force=options.force)
    except feed.BadRowsError:
        _say_all(problems)
        say(f"{options.database}: not changed")
        return EX_NO
    except feed.ShrunkError as error:
        say(f"{options.database}: not changed: {error}; use --force if that is intended")
        return EX_NO
    except UnicodeDecodeError:
        say(f"{options.table}: not valid UTF-8; {options.database} is not changed")
        return EX_NO
    except (OSError, sqlite3.Error) as error:
        reason = why(error) if isinstance(error, OSError) else str(error)
        say(f"{getattr(error, 'filename', None) or options.database}: {reason}")
        return EX_NO
    changes = f"{done.added} added, {done.changed} changed, {done.removed} removed"
    print(f"{options.database}: {counted(done.rows, 'row')}: {changes}")
    return EX_OK


@contextmanager
def _lines(name: str) -> Iterator[TextIO]:
    if name == "-":
        yield io.TextIOWrapper(sys.stdin.buffer, "utf-8", newline="")
        return
    with Path(name).open(encoding="utf-8", newline="") as stream:
        yield stream


def _say_all(problems: Problems) -> None:
    try:
        problems.raise_errors()
    except ConfigError as error:
        for problem in error.problems:
            say(str(problem))
