"""Where a Postfix instance names our socket, even if by hand, and the edits without it."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from crm_milter.config.listen import Listener
from crm_milter.postfix.edit import Edit
from crm_milter.postfix.lookup import INDEXED, plain
from crm_milter.postfix.milters import OurSocket, parse
from crm_milter.postfix.postconf import Postconf, Service, split_list

_LISTS = ("smtpd_milters", "non_smtpd_milters")
_NAME = re.compile(r"\$(?:(\w+)|\{(\w+)\}|\((\w+)\))")
_DEEPEST = 20  # of one name in another; main.cf may go round in circles
# Tables that are text files, with the address of a client before its milters.
_TEXTS = frozenset({"cidr", "texthash", "regexp", "pcre", *INDEXED})
_KEY = re.compile(r"(/.*/\S*|\S+)([ \t]+)(.*)")


class Ours:
    """What names our socket: listeners that crm-milter may have, and words of main.cf."""

    def __init__(self, listeners: Iterable[Listener], address: str, postconf: Postconf) -> None:
        self._sockets = [OurSocket(each, postconf) for each in listeners]
        self._address = address

    @property
    def names(self) -> list[str]:
        """Return what main.cf may call it."""
        found = [self._address, *(each.address for each in self._sockets)]
        return sorted({each for each in found if each})

    def __call__(self, item: str) -> bool:
        """Tell whether an item of an expanded list is our socket and nothing else."""
        entries = parse(item)
        return bool(entries) and all(
            (self._address and each.address == self._address)
            or any(socket.is_ours(each) for socket in self._sockets)
            for each in entries
        )


def edits(postconf: Postconf, is_ours: Ours) -> list[Edit]:
    """Return the edits that take our socket out of main.cf and master.cf; [] if it is not there."""
    scopes: list[Service | None] = [None, *postconf.services]
    return [
        Edit(scope.label if scope else "", name, ", ".join(kept))
        for scope in scopes
        for name in (scope.overrides if scope else sorted(postconf.explicit))
        if (kept := _kept(postconf, name, scope, is_ours)) is not None
    ]


def _kept(postconf: Postconf, name: str, scope: Service | None, is_ours: Ours) -> list[str] | None:
    """Return the items of a list without ours, None where it has none of ours."""
    items = split_list(postconf.raw(name, scope))
    if name == "smtpd_milter_maps":
        kept = [each for each in items if not is_ours(_static(expanded(postconf, each, scope)))]
    else:
        kept = [
            each
            for each in items
            # What $name stands for is found at that name.
            if _NAME.fullmatch(each) or not is_ours(expanded(postconf, each, scope))
        ]
    return kept if len(kept) < len(items) else None


def _static(table: str) -> str:
    return plain(table).removeprefix("static:") if plain(table).startswith("static:") else ""


def expanded(
    postconf: Postconf,
    text: str,
    scope: Service | None,
    stop: re.Pattern[str] | None = None,
) -> str:
    """Return a part of a value with every ``$name`` expanded, or until ``stop`` is found in it."""
    for _ in range(_DEEPEST):
        if stop and stop.search(text):
            break
        text, count = _NAME.subn(
            lambda match: postconf.raw(match[1] or match[2] or match[3], scope), text
        )
        if not count:
            break
    return text


@dataclass(frozen=True, slots=True)
class TableEdit:
    """A table of smtpd_milter_maps that names our socket; ``kind`` is its type."""

    kind: str
    path: Path
    before: str
    after: str


def table_edits(postconf: Postconf, is_ours: Ours) -> list[TableEdit]:
    """Return the text files of smtpd_milter_maps, with and without our socket."""
    found: dict[Path, TableEdit] = {}
    for table in _maps(postconf):
        kind, _, path = plain(table).partition(":")
        if kind not in _TEXTS:
            continue
        try:
            text = Path(path).read_bytes().decode("utf-8", "surrogateescape")
        except OSError:
            continue
        after = "".join(_line(each, is_ours) for each in re.findall(r"[^\n]*\n|[^\n]+", text))
        if after != text:
            found[Path(path)] = TableEdit(kind, Path(path), text, after)
    return list(found.values())


def _maps(postconf: Postconf) -> Iterator[str]:
    for service in postconf.running_as("smtpd"):
        yield from split_list(postconf.value("smtpd_milter_maps", service))


def _line(line: str, is_ours: Ours) -> str:
    match = _KEY.match(line)
    if not match or line.startswith("#"):
        return line
    items = split_list(match[3])
    kept = [each for each in items if not is_ours(each)]
    if len(kept) == len(items):
        return line
    # An empty value would be no entry at all (smtpd_milter_maps, postconf(5)).
    return match[1] + match[2] + (", ".join(kept) or "DISABLE") + line[match.end() :]


def remaining(postconf: Postconf, is_ours: Ours) -> list[str]:
    """Return the services and tables where our socket still is."""
    lists = [
        f'{name} of "{service.label}"'
        for service in postconf.running_as("smtpd", "cleanup")
        for name in _LISTS
        if any(map(is_ours, split_list(postconf.value(name, service))))
    ]
    tables = {
        f"smtpd_milter_maps, in {table}"
        for table in _maps(postconf)
        if plain(table).partition(":")[0] in ("inline", "static") and _mentions(table, is_ours)
    }
    return [*lists, *sorted(tables)]


def _mentions(table: str, is_ours: Ours) -> bool:
    return any(is_ours(each) for each in re.split(r"[\s,{}=]+|static:", table) if ":" in each)
