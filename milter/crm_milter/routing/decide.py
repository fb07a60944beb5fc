"""The decision: what happens to one message, as data, before anything is done.

``decide`` takes the policy, the envelope and the header fields that ``wanted_fields`` names,
and returns what to add, what to remove, what to answer, and why: it works out the facts of the
message, once, and then what they mean for each recipient (``resolve``). It promises that

- unmatched recipients stay as they are, and recipients in any order come to the same;
- the envelope is never empty, except where every recipient is discarded by its rule;
- no address is added twice, nor one that is in the envelope; adds and removes are disjoint;
- a rule in mode test changes nothing: the others decide as if it were not there;
- mail that did not come by SMTP is not put off: it would stay in maildrop forever.

Whatever would break a promise raises, and the caller answers 451.
"""

from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import cast

from crm_milter.routing import authentication
from crm_milter.routing import facts as gathered
from crm_milter.routing.agreement import Disposition, settled
from crm_milter.routing.authentication import Dmarc
from crm_milter.routing.automatic import FIELDS
from crm_milter.routing.cases import merged
from crm_milter.routing.clients import Network, is_local, is_within
from crm_milter.routing.decision import (
    Action,
    Decision,
    Envelope,
    Outcome,
    Reason,
    Recipient,
    Reply,
)
from crm_milter.routing.edits import edits
from crm_milter.routing.facts import Facts, Gathering, Readers
from crm_milter.routing.floodguard import Meter, asked, guarded, within_limits
from crm_milter.routing.headerfields import HeaderFields, chosen
from crm_milter.routing.loopguard import LoopGuard
from crm_milter.routing.marker import Signature
from crm_milter.routing.refusal import refusal_of
from crm_milter.rules.flood import Per
from crm_milter.rules.rule import AutomaticClass, Match, OnOversize, OnSpam, OnUnauthenticated, Rule
from crm_milter.rules.table import RuleTable
from crm_milter.spam.verdict import (
    Fields,
    Judge,
    SpamFilter,
    Stands,
    Verdict,
    field_names,
)


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
    unfiltered: tuple[Network, ...] = ()  # clients that the filter is told not to look at
    marker_key: bytes = field(default=b"", repr=False)
    authserv_ids: frozenset[str] = frozenset()  # whose Authentication-Results count
    dead_letters: str | None = None  # for what targets refuse, unless a rule has its own
    judge: Judge = field(init=False, repr=False, compare=False)
    readers: Readers = field(init=False, repr=False, compare=False)
    # What some rule depends on: a worker that looked at all rules would copy their pages.
    authenticates: bool = field(init=False, repr=False, compare=False)  # what DMARC says
    counts_floods: bool = field(init=False, repr=False, compare=False)
    measures_size: bool = field(init=False, repr=False, compare=False)
    wanted_fields: frozenset[str] = field(init=False, repr=False, compare=False)  # in lower case

    def __post_init__(self) -> None:
        judge, rules = Judge(self.filters), self.table.rules
        worked_out = {
            "judge": judge,
            "readers": gathered.readers(judge, self.table.reads),
            "authenticates": any(each.on_unauthenticated is not _ROUTE for each in rules),
            "counts_floods": any(each.flood is not None for each in rules),
            "measures_size": any(each.max_size is not None for each in rules),
        }
        for name, value in worked_out.items():
            object.__setattr__(self, name, value)
        object.__setattr__(self, "wanted_fields", self._wanted_fields())

    def _wanted_fields(self) -> frozenset[str]:
        wanted = field_names(self.filters) | gathered.READ | self.table.reads
        if any(each.automatic for each in self.table.rules):
            wanted |= FIELDS
        if self.authenticates:
            wanted |= {authentication.FIELD}
        if any(each.flood and each.flood.per is Per.SUBJECT for each in self.table.rules):
            wanted |= {gathered.SUBJECT}
        return wanted

    @property
    def depends_on_client(self) -> bool:
        """Tell whether it matters who hands a message in."""
        missed = any(each.marks_ham for each in self.filters)
        return missed and self.no_verdict is not NoVerdict.ROUTE

    def gathering(self, *, header: bool = True) -> Gathering:
        """Return what gathers the facts of one message; conditions may ask for its header."""
        asked = header and self.table.reads
        fields = HeaderFields(self.table.recipient_delimiter) if asked else None
        return Gathering(self.readers, self.judge, self.authserv_ids, fields)

    def facts(self, fields: Fields) -> Facts:
        """Return the facts of a message with these header fields."""
        gathering = self.gathering()
        for name, value in fields:
            gathering.add(name, value)
        return gathering.facts()

    def is_filtered(self, envelope: Envelope) -> bool:
        """Tell whether the spam filter looks at such mail, so that its silence is a fault.

        It does not look at mail of this host's users, nor, where it stands before us, at mail from
        this host; what a content filter hands back also comes from this host.
        """
        if not self.filters or envelope.authenticated:
            return False
        hands_back = any(Stands.REINJECTION in each.stands for each in self.filters)
        if envelope.by_smtp and not hands_back and is_local(envelope.client):
            return False
        return not is_within(envelope.client, self.unfiltered)


