"""What is counted, and the memory in which the processes count it.

Every worker adds to a row of its own in memory that all processes share, the exporter adds the
rows up. So counting takes no system call and no buffer: a worker that is killed loses nothing
but the message it was at. The worker that takes over its slot goes on with its row, so that no
number ever goes down while the service runs; an exporter has no numbers to lose. Rows are few,
since the supervisor gives the lowest free slot, and reloads and deaths add nothing to them.

A row has a few fixed cells and, from its first use on, a block for each rule that had mail. The
memory is a file without a name (memfd_create(2)); of its great length only what is used exists.
"""

import json
import mmap
import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from crm_milter.metrics.catalogue import (
    LAST_GOOD,
    RELOAD_GOOD,
    RELOADED_AT,
    RESTARTS,
    RULE,
    RULES,
    SERVICE,
    SESSIONS,
    SOCKET_BOUND,
    WORKER,
    WORKERS,
    Metric,
)
from crm_milter.rules.rule import Rule

_USED = 0  # of a worker's row: how many cells the blocks take
_SLOTS, _VERSION = 0, 1  # of the supervisor's
_LATEST = [metric.first for metric in RULE.metrics if metric.is_latest]
_CATALOGUES = mmap.PAGESIZE  # where two places for a catalogue begin, used in turn
_CATALOGUE_SIZE = 1 << 20
_STRIDE = 1 << 30  # from row to row; the first is the supervisor's
_CELL = 8
MAX_ZEROS = 1000  # rules that have series before they had mail

# Of format "d": reading or writing one of them is a single instruction.
Cells: TypeAlias = "memoryview[float]"


class Known(NamedTuple):
    """What is told of a rule in use: no address."""

    name: str
    mode: str
    conditions: tuple[str, ...]  # by their keys


class InUse(NamedTuple):
    """What is told of the rules in use: how many they are, and the first ones in JSON."""

    rules: int
    octets: bytes


@dataclass(frozen=True, slots=True)
class ServiceState:
    """What the supervisor says: ``rules`` are the first ones, of which zeros are shown.

    ``digest`` is that of the configuration file, ``digest_of_all`` that of all its files.
    """

    cells: list[float]
    digest: str
    rules: tuple[Known, ...]
    digest_of_all: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(rule.name for rule in self.rules)

    def __getitem__(self, metric: Metric) -> float:
        return self.cells[metric.first]


@dataclass(slots=True)
class Totals:
    """The sum of all rows; ``cells`` as in a row, of each rule those of a block."""

    cells: list[float] = field(default_factory=lambda: [0.0] * WORKER.size)
    rules: dict[str, list[float]] = field(default_factory=dict)


class Board:
    """Memory for the last word of one process, as JSON, which all others can read."""

    def __init__(self, name: str) -> None:
        self._descriptor = os.memfd_create(name)
        os.ftruncate(self._descriptor, 2 * _STRIDE)

    def write(self, word: Any) -> None:
        """Replace the word before."""
        octets = json.dumps(word).encode()
        version = self._number(0) + 1
        os.pwrite(self._descriptor, octets, version % 2 * _STRIDE + 3 * _CELL)
        self._set(1 + version % 2, len(octets))
        self._set(0, version)  # from here on it is the one to read

    def read(self) -> Any:
        """Return the last word, None if there is none yet."""
        while version := self._number(0):
            length = self._number(1 + version % 2)
            octets = os.pread(self._descriptor, length, version % 2 * _STRIDE + 3 * _CELL)
            if self._number(0) == version:
                return json.loads(octets)
        return None

    def clear(self) -> None:
        """Have no word."""
        self._set(0, 0)

    def _number(self, cell: int) -> int:
        return int.from_bytes(os.pread(self._descriptor, _CELL, cell * _CELL), "little")

    def _set(self, cell: int, number: int) -> None:
        os.pwrite(self._descriptor, number.to_bytes(_CELL, "little"), cell * _CELL)


