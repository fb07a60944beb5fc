"""The loop guard: is a message on its way round for a rule, and who of its targets sent it.

A message is a loop for a rule if that rule's marker is in it. The marker names the message by its
Message-ID and by the Resent fields, which a person's program adds who hands a message in again and
a forwarder does not (RFC 5322 section 3.6.6): so a copy that the team re-sends to help@ is a new
message, and is a loop only if it comes back itself. Not every program adds them, so what
sendmail(1) or the mailbox of a copy hands in may have passed the rule once. A forwarder that looks
like these makes one copy too many, not an endless number.
"""

from crm_milter import address as addresses
from crm_milter.routing.decision import Envelope
from crm_milter.routing.facts import Facts
from crm_milter.routing.marker import ALL_RULES, marker
from crm_milter.rules.rule import Rule, key
from crm_milter.rules.table import RuleTable

# Markers in one message that no ordinary way explains: each pass adds one.
_TOO_MANY = 5


class LoopGuard:
    """Answers for one message; what it finds for a rule or a target is kept for the next."""

    def __init__(self, secret: bytes, envelope: Envelope, facts: Facts) -> None:
        self._secret = secret
        self._envelope = envelope
        self._facts = facts
        self._passed: dict[str, int] = {}
        self._reroutes: dict[str, bool] = {}

    def is_sender(self, target: str) -> bool:
        """Tell whether the target is the envelope sender or an author of the message."""
        normal = key(target)
        return normal == self._envelope.sender or normal in self._facts.authors

    def has_passed(self, rule: Rule) -> bool:
        """Tell whether the message comes round: it has passed the rule before."""
        marks = self._facts.marks
        if not marks:
            return False
        passed = self._passed.get(rule.name)
        if passed is None:
            names = {
                marker(self._secret, name, identity)
                for name in (rule.name, ALL_RULES)
                for identity in self._facts.identities
            }
            passed = self._passed[rule.name] = sum(mark in names for mark in marks)
        return passed > self._is_handed_in(rule) or len(marks) >= _TOO_MANY

    def _is_handed_in(self, rule: Rule) -> bool:
        sender = self._envelope.sender
        return not self._envelope.by_smtp or any(
            key(each.address) == sender for each in rule.copies
        )

    def leads_on(self, table: RuleTable, target: str) -> bool:
        """Tell whether a rule would reroute mail to the target."""
        normal = addresses.normalise(target)
        known = self._reroutes.get(normal)
        if known is None:
            known = self._reroutes[normal] = table.reroutes(normal)
        return known
