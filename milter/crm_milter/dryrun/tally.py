"""What old mail comes to, counted for each rule, in memory that does not grow with the mail."""

import hashlib
import heapq
from collections import Counter, OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from crm_milter.config.crms import Crm, crm_of
from crm_milter.config.lint.crms import targets
from crm_milter.dryrun.decided import Decided
from crm_milter.dryrun.envelopes import Envelope
from crm_milter.dryrun.mailboxes import OldMail
from crm_milter.dryrun.rates import Rates
from crm_milter.routing.authentication import Dmarc, dmarc
from crm_milter.routing.decision import WOULD, Action, Outcome
from crm_milter.routing.structured import words
from crm_milter.rules.rule import AutomaticClass, Rule

MINUTE, HOUR = 60, 3600
BIGGEST = 3
_MAX_IDS = 20_000  # of the messages before, among which a duplicate is looked for
_ROUTED = (Action.REROUTED, Action.COPIED)


@dataclass(slots=True)
class RuleTally:
    """The figures of one rule; a recipient counts as in the log."""

    rule: Rule
    crm: Crm | None
    actions: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    biggest: list[tuple[int, str]] = field(default_factory=list)  # a heap: size, where
    automatic: Counter[AutomaticClass] = field(default_factory=Counter)
    any_automatic: int = 0
    forged: int = 0
    duplicates: int = 0
    rates: Rates = field(init=False)

    def __post_init__(self) -> None:
        self.rates = Rates(self.windows)

    @property
    def windows(self) -> tuple[int, ...]:
        """Return the seconds in which a sender's messages are counted, the CRM's included."""
        rate = self.crm.rate if self.crm else None
        return tuple(sorted({MINUTE, HOUR, rate.seconds if rate else HOUR}))

    @property
    def total(self) -> int:
        """Return the number of recipients that the rule was applied to."""
        return sum(self.actions.values())

    @property
    def routed(self) -> int:
        """Return how many the CRM would have got, or does get in mode test."""
        return sum(self.actions[each.value] + self.actions[WOULD[each]] for each in _ROUTED)


@dataclass(slots=True)
class Tally:
    """All figures: of the mailboxes, and of each rule that was applied, in their order."""

    rules: dict[str, RuleTally]
    messages: int = 0
    matched: int = 0
    guessed: int = 0  # recipients taken from To or Cc
    first: float | None = None
    last: float | None = None
    hours: Counter[int] = field(default_factory=Counter)  # since 1970: messages that are routed
    _seen: OrderedDict[bytes, None] = field(default_factory=OrderedDict)

    @classmethod
    def of(cls, rules: tuple[Rule, ...]) -> "Tally":
        """Return the tally of no mail."""
        return cls({rule.name: RuleTally(rule, _crm(rule)) for rule in rules})

    def add(self, mail: OldMail, envelope: Envelope, decided: Decided) -> None:
        """Count one message."""
        self.messages += 1
        self.guessed += envelope.guessed
        if envelope.time is not None:
            self.first = min(envelope.time, self.first or envelope.time)
            self.last = max(envelope.time, self.last or envelope.time)
        if decided.decision is None:
            return
        self.matched += 1
        is_routed = any(each.action in _ROUTED for each in decided.decision.outcomes)
        if is_routed and envelope.time is not None:
            self.hours[int(envelope.time // HOUR)] += 1
        is_forged = _is_forged(envelope.results)
        repeated = {
            name: self._is_repeated(f"{name} {envelope.message_id}")
            for name in {outcome.rule.name for outcome in decided.decision.outcomes}
        }
        for outcome in decided.decision.outcomes:
            of_rule = self.rules[outcome.rule.name]
            _count(of_rule, outcome, mail, envelope, decided)
            of_rule.forged += is_forged
            of_rule.duplicates += repeated[of_rule.rule.name]

    def _is_repeated(self, name: str) -> bool:
        """Tell whether a rule was applied to such a message before."""
        if name.endswith(" "):  # it has no Message-ID
            return False
        key = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        is_repeated = key in self._seen
        self._seen[key] = None
        if len(self._seen) > _MAX_IDS:
            self._seen.popitem(last=False)
        return is_repeated


def _crm(rule: Rule) -> Crm | None:
    """Return the CRM that a rule leads to, None if that is not known without a message."""
    return _first_crm(target for target, _ in targets(rule))


def _first_crm(addresses: Iterable[str]) -> Crm | None:
    return next(filter(None, (crm_of(each.rpartition("@")[2]) for each in addresses)), None)


def _count(
    tally: RuleTally,
    outcome: Outcome,
    mail: OldMail,
    envelope: Envelope,
    decided: Decided,
) -> None:
    action = WOULD[outcome.action] if outcome.test else outcome.action.value
    tally.actions[action] += 1
    if tally.crm is None and (crm := _first_crm(outcome.targets)):
        tally.crm = crm
        tally.rates = Rates(tally.windows)
    if outcome.reason:
        tally.reasons[outcome.reason.value] += 1
    heapq.heappush(tally.biggest, (mail.size, mail.where))
    if len(tally.biggest) > BIGGEST:
        heapq.heappop(tally.biggest)
    classes = decided.facts.automatic
    if not decided.envelope.sender:
        classes |= {AutomaticClass.BOUNCE}
    tally.automatic.update(classes)
    tally.any_automatic += bool(classes)
    if outcome.action in _ROUTED and envelope.time is not None:
        tally.rates.add(decided.envelope.sender, envelope.time)


def _is_forged(results: str) -> bool:
    """Tell whether the server that received the message says that DMARC failed."""
    server = next(words(results), "").removeprefix('"').partition("/")[0].lower()
    return dmarc(results, frozenset({server})) is Dmarc.FAIL
