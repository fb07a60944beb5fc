"""Text files next to the configuration: lists of addresses, and tables in Postfix's format.

A file is read line by line, as UTF-8, and every bad line is noted with its number; only what is
good comes out. Domains come out as A-labels, addresses that are looked up in normal form.
"""

import os
import re
from collections.abc import Callable, Iterator, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from crm_milter import address as addresses
from crm_milter import mailbox, precis
from crm_milter.config import international
from crm_milter.config.problems import AlreadyReported, Problems, Severity
from crm_milter.config.sources import Disk, Sources
from crm_milter.tables import columns
from crm_milter.wording import why

if TYPE_CHECKING:
    from crm_milter.tables.live import Live

# Problems of one file: a wrong one is bad in every line.
SHOWN_LINES = 20

T = TypeVar("T", bound=Sized)
Read = Callable[[BinaryIO, Problems], T]

# As postmap(1) has it (isspace(3)); any other blank of Unicode is part of an address.
_BLANKS = " \t\n\v\f\r"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_TABLE_TYPE = re.compile(r"(?:file|hash|btree|lmdb|dbm|sdbm|cdb|texthash|static|proxy):")
_SIGHT = 4096


class Files:
    """What the configuration names, each file read once; paths start where it is named."""

    def __init__(self, problems: Problems, sources: Sources | None = None) -> None:
        self._problems = problems
        self._sources = sources or Disk()
        self._folder = Path(problems.file).parent
        self._fence: frozenset[str] | None = None
        self._results: dict[tuple[str, Read[Any]], Any] = {}

    def seen_from(self, file: Path, domains: frozenset[str] | None = None) -> "Files":
        """Return the same files with paths that start at another file of the configuration.

        A table that is asked for each address is for these domains, if not None.
        """
        files = Files(self._problems, self._sources)
        files._fence = domains
        files._folder = file.parent
        files._results = self._results
        return files

    def read(self, name: str, read: Read[T]) -> T:
        """Return what a file comes to.

        Raises ValueError if it cannot be read or has no entry, and AlreadyReported if some of its
        lines are bad. A file without an entry is more likely one that is just being written, or a
        full disk, than a wish: taken at its word it would send mail elsewhere.
        """
        if _TABLE_TYPE.match(name):
            raise ValueError(f'write only the path, without "{name.partition(":")[0]}:"')
        path = self._folder / name
        key = os.path.normpath(path.absolute()), read
        if key not in self._results:
            try:
                self._results[key] = self._read(path, read)
            except OSError as error:
                raise ValueError(f'"{name}": {why(error)}') from error
        result: T | None = self._results[key]
        if result is None:
            raise AlreadyReported
        if not result:
            raise ValueError(f'"{name}" has no entries; add one, or remove what names this file')
        return result

    def live(self, name: str) -> "Live":
        """Return the table of routes in a SQLite file; raises ValueError if it cannot be read."""
        from crm_milter.tables.domains import Domains  # here: SQLite takes memory that few need
        from crm_milter.tables.live import Live

        path = Path(os.path.normpath((self._folder / name).absolute()))
        try:
            found = self._sources.domains(path)
        except OSError as error:
            raise ValueError(f'"{name}": {why(error)}') from error
        if found.trouble:
            message = f"{found.trouble}; mail for its domains is answered with 451 meanwhile"
            self._problems.for_file(str(path)).add(0, (), message, Severity.WARNING)
        return Live(path, Domains(found.domains), self._fence)

    def _read(self, path: Path, read: Read[T]) -> T | None:
        with self._sources.open(path) as stream:
            if b"\0" in stream.read(_SIGHT):
                raise OSError(
                    0,
                    "not a text file; name the source file, not the one that postmap makes from it",
                )
            stream.seek(0)
            problems = self._problems.for_file(str(path), SHOWN_LINES)
            result = read(stream, problems)
        return None if problems.has_errors else result


def _lines(stream: BinaryIO, problems: Problems) -> Iterator[tuple[int, str]]:
    """Yield the lines that say something, without white space at their end."""
    for number, data in enumerate(stream, 1):
        try:
            text = data.removeprefix(_BYTE_ORDER_MARK) if number == 1 else data
            line = text.decode().rstrip(_BLANKS)
        except UnicodeDecodeError as error:
            problems.add(number, (), f"byte 0x{error.object[error.start]:02x} is not valid UTF-8")
            continue
        start = line.lstrip(_BLANKS)
        if start and start[0] != "#":
            yield number, line


