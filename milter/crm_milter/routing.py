"""The decision: what happens to one message, as data, before anything is done.

``decide`` takes the policy, the envelope and the header fields that ``wanted_fields`` names,
and returns what to add, what to remove, what to answer, and why. It promises that

- unmatched recipients stay as they are, and recipients in any order come to the same;
- the envelope is never empty, except where every recipient is discarded by its rule;
- no address is added twice, nor one that is in the envelope; adds and removes are disjoint.

Whatever would break a promise raises, and the caller answers 451.
"""

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from crm_milter import address as addresses
from crm_milter.decision import Action, Decision, Envelope, Outcome, Reason, Recipient, Reply
from crm_milter.edits import MARKER_FIELD, edits
from crm_milter.rules import AutoSubmitted, Mode, OnOversize, OnSpam, Rule, key, marker
from crm_milter.table import RuleTable
from crm_milter.verdict import Fields, Judge, Judgement, SpamFilter, Verdict, field_names

_AUTOMATIC = "auto-submitted"
_MARKER = MARKER_FIELD.lower()


class NoVerdict(Enum):
    """What happens where a filter that marks ham said nothing."""

    ROUTE = "route"
    LEAVE = "leave"
    TEMPFAIL = "tempfail"


@dataclass(frozen=True, slots=True)
class Policy:
    """All that a decision depends on besides the message: the rules and whom to believe."""

    table: RuleTable
    filters: tuple[SpamFilter, ...] = ()
    no_verdict: NoVerdict = NoVerdict.ROUTE
    judge: Judge = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "judge", Judge(self.filters))

    def wanted_fields(self) -> frozenset[str]:
        """Return the names, in lower case, of the header fields that ``decide`` reads."""
        leaves = any(each.auto_submitted is AutoSubmitted.LEAVE for each in self.table.rules)
        automatic = {_AUTOMATIC} if leaves else set()
        return field_names(self.filters) | {_MARKER, "from"} | automatic

    @property
    def measures_size(self) -> bool:
        """Tell whether some rule depends on the size of a message."""
        return any(each.max_size is not None for each in self.table.rules)


Fate = tuple[Action, Reason | None]


def decide(policy: Policy, envelope: Envelope, fields: tuple[tuple[str, str], ...]) -> Decision:
    """Return what happens to a message with at least one matched recipient.

    ``fields`` are the wanted header fields in the order of the message, names in lower case.
    Raises RuntimeError where the result would break a promise of this module.
    """
    judgement = policy.judge(fields)
    message = _Message(envelope, fields, judgement)
    outcomes = _settled(
        [_wished(policy, message, each) for each in envelope.recipients if each.match], envelope
    )
    discarded = 0
    for outcome in outcomes:
        if outcome.test:
            continue
        if outcome.action is Action.TEMPFAILED:
            return _refusal(Reply.TEMPFAIL, Action.TEMPFAILED, outcomes, judgement)
        if outcome.action is Action.REJECTED:
            oversize = outcome.reason is Reason.OVERSIZE
            reply = Reply.REJECT_OVERSIZE if oversize else Reply.REJECT_SPAM
            return _refusal(reply, Action.REJECTED, outcomes, judgement)
        discarded += outcome.action is Action.DISCARDED
    if discarded == len(envelope.recipients):
        return Decision(reply=Reply.DISCARD, judgement=judgement, outcomes=outcomes)
    return edits(envelope, outcomes, judgement)


def _refusal(
    reply: Reply, action: Action, outcomes: tuple[Outcome, ...], judgement: Judgement
) -> Decision:
    """Return a decision that refuses the whole message, whatever its other recipients wished."""
    refused = tuple(
        each if each.action is action else each._replace(action=action, copies=())
        for each in outcomes
    )
    return Decision(reply=reply, judgement=judgement, outcomes=refused)


class _Message(NamedTuple):
    envelope: Envelope
    fields: Fields
    judgement: Judgement

    def comes_from(self, target: str) -> bool:
        """Tell whether the envelope sender or From is the target."""
        normal = key(target)
        if self.envelope.sender == normal:
            return True
        return any(_names(value, normal) for name, value in self.fields if name == "from")

    def carries(self, mark: str) -> bool:
        """Tell whether a marker is in the message."""
        return mark in [value.strip() for name, value in self.fields if name == _MARKER]

    def is_automatic(self) -> bool:
        """Tell whether Auto-Submitted says other than "no" (RFC 3834 section 5)."""
        return any(_keyword(value) != "no" for name, value in self.fields if name == _AUTOMATIC)


def _keyword(value: str) -> str:
    """Return the keyword of Auto-Submitted, without comments and parameters."""
    words = _without_comments(value).partition(";")[0].split()
    return words[0].lower() if words else "no"


def _without_comments(value: str) -> str:
    """Return a value without its comments, nested ones as well (RFC 5322 section 3.2.2)."""
    kept: list[str] = []
    depth = 0
    for part in re.split(r"([()])", value):
        if part == "(":
            depth += 1
        elif part == ")":
            depth = max(depth - 1, 0)
        elif depth == 0:
            kept.append(part)
    return " ".join(kept)


