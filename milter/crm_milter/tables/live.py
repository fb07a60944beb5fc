"""A table that is asked for every recipient, by connections that only read.

libmilter's threads take a connection each and put it back, so there are no more of them than
threads at work. A table that cannot be read is a TableError for the addresses of its domains, and
has nothing for all others.
"""

import sqlite3
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import idna

from crm_milter import address as addresses
from crm_milter.rules.rule import TableError
from crm_milter.tables import columns, database
from crm_milter.tables.domains import Domains
from crm_milter.wording import one_line

_TIMEOUT = 2.0  # seconds to wait for a lock, for an address of the table
_HASTE = 0.1  # the same for others
_REST = 1.0  # seconds after a lock was waited for without success, in which none is waited for
_AGAIN = 60.0  # seconds between two looks for new domains
_ACE = "@xn--", ".xn--"


def _nothing(_line: str) -> None:
    pass


@dataclass(eq=False)
class Live:
    """The table ``routes`` of one file. ``fence`` are the only domains it is for, if not None."""

    path: Path
    domains: Domains
    fence: frozenset[str] | None = None
    _log: Callable[[str], None] = _nothing
    _idle: list[database.Connection] = field(default_factory=list)
    _rest_until: float = 0.0
    _looked: tuple[float, database.Version | None] = (0.0, None)

    def report_to(self, log: Callable[[str], None]) -> None:
        """Say there from now on what is wrong in the table."""
        self._log = log

    def get(self, key: str) -> tuple[str, ...] | None:
        """Return the targets of a key, () if they are no addresses; raises TableError."""
        domain = addresses.domain_of(key)
        if not domain or (self.fence is not None and domain not in self.fence):
            return None
        is_own = domain in self.domains
        try:
            found = self._ask(key, is_own=is_own)
        except (sqlite3.Error, OSError) as error:
            if not is_own:
                return None
            reason = database.trouble(self.path, error)
            message = f'table "{self.path}": {reason}; mail for {domain} is put off'
            raise TableError(message) from error
        except UnicodeEncodeError:  # no row has that
            return None
        if not found:
            return None
        if not is_own:
            self.domains.learn(domain)
        return self._targets(key, found)

    def _targets(self, key: str, found: list[str]) -> tuple[str, ...]:
        try:
            return columns.targets(", ".join(found))
        except addresses.AddressError as error:
            self._log(
                f'warning: table "{self.path}": bad target of "{one_line(key)}":'
                f" {one_line(str(error))}"
            )
            return ()

    def _ask(self, key: str, *, is_own: bool) -> list[str]:
        rests = time.monotonic() < self._rest_until
        patience = 0.0 if rests else _TIMEOUT if is_own else _HASTE
        connection = self._connection()
        try:
            rows = [
                row
                for each in spellings(key)
                for row in connection.rows(database.ROUTE, each, patience=patience)
            ]
        except BaseException:
            connection.close()
            if is_own and not rests:
                self._rest_until = time.monotonic() + _REST
            raise
        self._idle.append(connection)
        return [_written(target) for (target,) in rows]

    def _connection(self) -> database.Connection:
        version = database.version(self.path)
        while self._idle:
            try:
                connection = self._idle.pop()
            except IndexError:  # another thread was faster
                break
            if connection.version == version:
                return connection
            connection.close()
        return database.Connection(self.path, version)

    def close(self) -> None:
        """Close what is open: a process that is forked must not share it."""
        while self._idle:
            self._idle.pop().close()

    def look(self, now: float) -> None:
        """Learn of new domains, if the file has changed: from time to time, aside from mail."""
        if now < self._looked[0] + _AGAIN:
            return
        try:
            version = database.version(self.path)
            if version != self._looked[1]:
                for domain in database.domains(self.path, _HASTE):
                    self.domains.learn(addresses.ascii_domain(domain))
        except OSError:
            version = None
        self._looked = now, version

    def rows(self) -> Iterator[tuple[str, str]]:
        """Yield all rows, one after the other; raises OSError."""
        with database.connected(self.path) as connection:
            for key, target in connection.stream("SELECT address, target FROM routes"):
                yield str(key or ""), _written(target)

    def is_indexed(self) -> bool:
        """Tell whether a look-up finds its row by an index; raises OSError."""
        with database.connected(self.path) as connection:
            plan = connection.rows(f"EXPLAIN QUERY PLAN {database.ROUTE}", "", patience=_TIMEOUT)
            return not any(str(row[-1]).startswith("SCAN") for row in plan)


def _written(target: object) -> str:
    """Return a cell as text: some programs write text as a BLOB."""
    if isinstance(target, bytes):
        return target.decode("utf-8", "surrogateescape")
    return "" if target is None else str(target)


def spellings(key: str) -> tuple[str, ...]:
    """Return the spellings of a key that a table may have: such a domain has two."""
    if not any(each in key for each in _ACE):
        return (key,)
    local, at, domain = key.rpartition("@")
    try:
        return key, f"{local}{at}{idna.decode(domain)}"
    except UnicodeError:
        return (key,)