_COMMENT = re.compile(r"\s+#.*", re.ASCII)


def address_list(stream: BinaryIO, problems: Problems) -> frozenset[str]:
    """Return the addresses of a list, one a line, in normal form."""
    listed = set()
    for number, line in _lines(stream, problems):
        text = line if line[0] == '"' else _COMMENT.sub("", line).strip(_BLANKS)
        try:
            listed.add(_one(text))
            _warn(number, problems, precis.mixed(text))
        except addresses.AddressError as error:
            problems.add(number, (), str(error))
    return frozenset(listed)


def _warn(line: int, problems: Problems, *messages: str) -> None:
    for message in filter(None, messages):
        problems.add(line, (), message, Severity.WARNING)


def _one(text: str) -> str:
    if text.startswith("@"):
        message = (
            f'a list file may contain only addresses; put "{text}" in the configuration instead'
        )
        raise addresses.AddressError(message)
    if "*" in text:
        message = (
            f'a list file may contain only addresses; put the pattern "{text}" in the'
            " configuration instead"
        )
        raise addresses.AddressError(message)
    return addresses.normalise(mailbox.mailbox(text))


_QUOTED_KEY = re.compile(r'"((?:[^"\\]|\\.)*)"(\S*)(?:\s+(.*))?', re.ASCII)


def entries(stream: BinaryIO, problems: Problems) -> Iterator[tuple[int, str, str]]:
    """Yield line, key and value of the entries of a table (postmap(1)): a value may be empty.

    A line that begins with white space continues the one before, whatever comments and empty
    lines are between.
    """
    first, entry = 0, ""
    for number, line in _lines(stream, problems):
        if line[0] not in " \t":
            if entry:
                yield (first, *_parted(entry))
            first, entry = number, line
        elif entry:
            entry = f"{entry} {line.lstrip(_BLANKS)}"
        else:
            problems.add(
                number,
                (),
                "continuation line (leading white space), but there is no line before it",
            )
    if entry:
        yield (first, *_parted(entry))


def _parted(entry: str) -> tuple[str, str]:
    quoted = _QUOTED_KEY.fullmatch(entry) if entry[0] == '"' else None
    if quoted:
        inside, rest, value = quoted.groups("")
        # Postfix quotes a key whole: "john doe@a.example"; SMTP only its local part.
        whole = re.sub(r"\\(.)", r"\1", inside)
        return (f'"{inside}"{rest}' if rest else addresses.written(whole)), value
    key, _, value = entry.replace("\t", " ").partition(" ")
    return key, value.strip(_BLANKS)


def address_map(stream: BinaryIO, problems: Problems) -> dict[str, tuple[str, ...]]:
    """Return the targets by address in normal form or ``@domain``.

    Of several entries with one key the first counts, as for postmap(1); the others are warned of.
    """
    table: dict[str, tuple[str, ...]] = {}
    shared: dict[tuple[str, ...], tuple[str, ...]] = {}
    for number, key, value in entries(stream, problems):
        try:
            normal = columns.key(key)
            targets = columns.targets(value)
            _warn(number, problems, precis.mixed(key), *map(international.risk, targets))
        except addresses.AddressError as error:
            problems.add(number, (), str(error))
            continue
        if normal in table:
            message = f'duplicate key "{normal}": only the first entry is used'
            problems.add(number, (), message, Severity.WARNING)
        else:
            table[normal] = shared.setdefault(targets, targets)
    return table


def accounts(stream: BinaryIO, problems: Problems) -> frozenset[str]:
    """Return the addresses in the first column of a table, in normal form.

    The name of a domain that has addresses in the same table is passed over: so begins a virtual
    alias domain in virtual(5).
    """
    listed: set[str] = set()
    bare: list[tuple[int, str]] = []
    for number, key, _ in entries(stream, problems):
        try:
            if "@" not in key:
                bare.append((number, key))
            elif key.startswith("@"):
                message = (
                    f'"{key}" is not an account; it would make every address of the domain known'
                )
                raise addresses.AddressError(message)
            else:
                listed.add(addresses.normalise(mailbox.mailbox(key)))
                _warn(number, problems, precis.mixed(key))
        except addresses.AddressError as error:
            problems.add(number, (), str(error))
    domains = {addresses.domain_of(each) for each in listed} if bare else set()
    for number, key in bare:
        if addresses.ascii_domain(key) not in domains:
            problems.add(number, (), f'"{key}" has no domain')
    return frozenset(listed)
