"""What a worker counts, at the cost of some additions a message.

A message is counted once, when it is decided what to answer, under one lock: libmilter calls
back in several threads. Nothing here can fail for want of room: the row was made for all rules.
"""

import time
from bisect import bisect_left
from threading import Lock
from typing import Protocol

from crm_milter.metrics.catalogue import (
    BOUNDS,
    BUCKETS,
    COPIES,
    ERRORS,
    LAST_REROUTED,
    MESSAGE_OUTCOMES,
    MESSAGES,
    RECIPIENT_OUTCOMES,
    SECONDS,
    SESSIONS,
    STAGES,
    VERDICT,
    VERDICTS,
)
from crm_milter.metrics.memory import Numbers
from crm_milter.routing.decision import Action, Decision, Outcome, Reason, Reply
from crm_milter.rules.rule import Rule
from crm_milter.spam.verdict import Verdict

_PASSED, _TEMPFAILED, _ABORTED, _LEFT = (
    MESSAGES + MESSAGE_OUTCOMES.index(each) for each in ("passed", "tempfailed", "aborted", "left")
)
_REPLACED, _TEST = (RECIPIENT_OUTCOMES.index(each) for each in ("replaced", "test"))
_ADDED, _WITHHELD = COPIES, COPIES + 1
_ACTIONS = {
    Action.COPIED: "kept_with_copies",
    Action.REJECTED: "rejected",
    Action.QUARANTINED: "quarantined",
    Action.DISCARDED: "discarded",
    Action.TEMPFAILED: "tempfailed",
}


class Counting(Protocol):
    """What a session tells; the seconds are those that its callbacks took for the message."""

    def opened(self) -> None:
        """Count a session."""

    def closed(self) -> None:
        """Count it no more."""

    def passed(self, seconds: float) -> None:
        """Count a message without a match."""

    def decided(self, decision: Decision, judged: bool, seconds: float) -> None:
        """Count a message with a match; ``judged`` tells whether a spam filter was asked."""

    def failed(self, seconds: float, by_smtp: bool = True) -> None:
        """Count a message that was answered 451 after an error, or left if it came otherwise."""

    def aborted(self) -> None:
        """Count a message that the client gave up."""

    def error(self, stage: str) -> None:
        """Count an error at one of STAGES."""


class Uncounted:
    """Counts nothing: there is no exporter."""

    def _nothing(self, *_: object, **__: object) -> None:
        pass

    opened = closed = passed = decided = failed = aborted = error = _nothing


UNCOUNTED = Uncounted()


class Tally:
    """Counts into the row of a worker's slot."""

    def __init__(self, numbers: Numbers, slot: int, rules: tuple[Rule, ...]) -> None:
        self._cells, self._blocks = numbers.row(slot, rules)
        self._add_block = numbers.add_block
        self._lock = Lock()

    def opened(self) -> None:
        """Count a session."""
        with self._lock:
            self._cells[SESSIONS] += 1

    def closed(self) -> None:
        """Count it no more."""
        with self._lock:
            self._cells[SESSIONS] -= 1

    def passed(self, seconds: float) -> None:
        """Count a message without a match."""
        with self._lock:
            self._finish(_PASSED, seconds)

    def decided(self, decision: Decision, judged: bool, seconds: float) -> None:
        """Count a message with a match, its recipients and their copies."""
        with self._lock:
            for outcome in decision.outcomes:
                self._count(outcome)
            if judged:
                self._cells[VERDICT + _verdict(decision.judgement.verdict)] += 1
            self._finish(MESSAGES + message_outcome(decision), seconds)

    def failed(self, seconds: float, by_smtp: bool = True) -> None:
        """Count a message that was answered 451 after an error, or left if it came otherwise."""
        with self._lock:
            self._finish(_TEMPFAILED if by_smtp else _LEFT, seconds)

    def aborted(self) -> None:
        """Count a message that the client gave up."""
        with self._lock:
            self._cells[_ABORTED] += 1

    def error(self, stage: str) -> None:
        """Count an error at one of STAGES."""
        with self._lock:
            self._cells[ERRORS + STAGES.index(stage)] += 1

    def _finish(self, cell: int, seconds: float) -> None:
        cells = self._cells
        cells[cell] += 1
        cells[SECONDS] += seconds
        cells[BUCKETS + bisect_left(BOUNDS, seconds)] += 1

    def _count(self, outcome: Outcome) -> None:
        cells, name = self._cells, outcome.rule.name
        block = self._blocks.get(name)
        if block is None:
            block = self._blocks[name] = self._add_block(cells, name)
        column = recipient_outcome(outcome)
        cells[block + column] += 1
        if column == _REPLACED:
            cells[block + LAST_REROUTED] = time.time()
        if column != _TEST:
            if outcome.copies:
                cells[block + _ADDED] += len(outcome.copies)
            if outcome.withheld:
                cells[block + _WITHHELD] += outcome.withheld


def message_outcome(decision: Decision) -> int:
    """Return the place in MESSAGE_OUTCOMES of what became of a message with a match."""
    reply = decision.reply
    if reply is Reply.ACCEPT:
        if decision.hold:
            return _outcome("quarantined")
        acting = [each.action for each in decision.outcomes if each.changes_envelope]
        if Action.REROUTED in acting or Action.COPIED in acting:
            return _outcome("rerouted")
        return _outcome("discarded" if acting else "left")
    if reply is Reply.DISCARD:
        return _outcome("discarded")
    return _outcome("tempfailed" if reply is Reply.TEMPFAIL else "rejected")


def recipient_outcome(outcome: Outcome) -> int:
    """Return the place in RECIPIENT_OUTCOMES of what became of a recipient."""
    if outcome.test:
        return _TEST
    if outcome.action is Action.REROUTED:
        return _REPLACED
    if outcome.action is Action.LEFT:
        reason = outcome.reason or Reason.NO_TARGET  # there always is one
        return RECIPIENT_OUTCOMES.index(f"left_{reason.value}")
    return RECIPIENT_OUTCOMES.index(_ACTIONS[outcome.action])


def _outcome(word: str) -> int:
    return MESSAGE_OUTCOMES.index(word)


def _verdict(verdict: Verdict) -> int:
    return VERDICTS.index(verdict.value)
