"""From a message to its decision: the one way of ``explain``, ``test`` and ``replay``.

The look-up and the decision are the daemon's own; only the envelope and the header fields come
from elsewhere than from Postfix.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from crm_milter import address as addresses
from crm_milter.libmilter import header
from crm_milter.routing.decide import Policy, decide
from crm_milter.routing.decision import NONE_PAUSED, Decision, Envelope, Recipient
from crm_milter.routing.facts import Facts
from crm_milter.routing.floodguard import Meter
from crm_milter.rules.conditions import Occasion


class Mail(NamedTuple):
    """A message: addresses as a client would send them, octets of which the header is read."""

    sender: str
    recipients: Sequence[str]
    message: bytes
    size: int = 0
    by_smtp: bool = True
    authenticated: bool = False
    client: str = ""
    now: float | None = None  # seconds since 1970; None: every rule has begun, and none has ended


class Decided(NamedTuple):
    """What was decided, and from what."""

    envelope: Envelope
    occasion: Occasion
    facts: Facts
    decision: Decision | None  # None: no rule applies, the milter lets go at DATA


class DryRun:
    """One policy, for any number of messages.

    ``also`` are names of header fields that are looked at in any case, ``without`` such that are
    not.
    """

    def __init__(
        self,
        policy: Policy,
        also: frozenset[str] = frozenset(),
        without: frozenset[str] = frozenset(),
        paused: Mapping[str, bool] = NONE_PAUSED,
    ) -> None:
        self._policy = policy
        self._paused = paused
        self._wanted = (policy.wanted_fields | also) - without

    def decided(self, mail: Mail, meter: Meter | None = None) -> Decided:
        """Return what happens to a message; without a meter there is never too much of it."""
        policy, wanted = self._policy, self._wanted
        facts = policy.facts(each for each in header.fields(mail.message) if each[0] in wanted)
        sender = addresses.sender(mail.sender)
        occasion = Occasion(sender, header=facts.header, now=mail.now)
        envelope = Envelope(
            sender,
            tuple(self._recipient(each, occasion) for each in mail.recipients),
            mail.by_smtp,
            mail.size,
            mail.authenticated,
            mail.client,
            paused=self._paused,
        )
        matched = any(each.match for each in envelope.recipients)
        decision = decide(policy, envelope, facts, meter) if matched else None
        return Decided(envelope, occasion, facts, decision)

    def _recipient(self, argument: str, occasion: Occasion) -> Recipient:
        raw = addresses.strip_path(argument)
        address = addresses.normalise(raw)
        return Recipient(raw, address, self._policy.table.match(address, occasion, raw))