def _names(value: str, address: str) -> bool:
    """Tell whether an address stands in the value of From, in time linear in its length.

    A parser of RFC 5322 would be more exact about comments and display names; only whoever
    knows the target could make use of the difference.
    """
    folded = value.casefold()
    if address not in folded:
        return False
    return bool(re.search(rf"(?<![\w.@+=-]){re.escape(address)}(?![\w@-]|\.\w)", folded))


def _wished(policy: Policy, message: _Message, recipient: Recipient) -> Outcome:
    """Return what this recipient's rule alone comes to."""
    match = recipient.match
    if match is None:
        raise RuntimeError("a recipient without a match has no rule")
    rule = match.rule
    made = match.targets()
    targets = made or ()
    action, reason = _fate(policy, message, recipient, rule, made)
    routed = action in (Action.REROUTED, Action.COPIED)
    copies = rule.copies if routed or action is Action.QUARANTINED else ()
    if routed and copies and message.judgement.verdict.is_spam:
        copies = tuple(copy for copy in copies if copy.deliver_spam)
    withheld = len(rule.copies) - len(copies) if routed else 0
    test = rule.mode is Mode.TEST
    return Outcome(recipient, rule, action, reason, targets, copies, withheld, test)


_ON_SPAM = {
    OnSpam.LEAVE: Action.LEFT,
    OnSpam.REJECT: Action.REJECTED,
    OnSpam.QUARANTINE: Action.QUARANTINED,
    OnSpam.DISCARD: Action.DISCARDED,
}


def _fate(
    policy: Policy,
    message: _Message,
    recipient: Recipient,
    rule: Rule,
    targets: tuple[str, ...] | None,
) -> Fate:
    """Return the first reason that keeps a recipient from being routed, and what it leads to."""
    if not _is_text(recipient.raw):
        return Action.LEFT, Reason.UNDECODABLE
    if targets is None:
        return Action.LEFT, Reason.NO_TARGET
    if _is_loop(policy.table, message, rule, targets):
        return Action.LEFT, Reason.LOOP
    if rule.auto_submitted is AutoSubmitted.LEAVE and message.is_automatic():
        return Action.LEFT, Reason.AUTO_SUBMITTED
    if rule.max_size is not None and message.envelope.size > rule.max_size:
        reject = rule.on_oversize is OnOversize.REJECT
        return (Action.REJECTED if reject else Action.LEFT), Reason.OVERSIZE
    if not rule.bypass_spam_filter:
        if message.judgement.verdict.is_spam:
            return _ON_SPAM[rule.on_spam], Reason.SPAM
        if message.judgement.verdict is Verdict.NONE and policy.filters:
            unjudged = _unjudged(policy.no_verdict)
            if unjudged:
                return unjudged, Reason.NO_VERDICT
    return (Action.REROUTED if targets else Action.COPIED), None


def _unjudged(no_verdict: NoVerdict) -> Action | None:
    if no_verdict is NoVerdict.ROUTE:
        return None
    return Action.LEFT if no_verdict is NoVerdict.LEAVE else Action.TEMPFAILED


def _is_text(raw: str) -> bool:
    # libmilter takes UTF-8 only; what is not cannot be deleted, so it must not be replaced.
    return raw.isascii() or not any("\udc80" <= each <= "\udcff" for each in raw)


def _is_loop(table: RuleTable, message: _Message, rule: Rule, targets: tuple[str, ...]) -> bool:
    for target in targets or ("",):
        if message.carries(marker(rule.name, target)) or (target and message.comes_from(target)):
            return True
    # Constant targets were checked when the file was read; only the others can surprise.
    if rule.has_constant_target:
        return False
    return any(table.reroutes(addresses.normalise(target)) for target in targets)


_WHOLE_MESSAGE = (Action.REJECTED, Action.QUARANTINED)


def _settled(wished: list[Outcome], envelope: Envelope) -> tuple[Outcome, ...]:
    """Leave what rejects or quarantines the whole message unless all its recipients agree."""
    if not any(each.action in _WHOLE_MESSAGE for each in wished):
        return tuple(wished)
    fates = {(each.action, each.reason) for each in wished}
    agreed = len(fates) == 1 and len(wished) == len(envelope.recipients)
    all_act = not any(each.test for each in wished)
    return tuple(_settle(each, envelope, agreed and (all_act or each.test)) for each in wished)


def _settle(outcome: Outcome, envelope: Envelope, unanimous: bool) -> Outcome:
    # A refusal of mail from sendmail(1) would be a bounce after acceptance.
    impossible = outcome.action is Action.REJECTED and not envelope.by_smtp
    divided = outcome.action in _WHOLE_MESSAGE and not unanimous
    if impossible or divided:
        return outcome._replace(action=Action.LEFT, copies=())
    return outcome