_ROUTE = OnUnauthenticated.ROUTE


def decide(
    policy: Policy, envelope: Envelope, fields: Fields | Facts, meter: Meter | None = None
) -> Decision:
    """Return what happens to a message with at least one matched recipient.

    ``fields`` are the wanted header fields in the order of the message, names in lower case, or
    the facts that were gathered from them. Without a meter there is never too much. Raises
    RuntimeError where the result would break a promise of this module.
    """
    facts = cast("Facts", fields) if isinstance(fields, Facts) else policy.facts(fields)
    return resolve(policy, envelope, facts, meter)


def resolve(
    policy: Policy, envelope: Envelope, facts: Facts, meter: Meter | None = None
) -> Decision:
    """Return what the facts of a message mean for its recipients."""
    judgement = facts.judgement
    if policy.table.reads:
        envelope = chosen(policy.table, envelope, facts.header or HeaderFields())
    message = _Message(policy, envelope, facts)
    wished = [
        message.wished(each, match)
        for each in envelope.recipients
        if each.match
        for match in each.match.chain()
    ]
    outcomes = settled(wished, envelope)
    shown = _merged(policy, outcomes)
    refusal = refusal_of(shown, judgement)
    if meter is not None and refusal is None:
        ask = partial(asked, envelope=envelope, facts=facts, meter=meter)
        act = partial(guarded, outcomes, envelope)
        shown = within_limits(shown, ask, lambda over: _merged(policy, act(over)))
        refusal = refusal_of(shown, judgement)
    if refusal is not None:
        return refusal
    outcomes = shown
    discarded = sum(each.action is Action.DISCARDED for each in outcomes if not each.test)
    if discarded == len(envelope.recipients):
        return Decision(reply=Reply.DISCARD, judgement=judgement, outcomes=outcomes)
    signature = Signature(policy.marker_key, facts.identities[0])
    return edits(envelope, outcomes, judgement, signature, policy.dead_letters)


def _merged(policy: Policy, outcomes: tuple[Outcome, ...]) -> tuple[Outcome, ...]:
    grouped = policy.table.grouped
    return merged(outcomes, grouped) if grouped else outcomes