class SharedCounters:
    """The shared memory: made by the supervisor before it forks, and inherited by all.

    ``deliveries`` is what the follower of Postfix's log has counted.
    """

    def __init__(self) -> None:
        self.deliveries = Board("crm-milter-deliveries")
        self._descriptor = os.memfd_create("crm-milter")
        os.ftruncate(self._descriptor, _STRIDE)
        self._bytes, self._cells = self._map(0, _CATALOGUES + 2 * _CATALOGUE_SIZE)
        self.say(SOCKET_BOUND, 1)

    # The supervisor's part

    def ensure_row(self, slot: int) -> None:
        """Make sure that there is a row for a slot, before its worker is forked."""
        if slot >= self._cells[_SLOTS]:
            os.ftruncate(self._descriptor, (slot + 2) * _STRIDE)
            self._cells[_SLOTS] = slot + 1

    def reap(self, slot: int) -> None:
        """Take note that the worker of a slot has ended: it has no sessions any more."""
        _, cells = self._map(slot + 1, mmap.PAGESIZE)
        cells[SESSIONS.first] = 0

    def say(self, metric: Metric, value: float) -> None:
        """Set a metric of the service."""
        self._cells[metric.first] = value

    def set_workers(self, serving: int, restarts: int) -> None:
        """Say how many workers accept mail, and how many died and were replaced so far."""
        self.say(WORKERS, serving)
        self.say(RESTARTS, restarts)

    def loaded(self, now: InUse) -> None:
        """Say what is in use."""
        octets = now.octets
        version = int(self._cells[_VERSION]) + 1
        start = _CATALOGUES + version % 2 * _CATALOGUE_SIZE
        self._cells[start // _CELL] = len(octets)
        self._bytes[start + _CELL : start + _CELL + len(octets)] = octets
        self._cells[_VERSION] = version  # from here on it is the one to read
        self.say(RULES, now.rules)
        self.say(RELOADED_AT, time.time())
        self.say(RELOAD_GOOD, 1)

    def reload_failed(self) -> None:
        """Say that the file in use is an older one, since the new one has errors."""
        self.say(RELOAD_GOOD, 0)

    def serves_last_good(self, is_so: bool) -> None:
        """Say whether the last good configuration is served, since the file at the start is bad."""
        self.say(LAST_GOOD, is_so)
        if is_so:
            self.reload_failed()

    def lost_socket(self, is_lost: bool) -> None:
        """Say whether the path of the milter socket does not lead to this instance any more."""
        self.say(SOCKET_BOUND, not is_lost)

    # A worker's part

    def row(self, slot: int, room: int) -> tuple[Cells, dict[str, int]]:
        """Return a row with room for so many cells of blocks, and where its blocks begin."""
        _, head = self._map(slot + 1, mmap.PAGESIZE)
        head[SESSIONS.first] = 0
        octets, cells = self._map(slot + 1, (WORKER.size + int(head[_USED]) + room) * _CELL)
        return cells, dict(_blocks(octets, cells))

    @staticmethod
    def add_block(cells: Cells, name: str) -> int:
        """Append the block of a rule to a row and return where it begins."""
        octets = name.encode()
        start = WORKER.size + int(cells[_USED])
        cells[start] = len(octets)
        block = start + _name_cells(len(octets))
        padded = octets.ljust((block - start - 1) * _CELL, b"\0")
        cells[start + 1 : block] = memoryview(padded).cast("d")
        cells[_USED] = block + RULE.size - WORKER.size  # last: from here on it is seen
        return block

    # The exporter's part

    def state(self) -> ServiceState:
        """Return what the supervisor said last."""
        while True:
            version = int(self._cells[_VERSION])
            start = _CATALOGUES + version % 2 * _CATALOGUE_SIZE
            length = int(self._cells[start // _CELL])
            octets = bytes(self._bytes[start + _CELL : start + _CELL + length])
            if self._cells[_VERSION] == version:
                break
        digest, of_all, rules = json.loads(octets) if octets else ("", "", [])
        known = tuple(Known(name, mode, tuple(keys)) for name, mode, keys in rules)
        return ServiceState(list(self._cells[: SERVICE.size]), digest, known, of_all)

    def generation(self) -> tuple[float, ...]:
        """Return what differs when the supervisor has said something new since."""
        return tuple(self._cells[: SERVICE.size])

    def totals(self) -> Totals:
        """Add up the rows of all slots that were ever in use."""
        totals = Totals()
        for slot in range(int(self._cells[_SLOTS])):
            _, head = self._map(slot + 1, mmap.PAGESIZE)
            octets, cells = self._map(slot + 1, (WORKER.size + int(head[_USED])) * _CELL)
            totals.cells = _sum(totals.cells, list(cells[: WORKER.size]))
            for name, block in _blocks(octets, cells):
                values = list(cells[block : block + RULE.size])
                known = totals.rules.get(name)
                totals.rules[name] = _merged(known, values) if known else values
        return totals

    def _map(self, row: int, length: int) -> tuple[memoryview, Cells]:
        # Read through holes of a mapping would fill them: map and read no more than is used.
        octets = memoryview(mmap.mmap(self._descriptor, length, offset=row * _STRIDE))
        return octets, octets[: length // _CELL * _CELL].cast("d")


def in_use(digest: str, rules: tuple[Rule, ...], digest_of_all: str = "") -> InUse:
    """Return what is told of rules; the digests are the SHA-256 of their file and of all files."""
    known = [_known(rule) for rule in rules[:MAX_ZEROS]]
    octets = json.dumps([digest, digest_of_all, known]).encode()
    if len(octets) > _CATALOGUE_SIZE - _CELL:
        octets = json.dumps([digest, digest_of_all, []]).encode()
    return InUse(len(rules), octets)


def room_for(rules: Iterable[Rule]) -> int:
    """Return how many cells the blocks of these rules take."""
    return sum(_name_cells(len(rule.name.encode())) + RULE.size for rule in rules)


def _known(rule: Rule) -> Known:
    return Known(rule.name, rule.mode.value, tuple(each.key for each in rule.conditions))


def _name_cells(length: int) -> int:
    """Return how many cells a name of so many bytes and its length take."""
    return 1 + -(-length // _CELL)


def _blocks(octets: memoryview, cells: Cells) -> Iterator[tuple[str, int]]:
    """Yield the rules of a row, and where their numbers begin."""
    start, end = WORKER.size, WORKER.size + int(cells[_USED])
    while start < end and start < len(cells):
        length = int(cells[start])
        name = bytes(octets[(start + 1) * _CELL : (start + 1) * _CELL + length]).decode()
        block = start + _name_cells(length)
        start = block + RULE.size
        if start <= len(cells):  # the row may have grown since it was mapped
            yield name, block


def _sum(these: list[float], those: list[float]) -> list[float]:
    return [one + other for one, other in zip(these, those, strict=True)]


def _merged(these: list[float], those: list[float]) -> list[float]:
    merged = _sum(these, those)
    for cell in _LATEST:
        merged[cell] = max(these[cell], those[cell])
    return merged
