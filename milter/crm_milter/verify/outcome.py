"""What the log proves about a probe: pure, from the lines to one outcome.

``evaluate`` says None as long as more may come. Nothing counts as good because nothing bad was
seen: "arrived" needs the CRM server's own 250, "stayed" the milter's own line.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from crm_milter import address as addresses
from crm_milter.trace.history import MessageHistory
from crm_milter.trace.lines import DecisionLine, Delivery
from crm_milter.verify.advice import (
    AUTHENTICATION,
    BOTH,
    COPY,
    FILTER_REFUSED,
    HELD,
    LEFT,
    NO_RELAYHOST,
    NO_VERDICT,
    NOT_SEEN,
    OTHER_RULES,
    UNLOGGED,
    refused_target,
    relayed,
    waiting_target,
)
from crm_milter.verify.probe import ServerReply
from crm_milter.verify.relayhost import Relayhost


class Proof(Enum):
    """What became of the probe; the word that the last line of the screen begins with."""

    ARRIVED = "arrived"
    CASE_OPENED = "case opened"
    CASE_BOUNCED = "bounced later"
    NO_CASE = "no acknowledgement"
    STAYED = "kept from the CRM"
    WOULD_ARRIVE = "test mode"
    DEFERRED = "deferred"
    BOUNCED = "bounced"
    COPY_FAILED = "copy failed"
    NOT_REROUTED = "not rerouted"
    DOUBLED = "delivered twice"
    LEFT = "left"
    HELD = "on hold"
    MILTER_DOWN = "milter down"
    REFUSED = "refused"
    FILTER_REFUSED = "rejected by the filter"
    NO_VERDICT = "inconclusive"
    SPAM_ROUTED = "spam was rerouted"
    UNKNOWN = "unknown"

    @property
    def is_good(self) -> bool:
        """Tell whether the exit status is 0."""
        return self in (Proof.ARRIVED, Proof.CASE_OPENED, Proof.STAYED)


@dataclass(frozen=True, slots=True)
class Expected:
    """What the configuration promises for an address; all addresses in normal form."""

    address: str
    rule: str
    targets: tuple[str, ...]
    copies: tuple[str, ...]
    marks_ham: bool  # whether a filter that looked always says so
    spam: bool = False  # the probe is spam
    relayhosts: Mapping[str, Relayhost] = field(default_factory=dict)  # by recipient
    dead_letters: str = ""  # the mailbox for what the CRM rejects
    keeps_sender: bool = False  # whether the sender of the mail gets what the CRM's server bounces


@dataclass(frozen=True, slots=True)
class Evidence:
    """The reply, the messages with the token, and complaints of Postfix about a milter."""

    reply: ServerReply
    journeys: tuple[MessageHistory, ...]
    complaints: tuple[str, ...] = ()  # about our milter

    def decided(self, address: str) -> DecisionLine | None:
        """Return the last line of ours about an address."""
        found = [line for journey in self.journeys for line in journey.decided]
        own = [each for each in found if addresses.normalise(each.to) == address]
        return own[-1] if own else None

    @property
    def deliveries(self) -> tuple[Delivery, ...]:
        """Return the last attempt for each recipient, without the way through a filter."""
        names = [f"queued as {journey.queue_id}" for journey in self.journeys]
        attempts = [each for journey in self._decisive for each in journey.last.values()]
        return tuple(
            each for each in attempts if not any(each.words.endswith(name) for name in names)
        )

    @property
    def _decisive(self) -> tuple[MessageHistory, ...]:
        """Return the message with a decision and later ones; earlier ones went to a filter.

        A filter on a pipe does not tell which message it submitted (pipe(8)).
        """
        first = next((n for n, each in enumerate(self.journeys) if each.decided), 0)
        return self.journeys[first:]

    def delivery(self, address: str) -> Delivery | None:
        """Return the last attempt for an address, or for what an alias made of it."""
        found = [each for each in self.deliveries if address in _names(each)]
        failed = [each for each in found if each.failed]
        return next(reversed(failed or found), None)

    @property
    def is_finished(self) -> bool:
        """Tell whether Postfix is done with all of it."""
        return bool(self.journeys) and all(each.is_finished for each in self.journeys)

    @property
    def is_held(self) -> bool:
        """Tell whether a message is on hold."""
        return any(each.is_held for each in self.journeys)


@dataclass(frozen=True, slots=True)
class Result:
    """An outcome, why, and what to do about it.

    ``by_absence``: it rests on a line that is not there, and may only be late.
    """

    outcome: Proof
    why: str
    advice: tuple[str, ...] = ()
    by_absence: bool = False


def evaluate(expected: Expected, evidence: Evidence, time_is_up: bool) -> Result | None:
    """Return the outcome, or None as long as the log may tell more."""
    decided = evidence.decided(expected.address)
    if not evidence.reply.accepted:
        return _refused(expected, evidence, decided)
    if not (
        time_is_up or evidence.is_finished or evidence.is_held or _all_tried(expected, evidence)
    ):
        return None
    if not evidence.journeys:
        advice = ("is this the right server's log? see --log",)
        return Result(Proof.UNKNOWN, "no trace of the message in the log", advice)
    if decided is None:
        return _unseen(expected, evidence)
    if decided.test:
        advice = (
            f'when set-up is complete, remove "mode: test" from rule "{decided.rule}" and reload',
        )
        return Result(Proof.WOULD_ARRIVE, f"nothing was changed: {decided.text}", advice)
    if expected.spam:
        return _spam(expected, evidence, decided)
    if decided.action not in ("rerouted", "copied"):
        return _not_routed(evidence, decided)
    return _routed(expected, evidence, decided)


def _names(each: Delivery) -> tuple[str, str]:
    return addresses.normalise(each.to), addresses.normalise(each.original)


def _all_tried(expected: Expected, evidence: Evidence) -> bool:
    """Tell whether each recipient was tried and one failed: no more is to come soon."""
    decided = evidence.decided(expected.address)
    tried = evidence.deliveries
    if not any(each.failed for each in tried):
        return False
    routed = decided is not None and decided.action in ("rerouted", "copied") and not decided.test
    wanted = (*expected.targets, *expected.copies) if routed and not expected.spam else ()
    return all(evidence.delivery(each) for each in wanted)


def _refused(expected: Expected, evidence: Evidence, decided: DecisionLine | None) -> Result:
    reply = evidence.reply
    if evidence.complaints:
        return Result(Proof.MILTER_DOWN, f"{evidence.complaints[-1]}; {reply}", NOT_SEEN[:1])
    if reply.stage != "message":
        if reply.code in (530, 535, 550, 554) and "authent" in reply.text.lower():
            return Result(Proof.REFUSED, f"at {reply.stage}: {reply}", AUTHENTICATION)
        advice = {
            "connect": ("is Postfix running, and is --via its address?",),
            "MAIL": ("Postfix rejects the sender; see --from",),
            "RCPT": ("Postfix does not accept the address: crm-milter check --postfix says why",),
        }[reply.stage]
        # A complaint about the milter may be on its way into the log.
        late = "Service unavailable" in reply.text
        return Result(Proof.REFUSED, f"at {reply.stage}: {reply}", advice, late)
    if decided and decided.action == "rejected":
        if expected.spam and decided.reason == "spam":
            return Result(Proof.STAYED, f"crm-milter rejected it, as on_spam requires: {reply}")
        return Result(Proof.REFUSED, f"by crm-milter: {decided.text}; {reply}", LEFT["other"])
    if decided and decided.reason == "no_verdict":
        return Result(Proof.NO_VERDICT, f"the filter gave no verdict: {decided.text}", NO_VERDICT)
    if expected.spam and 500 <= reply.code < 600:
        return Result(Proof.FILTER_REFUSED, str(reply), FILTER_REFUSED, by_absence=True)
    why = f"at end of message: {reply}"
    return Result(Proof.REFUSED, why, LEFT["other"], by_absence=True)


def _unseen(expected: Expected, evidence: Evidence) -> Result:
    if evidence.complaints:
        went = _where(evidence)
        return Result(Proof.MILTER_DOWN, f"{evidence.complaints[-1]}{went}", NOT_SEEN[:1])
    for target in expected.targets:
        delivery = evidence.delivery(target)
        if delivery and addresses.normalise(delivery.original) == expected.address:
            why = f"a Postfix alias sent it to <{target}>; crm-milter did not"
            advice = ('remove that alias; "crm-milter map" prints the entries that belong there',)
            return Result(Proof.NOT_REROUTED, why, advice, by_absence=True)
        if delivery and not expected.spam:
            return _delivered(expected, evidence, UNLOGGED)
    why = f"crm-milter logged nothing about it{_where(evidence)}"
    return Result(Proof.NOT_REROUTED, why, NOT_SEEN, by_absence=True)


def _where(evidence: Evidence) -> str:
    went = ", ".join(f"<{each.to}> ({each.status})" for each in evidence.deliveries)
    return f"; it went to {went}" if went else ""


def _not_routed(evidence: Evidence, decided: DecisionLine) -> Result:
    if decided.action == "quarantined" or evidence.is_held:
        return Result(Proof.HELD, decided.text, HELD)
    advice = LEFT.get(decided.reason, LEFT["other"])
    return Result(Proof.LEFT, f"{decided.text}{_where(evidence)}", advice)


def _routed(expected: Expected, evidence: Evidence, decided: DecisionLine) -> Result:
    if {addresses.normalise(each) for each in decided.new} != set(expected.targets):
        return Result(Proof.NOT_REROUTED, f"crm-milter logged: {decided.text}", OTHER_RULES)
    if expected.targets:
        for each in evidence.deliveries:
            if expected.address in _names(each):
                why = f"<{each.to}> also received it for <{expected.address}> ({each.status})"
                return Result(Proof.DOUBLED, why, BOTH)
    if evidence.is_held:
        return Result(Proof.HELD, decided.text, HELD)
    return _delivered(expected, evidence, ())


def _delivered(expected: Expected, evidence: Evidence, advice: tuple[str, ...]) -> Result:
    """Judge by what the servers of the targets said, then by those of the copies."""
    for address in expected.targets or expected.copies:
        each, relayhost = evidence.delivery(address), expected.relayhosts.get(address, NO_RELAYHOST)
        if each is None:
            why = f"no delivery attempt to <{address}> was logged"
            return Result(Proof.UNKNOWN, why, by_absence=True)
        if each.status == "deferred":
            return Result(Proof.DEFERRED, _said(each), waiting_target(each.words, relayhost))
        if each.status != "sent":
            return Result(Proof.BOUNCED, _said(each), refused_target(each.words, relayhost))
    for address in expected.copies:
        each = evidence.delivery(address)
        if each is None or each.status != "sent":
            said = _said(each) if each else f"no delivery attempt to <{address}> was logged"
            status = f"{each.status}: " if each else ""
            why = f"the CRM has it, but a copy failed: {status}{said}"
            return Result(Proof.COPY_FAILED, why, COPY, by_absence=each is None)
    found = [(each, evidence.delivery(each)) for each in expected.targets or expected.copies]
    arrived = [
        (each, expected.relayhosts.get(address, NO_RELAYHOST)) for address, each in found if each
    ]
    on_way = (line for each, host in arrived for line in relayed(each.relay, host))
    why = "; ".join(_said(each) for each, _ in arrived)
    return Result(Proof.ARRIVED, why, (*advice, *dict.fromkeys(on_way)))


def _said(each: Delivery) -> str:
    return f"<{each.to}>: {each.words}"


def _spam(expected: Expected, evidence: Evidence, decided: DecisionLine) -> Result:
    if decided.reason == "spam" and decided.action in ("left", "discarded"):
        for address in (*expected.targets, *expected.copies):
            if evidence.delivery(address):
                why = f"crm-milter left it, but <{address}> received it anyway"
                return Result(Proof.SPAM_ROUTED, why, BOTH)
        gone = "; discarded, as on_spam requires" if decided.action == "discarded" else ""
        return Result(Proof.STAYED, f"{decided.text}{gone or _where(evidence)}")
    if decided.action == "quarantined":
        return Result(Proof.STAYED, f"{decided.text}; it is on hold", HELD)
    if decided.reason == "no_verdict" or decided.verdict == "none":
        why = f"the filter gave no verdict to a local client: {decided.text}"
        return Result(Proof.NO_VERDICT, why, NO_VERDICT)
    if decided.verdict == "ham" and not expected.marks_ham:
        why = f"no verdict from the filter, which counts as ham: {decided.text}"
        return Result(Proof.NO_VERDICT, why, NO_VERDICT)
    if decided.action in ("rerouted", "copied"):
        return Result(Proof.SPAM_ROUTED, decided.text, LEFT["ham"])
    return Result(Proof.NO_VERDICT, f"kept for another reason: {decided.text}", LEFT["other"])
