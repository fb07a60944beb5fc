"""Old mail through the rules, and through those that were in force before."""

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
from crm_milter.rules.conditions import ANY_MESSAGE
from crm_milter.wording import printable

# The daemon may have put its marker into old mail; that is no loop now.
_WITHOUT = frozenset({MARKER})
UNTOUCHED = "not matched"


class Change(NamedTuple):
    """A recipient whose fate is another than before."""

    where: str
    to: str
    before: str
    after: str


class Replayed(NamedTuple):
    """One message of old, what becomes of it, and what became of it by the old rules."""

    mail: OldMail
    envelope: Envelope
    decided: Decided
    changes: tuple[Change, ...]


class Replay:
    """The rules, and perhaps those of before."""

    def __init__(self, policy: Policy, against: Policy | None = None) -> None:
        self._policies = [policy, *([against] if against else [])]
        self._runs = [DryRun(each, automatic.FIELDS, _WITHOUT) for each in self._policies]
        self._is_taken = lru_cache(maxsize=10_000)(self._takes)

    def message(self, mail: OldMail) -> Replayed:
        """Return what becomes of a message."""
        found = envelope(mail, self._is_taken)
        sent = Mail(found.sender, found.recipients, mail.header, mail.size, now=found.time)
        decided, *before = (run.decided(sent) for run in self._runs)
        return Replayed(mail, found, decided, _changes(mail, decided, *before))

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
    """Return what becomes of a recipient, in the words of the log."""
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