class _Message:
    """One message before its rules; what concerns the message is asked once."""

    def __init__(self, policy: Policy, envelope: Envelope, facts: Facts) -> None:
        self._envelope = envelope
        self._facts = facts
        self._table = policy.table
        self._guard = LoopGuard(policy.marker_key, envelope, facts)
        self._is_spam = facts.judgement.verdict.is_spam
        self._unjudged: Action | None = None
        if facts.judgement.verdict is Verdict.NONE and policy.is_filtered(envelope):
            self._unjudged = _unjudged(policy.no_verdict, envelope)

    def wished(self, recipient: Recipient, match: Match) -> Outcome:
        """Return what one rule alone comes to for a recipient."""
        rule = match.rule
        made = match.targets()
        # A sender among several targets must not keep the mail from the others.
        targets = tuple([each for each in made or () if not self._guard.is_sender(each)])
        action, reason = self._disposition(recipient, rule, made, targets)
        routed = action in (Action.REROUTED, Action.COPIED)
        copies = rule.copies if routed or action is Action.QUARANTINED else ()
        if copies and self._is_spam and (routed or reason is Reason.PAUSED):
            copies = tuple(copy for copy in copies if copy.deliver_spam)
        withheld = len(rule.copies) - len(copies) if routed else 0
        return Outcome(recipient, rule, action, reason, targets, copies, withheld, rule.is_test)

    def _disposition(
        self,
        recipient: Recipient,
        rule: Rule,
        made: tuple[str, ...] | None,
        targets: tuple[str, ...],
    ) -> Disposition:
        """Return the first reason not to route a recipient, and what it leads to."""
        if not _is_text(recipient.raw):
            return Action.LEFT, Reason.UNDECODABLE
        if made is None:
            return Action.LEFT, Reason.NO_TARGET
        if (made and not targets) or self._is_loop(rule, targets):
            return Action.LEFT, Reason.LOOP
        if rule.automatic and self._is_automatic(rule):
            return Action.LEFT, Reason.AUTOMATIC
        if rule.on_unauthenticated is not _ROUTE and self._facts.dmarc is Dmarc.FAIL:
            return _ON_UNAUTHENTICATED[rule.on_unauthenticated], Reason.UNAUTHENTICATED
        if rule.max_size is not None and self._envelope.size > rule.max_size:
            reject = rule.on_oversize is OnOversize.REJECT
            return (Action.REJECTED if reject else Action.LEFT), Reason.OVERSIZE
        if not rule.bypass_spam_filter:
            if self._is_spam:
                return _ON_SPAM[rule.on_spam], Reason.SPAM
            if self._unjudged:
                return self._unjudged, Reason.NO_VERDICT
        return self._routed(rule, targets)

    def _routed(self, rule: Rule, targets: tuple[str, ...]) -> Disposition:
        """Return what is routed, unless the rule is paused."""
        hold = self._envelope.paused.get(rule.name)
        if hold is None:
            return (Action.REROUTED if targets else Action.COPIED), None
        held = hold and self._envelope.by_smtp
        return (Action.QUARANTINED if held else Action.LEFT), Reason.PAUSED

    def _is_automatic(self, rule: Rule) -> bool:
        bounce = not self._envelope.sender and AutomaticClass.BOUNCE in rule.automatic
        return bounce or not rule.automatic.isdisjoint(self._facts.automatic)

    def _is_loop(self, rule: Rule, targets: tuple[str, ...]) -> bool:
        if self._guard.has_passed(rule):
            return True
        # Constant targets were checked when the file was read; only the others can surprise.
        if rule.has_constant_target:
            return False
        return any(self._guard.leads_on(self._table, target) for target in targets)


_ON_UNAUTHENTICATED = {
    OnUnauthenticated.LEAVE: Action.LEFT,
    OnUnauthenticated.REJECT: Action.REJECTED,
    OnUnauthenticated.QUARANTINE: Action.QUARANTINED,
}
_ON_SPAM = {
    OnSpam.LEAVE: Action.LEFT,
    OnSpam.REJECT: Action.REJECTED,
    OnSpam.QUARANTINE: Action.QUARANTINED,
    OnSpam.DISCARD: Action.DISCARDED,
}


def _unjudged(no_verdict: NoVerdict, envelope: Envelope) -> Action | None:
    if no_verdict is NoVerdict.ROUTE:
        return None
    leaves = no_verdict is NoVerdict.LEAVE or not envelope.by_smtp
    return Action.LEFT if leaves else Action.TEMPFAILED


def _is_text(raw: str) -> bool:
    # libmilter takes UTF-8 only; what is not cannot be deleted, so it must not be replaced.
    return raw.isascii() or not any("\udc80" <= each <= "\udcff" for each in raw)
