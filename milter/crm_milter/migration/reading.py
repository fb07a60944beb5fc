"""Tables of virtual aliases and lists of two columns: files in, entries out, problems noted."""

import codecs
import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from crm_milter import address as addresses
from crm_milter import mailbox
from crm_milter.config import files
from crm_milter.config.crms import crm_of
from crm_milter.config.problems import Problems
from crm_milter.tables import columns

_SHOWN = 1000
# A first field and its delimiter: the key of a table has neither.
_IS_CSV = re.compile(r'(?:"(?:[^"]|"")*"|[^\s",;|#][^\s",;|]*)[ \t]*([,;|])')
_IS_TABBED = re.compile(r'"(?:[^"]|"")*"(\t)')
_BLANK_IN_KEY = re.compile(rb'(?m)^([^\s"#][^\t"\r\n]* [^\t"\r\n]*@[^\s"]+)\t')


@dataclass(frozen=True, slots=True)
class AliasEntry:
    """One entry of a table: an address or ``@domain`` in normal form, and where it leads.

    A target is an address, or ``@domain`` for the same user there. ``is_listed``: it comes from a
    list, in which every line is meant.
    """

    file: str
    line: int
    key: str
    targets: tuple[str, ...]
    is_listed: bool = False

    @property
    def is_alias_domain(self) -> bool:
        """Tell whether it leads all users of a domain to the same users of another."""
        return all(each.startswith("@") for each in self.targets)

    def __str__(self) -> str:
        return f"{written(self.key)}  {', '.join(self.targets)}"


def written(key: str) -> str:
    """Return an address or ``@domain`` in normal form as a table has it."""
    return key if key.startswith("@") else addresses.written(key)


def entries(data: bytes, problems: Problems, origin: str = "") -> list[AliasEntry]:
    """Return the entries of a file; ``origin`` is the domain of names that have none."""
    data = _utf8(data)
    delimiter = _delimiter(data)
    reader = _Reader(problems, origin, is_listed=bool(delimiter))
    rows = _rows(data, delimiter, problems) if delimiter else _lines(data, problems)
    return reader.entries(list(rows))


def _utf8(data: bytes) -> bytes:
    """Return text as UTF-8 without a mark: spreadsheets also write UTF-16."""
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        data = data.decode("utf-16", "replace").encode()
    return data.removeprefix(codecs.BOM_UTF8)


def _delimiter(data: bytes) -> str:
    """Return what separates the columns of a list, "" for a table."""
    for line in data.decode("utf-8", "replace").splitlines():
        if line.strip() and not line.startswith("#"):
            found = _IS_CSV.match(line.strip()) or _IS_TABBED.match(line)
            return found[1] if found else ""
    return ""


def _lines(data: bytes, problems: Problems) -> Iterator[tuple[int, str, str]]:
    # "postmap -s" shows a key with blanks without quotes, and a tab behind it.
    return files.entries(BytesIO(_BLANK_IN_KEY.sub(rb'"\1"\t', data)), problems)


def _rows(data: bytes, delimiter: str, problems: Problems) -> Iterator[tuple[int, str, str]]:
    lines = data.decode("utf-8", "surrogateescape").splitlines(keepends=True)
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    is_first = True
    try:
        for row in reader:
            cells = [each.strip() for each in row]
            while cells and not cells[-1]:
                cells.pop()
            is_header, is_first = is_first and bool(cells) and "@" not in "".join(cells), False
            if not cells or cells[0].startswith("#") or is_header:
                is_first = not cells
            elif any("\n" in cell or "\r" in cell for cell in cells):
                message = "a line break in a cell: is a quotation mark missing?"
                problems.add(reader.line_num, (), message)
            elif len(cells) != 2:
                problems.add(reader.line_num, (), f"expected two columns, found {len(cells)}")
            else:
                yield reader.line_num, cells[0], cells[1]
    except csv.Error as error:
        problems.add(reader.line_num, (), f"invalid CSV: {error}")


class _Reader:
    """Turns keys and values into entries, and notes those that it does not understand."""

    def __init__(self, problems: Problems, origin: str, *, is_listed: bool) -> None:
        self._problems = problems
        self._origin = origin
        self._is_listed = is_listed

    def entries(self, rows: list[tuple[int, str, str]]) -> list[AliasEntry]:
        domains = {
            addresses.ascii_domain(key.rpartition("@")[2]) for _, key, _ in rows if "@" in key
        }
        found = []
        for line, key, value in rows:
            if "@" not in key and addresses.ascii_domain(key) in domains:
                continue  # so begins a virtual alias domain in virtual(5)
            try:
                found.append(self._entry(line, key, value))
            except addresses.AddressError as error:
                self._problems.add(line, (), str(error))
        return found

    def _entry(self, line: int, key: str, value: str) -> AliasEntry:
        normal = self._key(key)
        crm = _crm(addresses.domain_of(normal))
        if crm:
            message = (
                f'"{key}" is an address of {crm}; the address that people write to comes first'
            )
            raise addresses.AddressError(message)
        targets = tuple(dict.fromkeys(self._target(each, normal) for each in self._split(value)))
        if not targets:
            raise addresses.AddressError(f'"{key}" has no target')
        return AliasEntry(self._problems.file, line, normal, targets, self._is_listed)

    def _key(self, text: str) -> str:
        if any("\udc80" <= each <= "\udcff" for each in text):
            raise addresses.AddressError("not valid UTF-8; save the file as UTF-8")
        if text.endswith(":"):
            message = f'"{text}" is a line of aliases(5), not of virtual(5): write a full address'
            raise addresses.AddressError(message)
        if text.startswith(("/", "!/")) or text.lower() in ("if", "endif"):  # regexp_table(5)
            message = f'"{text}" is a regular expression; write its rule by hand (match: "/.../")'
            raise addresses.AddressError(message)
        return columns.key(self._full(text))

    def _split(self, value: str) -> list[str]:
        return columns.TARGET.findall(value.replace(";", ",") if self._is_listed else value)

    def _full(self, text: str) -> str:
        if "@" in text:
            return text
        if not self._origin:
            message = f'"{text}" has no domain; use --origin DOMAIN for the domain of such names'
            raise addresses.AddressError(message)
        return f"{text}@{self._origin}"

    def _target(self, text: str, key: str) -> str:
        if text.startswith("#"):
            raise addresses.AddressError("a comment must be on a line of its own")
        if text.startswith(("|", "/", ":", '"|', '"/')):
            raise addresses.AddressError(f'"{text}" is a command or a file, not an address')
        if text.startswith("@"):
            domain = mailbox.checked_domain(text[1:])
            return f"@{domain}" if key.startswith("@") else f"{addresses.local_of(key)}@{domain}"
        return mailbox.mailbox(self._full(text))


def _crm(domain: str) -> str:
    crm = crm_of(domain)
    return crm.name if crm and crm.domain.fullmatch(domain) else ""
