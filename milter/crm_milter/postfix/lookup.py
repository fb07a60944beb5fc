"""Postfix's lookup tables: what postmap(1) finds in them, many keys in one call.

A table that cannot be asked counts as empty; ``failures`` says which those were, and why.
"""

import re
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

from crm_milter.postfix.postconf import TIMEOUT, Postconf, PostfixError, last_line

# postmap -s can list these; of the others only texthash is a file that we can read ourselves.
_LISTABLE = frozenset({"hash", "btree", "lmdb", "cdb", "dbm", "sdbm"})
INDEXED = {"hash": ".db", "btree": ".db", "lmdb": ".lmdb", "cdb": ".cdb"}
# These ask no server: all others may be silent, and postmap waits for them.
_FILES = _LISTABLE | {"texthash", "regexp", "pcre", "cidr", "static", "inline", "fail", "unix"}
_SILENCE = 3.0  # seconds for one table that asks a server
_TIMEOUT = 6.0  # seconds for all that do not answer
_FAILED = re.compile(r"(?:fatal|error|panic): (.*)")


class Tables:
    """The lookup tables of an instance. What was asked once is not asked again."""

    def __init__(self, postconf: Postconf) -> None:
        self._postconf = postconf
        self._found: dict[str, dict[str, str | None]] = {}
        self._listed: dict[tuple[str, str], dict[str, str] | None] = {}
        self._patience = _TIMEOUT
        self.failures: dict[str, str] = {}

    def look_up(self, table: str, keys: Iterable[str]) -> dict[str, str]:
        """Return the values of those keys that are there."""
        found = self._found.setdefault(table, {})
        missing = [key for key in dict.fromkeys(keys) if key and key not in found]
        if missing and table not in self.failures:
            self._ask(table, missing, found)
        return {key: value for key in keys if (value := found.get(key)) is not None}

    def first(self, tables: Iterable[str], keys: Iterable[str]) -> tuple[str, str, str] | None:
        """Return table, key and value of what Postfix finds: all tables for one key, then next."""
        tables = list(tables)
        keys = list(keys)
        for table in tables:
            self.look_up(table, keys)
        for key in keys:
            for table in tables:
                value = self.look_up(table, [key]).get(key)
                if value is not None:
                    return table, key, value
        return None

    def has_failed(self, tables: Iterable[str]) -> bool:
        """Tell whether one of these tables could not be asked."""
        return any(table in self.failures for table in tables)

    def entries(self, table: str, tool: str = "postmap") -> dict[str, str] | None:
        """Return all entries, None where the table cannot be listed (LDAP, patterns, ...).

        ``tool`` is "postalias" for tables in the format of aliases(5).
        """
        if (table, tool) not in self._listed:
            self._listed[table, tool] = self._list(plain(table), tool)
        return self._listed[table, tool]

    def _ask(self, table: str, keys: list[str], found: dict[str, str | None]) -> None:
        started = time.monotonic()
        try:
            done = self._query(plain(table), keys)
        except PostfixError as error:
            self.failures[table] = str(error)
            self._patience -= time.monotonic() - started
            return
        found.update(dict.fromkeys(keys))
        for line in done.stdout.splitlines():
            key, tab, value = line.partition("\t")
            if tab:
                found[key] = value

    def _query(self, table: str, keys: list[str]) -> "subprocess.CompletedProcess[str]":
        """Return what postmap says of these keys; raises PostfixError if it cannot tell."""
        text = "".join(f"{key}\n" for key in keys)
        is_file = table.partition(":")[0] in _FILES
        if self._patience <= 0 and not is_file:
            raise PostfixError("not asked, because other tables did not answer in time")
        timeout = TIMEOUT if is_file else min(_SILENCE, self._patience)
        done = self._postconf.run("postmap", "-q", "-", table, stdin=text, timeout=timeout)
        failed = _FAILED.search(done.stderr)
        if failed:
            raise PostfixError(failed[1])
        if done.returncode not in (0, 1):
            raise PostfixError(last_line(done.stderr) or f"postmap: status {done.returncode}")
        return done

    def _list(self, table: str, tool: str) -> dict[str, str] | None:
        kind, _, path = table.partition(":")
        if kind == "texthash":
            return _read_text(Path(path))
        if kind not in _LISTABLE:
            return None
        done = self._postconf.run(tool, "-s", table)
        if done.returncode != 0:
            return None
        pairs = (line.partition("\t") for line in done.stdout.splitlines())
        colon = ":" if tool == "postalias" else ""
        return {key.removesuffix(colon): value for key, _, value in pairs}


def plain(table: str) -> str:
    """Return a table without ``proxy:``: postmap needs no proxy, nor a Postfix that runs."""
    return table.removeprefix("proxy:")


def _read_text(path: Path) -> dict[str, str] | None:
    """Return the entries of a table in source form (postmap(1), "TABLE FORMAT")."""
    try:
        text = path.read_text("utf-8", "surrogateescape")
    except OSError:
        return None
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    logical = re.sub(r"\n[ \t]+", " ", "\n".join(lines))
    pairs = (line.split(None, 1) for line in logical.splitlines())
    return {pair[0].lower(): pair[1].strip() for pair in pairs if len(pair) == 2}
