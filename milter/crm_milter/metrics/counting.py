"""What a worker counts, at the cost of some additions a message.

A message is counted once, when it is decided what to answer, under one lock: libmilter calls
back in several threads. Nothing here can run out of room: the row was made for all rules.
"""

import time
from bisect import bisect_left
from collections.abc import Iterator
from threading import Lock
from typing import NamedTuple

from crm_milter.metrics.catalogue import (
    AUTHENTICATION,
    COPIES,
    ERRORS,
    FLOOD,
    LAST_REROUTED,
    LINES_LOST,
    MESSAGES,
    NO_DESCRIPTORS,
    PROCESSING,
    RECIPIENTS,
    SESSIONS,
    SPAM_VERDICTS,
    UNCOUNTED,
    Metric,
)
from crm_milter.metrics.memory import SharedCounters
from crm_milter.routing.authentication import Dmarc
from crm_milter.routing.decision import Action, Decision, Outcome, Reason, Reply


def _by_value(metric: Metric) -> dict[str, int]:
    return dict(zip(metric.values, metric.cells, strict=True))


_MESSAGES, _RECIPIENTS, _VERDICTS = map(_by_value, (MESSAGES, RECIPIENTS, SPAM_VERDICTS))
_DMARC = _by_value(AUTHENTICATION)
_PASSED, _ABORTED = MESSAGES.cell("passed"), MESSAGES.cell("aborted")
_ADDED, _WITHHELD = COPIES.cells
_FLOOD = FLOOD.first
_SESSIONS, _LAST_REROUTED = SESSIONS.first, LAST_REROUTED.first
*_, _SECONDS = PROCESSING.cells
_BUCKETS, _BOUNDS = PROCESSING.first, PROCESSING.bounds
_WORDS = {Action.REROUTED: "replaced", Action.COPIED: "kept_with_copies"}


class Counts(NamedTuple):
    """What a decision adds to the row of a worker: the same for all messages like it."""

    message: int  # the cell
    more: tuple[tuple[int, int], ...] = ()  # cells, and how much is added
    latest: tuple[int, ...] = ()  # cells that have the time of the last such message


class WorkerCounters:
    """What a session tells; the seconds are those that its callbacks took for the message.

    ``room`` is what room_for() returned for the rules.
    """

    def __init__(self, numbers: SharedCounters, slot: int, room: int) -> None:
        self._cells, self._blocks = numbers.row(slot, room)
        self._add_block = numbers.add_block
        self._lock = Lock()

    def opened(self) -> None:
        with self._lock:
            self._cells[_SESSIONS] += 1

    def closed(self) -> None:
        with self._lock:
            self._cells[_SESSIONS] -= 1

    def passed(self, seconds: float) -> None:
        """Count a message without a match."""
        with self._lock:
            self._finish(_PASSED, seconds)

    def counts(self, decision: Decision, judged: bool) -> Counts:
        """Return what ``add`` takes for a message with a match that was decided so.

        ``judged`` tells whether a spam filter was asked. Without an outcome there was no match
        after all: no rule's header condition holds.
        """
        if not decision.outcomes:
            return Counts(_PASSED)
        more: dict[int, int] = {}
        latest = []
        for outcome in decision.outcomes:
            block = self._block(outcome.rule.name)
            for cell, number in _cells(outcome):
                more[block + cell] = more.get(block + cell, 0) + number
            if outcome.action is Action.REROUTED and not outcome.test:
                latest.append(block + _LAST_REROUTED)
        if judged:
            more[_VERDICTS[decision.judgement.verdict.value]] = 1
        return Counts(_MESSAGES[message_outcome(decision)], tuple(more.items()), tuple(latest))

    def add(self, counts: Counts, seconds: float, dmarc: Dmarc | None = None) -> None:
        """Count a message that was decided."""
        with self._lock:
            cells = self._cells
            for cell, number in counts.more:
                cells[cell] += number
            for cell in counts.latest:
                cells[cell] = time.time()
            if dmarc is not None and counts.more:
                cells[_DMARC[dmarc.value]] += 1
            self._finish(counts.message, seconds)

    def failed(self, seconds: float, by_smtp: bool = True) -> None:
        """Count a message that was answered 451 after an error, or left if it came otherwise."""
        with self._lock:
            self._finish(_MESSAGES["tempfailed" if by_smtp else "left"], seconds)

    def aborted(self) -> None:
        """Count a message that the client gave up."""
        with self._lock:
            self._cells[_ABORTED] += 1

    def error(self, stage: str) -> None:
        with self._lock:
            self._cells[ERRORS.cell(stage)] += 1

    def lost(self, lines: int) -> None:
        """Count lines of the log that were dropped."""
        with self._lock:
            self._cells[LINES_LOST.first] += lines

    def shut(self) -> None:
        """Count that new sessions wait because no descriptor is left."""
        with self._lock:
            self._cells[NO_DESCRIPTORS.first] += 1

    def uncounted(self) -> None:
        """Count a message for which the flood guard had no room."""
        with self._lock:
            self._cells[UNCOUNTED.first] += 1

    def _finish(self, cell: int, seconds: float) -> None:
        cells = self._cells
        cells[cell] += 1
        cells[_SECONDS] += seconds
        cells[_BUCKETS + bisect_left(_BOUNDS, seconds)] += 1

    def _block(self, name: str) -> int:
        block = self._blocks.get(name)
        if block is None:
            with self._lock:
                block = self._blocks.get(name) or self._add_block(self._cells, name)
                self._blocks[name] = block
        return block


def _cells(outcome: Outcome) -> Iterator[tuple[int, int]]:
    """Yield the cells of its rule's block to which the outcome for a recipient adds, and what."""
    yield _RECIPIENTS[recipient_outcome(outcome)], 1
    if outcome.reason is Reason.FLOOD:
        yield _FLOOD, 1
    if outcome.copies and not outcome.test:
        yield _ADDED, len(outcome.copies)
    if outcome.withheld and not outcome.test:
        yield _WITHHELD, outcome.withheld


def message_outcome(decision: Decision) -> str:
    """Return what became of a message with a match."""
    reply = decision.reply
    if reply is Reply.ACCEPT:
        if decision.hold:
            return "quarantined"
        acting = [each.action for each in decision.outcomes if each.changes_envelope]
        if Action.REROUTED in acting or Action.COPIED in acting:
            return "rerouted"
        return "discarded" if acting else "left"
    if reply is Reply.DISCARD:
        return "discarded"
    return "tempfailed" if reply.value.startswith("4") else "rejected"


def recipient_outcome(outcome: Outcome) -> str:
    if outcome.test:
        return "test"
    if outcome.action is Action.REROUTED and outcome.insured:
        return "insured"
    if outcome.action is Action.LEFT:
        reason = outcome.reason or Reason.NO_TARGET  # there always is one
        return f"left_{reason.value}"
    return _WORDS.get(outcome.action) or str(outcome.action.value)
