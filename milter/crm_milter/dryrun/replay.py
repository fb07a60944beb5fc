"""Old mail through the rules, and through those that were in force before."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from crm_milter import address as addresses
from crm_milter.dryrun.decided import Decided, DryRun, Mail
from crm_milter.dryrun.envelopes import Envelope, envelope
from crm_milter.dryrun.mailboxes import OldMail
from crm_milter.routing import automatic
from crm_milter.routing.decide import Policy
from crm_milter.routing.decision import Outcome, Recipient
from crm_milter.routing.facts import MARKER
from crm_milter.routing.floodguard import Meter
from crm_milter.rules.conditions import ANY_MESSAGE
from crm_milter.wording import printable

# The daemon may have put its marker into old mail; that is not a loop now.
_WITHOUT = frozenset({MARKER})
UNTOUCHED = "not matched"
_DISORDER = 3600  # seconds: the order of a mailbox is not quite that of time


class Change(NamedTuple):
    """A recipient whose outcome has changed."""

    where: str
    to: str
    before: str
    after: str


class Replayed(NamedTuple):
    """An old message, its result, and its result with the old rules."""

    mail: OldMail
    envelope: Envelope
    decided: Decided
    changes: tuple[Change, ...]


MakeMeter = Callable[[Callable[[], float]], Meter]  # from a clock


class Replay:
    """The rules, and perhaps those of before; ``make_meter`` is what remembers, for ``flood``."""

    def __init__(self, policy: Policy, against: Policy | None, make_meter: MakeMeter) -> None:
        self._make_meter = make_meter
        self._now = 0.0
        self._policies = [policy, *([against] if against else [])]
        self._runs = [DryRun(each, automatic.FIELDS, _WITHOUT) for each in self._policies]
        self._meters = self._new_meters()
        self._is_taken = lru_cache(maxsize=10_000)(self._takes)

    def message(self, mail: OldMail) -> Replayed:
        found = envelope(mail, self._is_taken)
        sent = Mail(found.sender, found.recipients, mail.header, mail.size, now=found.time)
        self._set_clock(found.time)
        decided, *before = (
            run.decided(sent, meter) for run, meter in zip(self._runs, self._meters, strict=True)
        )
        return Replayed(mail, found, decided, _changes(mail, decided, *before))

    def _new_meters(self) -> list[Meter]:
        return [self._make_meter(lambda: self._now) for _ in self._policies]

    def _set_clock(self, time: float | None) -> None:
        """Set the time for the meters: it does not go back, unless another mailbox begins."""
        if time is not None and time < self._now - _DISORDER:
            self._meters = self._new_meters()
            self._now = time
        self._now = max(self._now, time or 0.0)

    def _takes(self, address: str) -> bool:
        normal = addresses.normalise(address)
        return any(
            each.failing is None
            for policy in self._policies
            for each in policy.table.considered(normal, ANY_MESSAGE)
        )


def _changes(mail: OldMail, after: Decided, before: Decided | None = None) -> tuple[Change, ...]:
    if before is None:
        return ()
    pairs = zip(before.envelope.recipients, after.envelope.recipients, strict=True)
    changes = []
    for old, new in pairs:
        words = _fate(before, old), _fate(after, new)
        if words[0] != words[1]:
            changes.append(Change(mail.where, new.address, *words))
    return tuple(changes)


def _fate(decided: Decided, recipient: Recipient) -> str:
    """Return the result for a recipient, in the words of the log."""
    outcomes = decided.decision.outcomes if decided.decision else ()
    for outcome in outcomes:
        if outcome.recipient is recipient and not outcome.test:
            return fate(outcome)
    return UNTOUCHED


def fate(outcome: Outcome) -> str:
    """Return what an outcome means for who gets the mail."""
    words = [f"{outcome.action.value} rule={outcome.rule.name}"]
    if outcome.reason:
        words.append(f"reason={outcome.reason.value}")
    else:
        words += [f"new=<{printable(each)}>" for each in outcome.targets]
    words += [f"copy=<{printable(copy.address)}>" for copy in outcome.copies]
    return " ".join(words)
