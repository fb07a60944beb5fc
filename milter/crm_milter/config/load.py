"""The configuration: a file to a ``Config``, or every problem in it.

What comes out is complete and checked: nothing later asks whether a setting makes sense. What
is refused comes as one ConfigError with all problems; what is only odd, in ``warnings``.
"""

import gc
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from time import time
from typing import Any, BinaryIO

from crm_milter.config import document, keys
from crm_milter.config.build import MilterSettings, Reload, RuleEntry, SpamSettings
from crm_milter.config.files import Files
from crm_milter.config.includes import included, within
from crm_milter.config.kinds import Table
from crm_milter.config.lint import crms, nets, rules
from crm_milter.config.listen import LONGEST_SOCKET_PATH, UnixSocket
from crm_milter.config.place import Section
from crm_milter.config.problems import ConfigError, Problem, Problems
from crm_milter.config.problems import Path as Where
from crm_milter.config.reading import INVALID, Reading
from crm_milter.config.sources import Disk, Sources
from crm_milter.routing.decide import Policy
from crm_milter.rules.table import RuleTable
from crm_milter.wording import why

__all__ = ["Config", "ConfigError", "MilterSettings", "Problem", "load", "parse"]

_SHORTEST_KEY = 16  # bytes
_LONGEST_KEY = 4096


@dataclass(frozen=True, slots=True)
class Config:
    """A valid configuration.

    ``metrics_listen`` is host and port, None for no exporter; ``deliveries`` are the logs that
    deliveries are read from: ``auto``, or each ``journal`` or a file.
    """

    milter: MilterSettings
    metrics_listen: tuple[str, int] | None
    deliveries: tuple[str, ...]
    recipient_delimiter: str
    unrouted_to: str | None
    policy: Policy
    warnings: tuple[Problem, ...] = ()
    reload: Reload = Reload.SIGNAL

    @property
    def dead_letters(self) -> str | None:
        """The mailbox for what targets reject, unless a rule has its own."""
        return self.policy.dead_letters


def load(path: Path, sources: Sources | None = None, clock: Callable[[], float] = time) -> Config:
    """Return the configuration in a file; raises ConfigError, also if it cannot be read.

    ``sources`` has the file, and those that it names. Only warnings depend on the clock.
    """
    sources = sources or Disk()
    try:
        with sources.open(path, document.MAX_BYTES) as stream:
            return _config(stream, path, sources, clock())
    except OSError as error:
        raise ConfigError((Problem(str(path), 0, "", why(error)),)) from error


def parse(text: str, path: Path) -> Config:
    """Return the configuration in a text; ``path`` names it and is where relative paths start."""
    return _config(BytesIO(text.encode("utf-8", "surrogatepass")), path, Disk(), time())


def _config(stream: BinaryIO, path: Path, sources: Sources, now: float) -> Config:
    problems = Problems(str(path))
    files = Files(problems, sources)
    entries: list[RuleEntry] = []
    with _uncollected():
        section = _section(stream, keys.ROOT, problems, files, entries)
        if section is INVALID:
            problems.raise_errors()
        for file, domains in included(section, path, sources):
            inside = files.seen_from(file, domains)
            first = len(entries)
            _include(file, problems.for_file(str(file)), inside, entries, sources)
            if domains is not None:
                entries[first:] = within(entries[first:], domains)
        problems.raise_errors()  # the rules are looked at together once each of them is whole
        return _checked(section, tuple(entries), path, problems, sources, now)


def _section(
    stream: BinaryIO, root: Table, problems: Problems, files: Files, entries: list[RuleEntry]
) -> Any:
    """Return the keys of a file, and append its rules to ``entries`` as they are read."""
    reading = Reading(root.known(), problems, files)

    def take_rule(node: document.Node, where: Where) -> None:
        entry = keys.RULE.read(reading, node, where)
        if entry is not INVALID:
            entries.append(entry)

    tree = document.read(stream, problems, {"rules": take_rule}) or document.Mapping({}, 1)
    return root.read(reading, tree, ())


def _include(
    file: Path, problems: Problems, files: Files, entries: list[RuleEntry], sources: Sources
) -> None:
    """Append the rules of an included file; what is wrong with it is noted."""
    try:
        with sources.open(file, document.MAX_BYTES) as stream:
            _section(stream, keys.INCLUDED, problems, files, entries)
    except OSError as error:
        problems.add(0, (), why(error))
    except ConfigError:
        pass  # noted; the other files may also have problems


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep the garbage collector from looking at every rule again and again: half the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _checked(
    section: Section,
    entries: tuple[RuleEntry, ...],
    path: Path,
    problems: Problems,
    sources: Sources,
    now: float,
) -> Config:
    delimiter: str = section["recipient_delimiter"]
    spam: SpamSettings = section["spam"] or SpamSettings()
    if entries and not section.is_set("spam"):
        message = "no spam filter is configured: spam is rerouted like any other mail"
        section.place.warn(("spam",), message)
    milter = _absolute(section, path)
    known: frozenset[str] = frozenset().union(*section["known_recipients"])
    entries = crms.limited(entries)
    table = RuleTable(tuple(entry.rule for entry in entries), delimiter, known)
    rules.check(entries, table, section, now)
    for live in table.live():
        live.close()
    problems.raise_errors()
    nets.check(entries, section)
    return Config(
        milter=milter,
        metrics_listen=section["metrics"]["listen"],
        deliveries=section["metrics"]["deliveries"],
        recipient_delimiter=delimiter,
        unrouted_to=section["unrouted_to"],
        policy=Policy(
            table,
            spam.filters,
            spam.no_verdict,
            spam.unfiltered,
            _marker_key(section, path, sources),
            frozenset(section["authentication"]),
            section["dead_letters"],
        ),
        warnings=problems.warnings(),
        reload=section["reload"],
    )


def _marker_key(section: Section, path: Path, sources: Sources) -> bytes:
    """Return the secret of the markers; mail does not wait for one, so a bad file is a warning."""
    name: str = section["marker_key"]
    try:
        with sources.open(path.absolute().parent / name) as stream:
            key = stream.read(_LONGEST_KEY).strip()
            mode = os.fstat(stream.fileno()).st_mode
    except OSError as error:
        if name != keys.ROOT.defaults["marker_key"]:
            section.place.warn(("marker_key",), f'"{name}": {why(error)}; the key is empty')
        return b""
    if len(key) < _SHORTEST_KEY:
        message = f'"{name}" holds {len(key)} bytes; a key needs at least {_SHORTEST_KEY}'
        section.place.warn(("marker_key",), message)
    if mode & (stat.S_IROTH | stat.S_IWOTH):
        message = f'"{name}" is open to every user of this host; run: chmod o= {name}'
        section.place.warn(("marker_key",), message)
    return key


def _absolute(section: Section, path: Path) -> MilterSettings:
    """Return the milter's settings with the path of a Unix socket seen from the file."""
    milter: MilterSettings = section["milter"]
    if not isinstance(milter.listen, UnixSocket):
        return milter
    socket = os.path.normpath(path.absolute().parent / milter.listen.path)
    length = len(os.fsencode(socket))
    if length > LONGEST_SOCKET_PATH:
        message = (
            f'"{socket}" is {length} bytes long; a Unix socket path can have at most'
            f" {LONGEST_SOCKET_PATH}"
        )
        section.place.complain(("milter", "listen"), message)
    return replace(milter, listen=UnixSocket(socket))
