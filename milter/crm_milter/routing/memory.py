"""Resolutions remembered: the same recipient, judged alike, comes to the same each time.

A decision depends on little of a message: who its recipients are, what its facts come to, and
whether one of the targets sent it. What was decided is kept for the next such message, with all
that is made of it for Postfix and the log. A worker's policy never changes, so nothing kept grows
old. Only the marker is of one message, and how much came before it: the flood guard is asked each
time.
"""

from dataclasses import dataclass
from typing import Any

from crm_milter.routing.decide import Policy, resolve
from crm_milter.routing.decision import Decision, Envelope, Reason
from crm_milter.routing.facts import Facts
from crm_milter.routing.floodguard import Meter, asked, limited
from crm_milter.routing.logline import outcome_words
from crm_milter.routing.marker import MARKER_FIELD, marker
from crm_milter.routing.twice import Twice
from crm_milter.rules.rule import Match, Rule, key

MOST = 2000  # resolutions, one to three kilobytes each
_NO_RULES: frozenset[str] = frozenset()
_FEW = 3  # recipients: more seldom come together again

Key = tuple[object, ...]
Headers = tuple[tuple[str, str], ...]


@dataclass(slots=True, eq=False)
class Resolution:
    """A decision, and what is made of it, but for the marker: that names the message."""

    decision: Decision
    additions: tuple[tuple[str, str], ...]  # as addrcpt takes them
    headers: Headers  # without the marker
    words: tuple[str, ...]  # the log lines, after the queue id
    limited: tuple[Rule, ...] = ()  # those that route only so much of one sender
    counts: Any = None  # what metrics.counting adds for it; None before the first such message


class Memory:
    """Decides as ``decide`` does, and remembers; for all threads of a worker."""

    def __init__(self, policy: Policy, meter: Meter | None = None) -> None:
        self._policy = policy
        self._meter = meter if policy.counts_floods else None
        self._depends_on_client = policy.depends_on_client
        self._has_live_tables = bool(policy.table.live())
        self._known: Twice[tuple[Resolution, frozenset[str]]] = Twice(MOST)

    def resolve(self, envelope: Envelope, facts: Facts) -> tuple[Resolution, Headers]:
        """Return the decision for a message, and its headers; raises what ``decide`` does."""
        known = self._key(envelope, facts)
        kept = self._known.get(known)
        if kept is not None:
            resolution, targets = kept
            if _is_apart(targets, envelope, facts):
                over = self._over(resolution, envelope, facts)
                if not over:
                    return resolution, self._signed(resolution, facts)
                decision = resolve(self._policy, envelope, facts, self._answered(resolution, over))
                return _prepared(decision), decision.headers
        decision = resolve(self._policy, envelope, facts, self._meter)
        made = _prepared(decision)
        if known is None or any(each.reason is Reason.FLOOD for each in decision.outcomes):
            return made, decision.headers
        if kept is None and self._known.came_before(known):
            targets = _targets(envelope)
            if _is_apart(targets, envelope, facts):
                self._known.keep(known, (made, targets))
        return made, decision.headers

    def _over(self, made: Resolution, envelope: Envelope, facts: Facts) -> frozenset[str]:
        """Return the rules that have routed enough; the others count this message."""
        if self._meter is None or not made.limited:
            return _NO_RULES
        return asked(made.limited, envelope, facts, self._meter)

    def _answered(self, made: Resolution, over: frozenset[str]) -> Meter:
        """Return the meter for a message of which these rules were asked already."""
        known = {rule.name for rule in made.limited}

        def answer(rule: Rule, sender: str, subject: str) -> bool:
            if rule.name in known or self._meter is None:
                return rule.name in over
            return self._meter(rule, sender, subject)

        return answer

    def _signed(self, resolution: Resolution, facts: Facts) -> Headers:
        """Return the header fields to add to a message with these facts."""
        stands_for = resolution.decision.marked
        if stands_for is None:
            return resolution.headers
        mark = marker(self._policy.marker_key, stands_for, facts.identities[0])
        return ((MARKER_FIELD, mark), *resolution.headers)

    def _key(self, envelope: Envelope, facts: Facts) -> Key | None:
        """Return all that a decision depends on but its senders, None if that is too much."""
        recipients = envelope.recipients
        if len(recipients) > _FEW or facts.marks or self._depends_on_client or envelope.paused:
            return None
        said = facts.judgement.verdict.value, facts.automatic, facts.dmarc
        known: Key = (*said, envelope.by_smtp, not envelope.sender)
        for raw, address, match, notify, orcpt, bracketed, waits in recipients:
            if match is None:
                known += (raw, address)
            elif _is_steady(match) and not waits and not self._may_lead_on(match):
                rule = match.rule.name
                known += (raw, address, rule, match.mapped, notify, orcpt, bracketed)
            else:
                return None
        return known

    def _may_lead_on(self, match: Match) -> bool:
        """Tell whether the target may be an address of a table from now on."""
        return self._has_live_tables and not match.rule.has_constant_target


def _is_steady(match: Match) -> bool:
    """Tell whether it is always the same that a match leads to, whatever the message."""
    return match.behind is None and match.rule.max_size is None


def _targets(envelope: Envelope) -> frozenset[str]:
    """Return the targets in normal form: a message that one of them sent is decided otherwise."""
    matches = [each.match for each in envelope.recipients if each.match]
    return frozenset(key(target) for match in matches for target in match.targets() or ())


def _is_apart(targets: frozenset[str], envelope: Envelope, facts: Facts) -> bool:
    """Tell whether none of the targets sent the message."""
    return envelope.sender not in targets and targets.isdisjoint(facts.authors)


def _prepared(decision: Decision) -> Resolution:
    return Resolution(
        decision,
        tuple([(f"<{each.address}>", each.parameters) for each in decision.add]),
        decision.headers if decision.marked is None else decision.headers[1:],
        tuple([outcome_words(each, decision.judgement) for each in decision.outcomes]),
        limited(decision.outcomes),
    )
