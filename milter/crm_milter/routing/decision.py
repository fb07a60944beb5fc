"""What a decision is made of: the envelope that goes in, the edits and reasons that come out.

These are made for every message, so they are named tuples: a third of the time of a frozen
dataclass.
"""

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import NamedTuple

from crm_milter.rules.rule import Copy, Match, Rule
from crm_milter.spam.verdict import UNJUDGED, Judgement


class Recipient(NamedTuple):
    """One RCPT: ``raw`` is what delrcpt compares, ``address`` the normal form of it."""

    raw: str
    address: str
    match: Match | None = None
    notify: str = ""  # the client's NOTIFY, upper case (RFC 3461 section 4.1)
    orcpt: str = ""  # the client's ORCPT as received (RFC 3461 section 4.2)
    bracketed: bool = True  # came with "<>": always, by SMTP; never, by sendmail(1)
    waits: bool = False  # the match is the first that may apply: the header decides


NONE_PAUSED: Mapping[str, bool] = MappingProxyType({})


class Envelope(NamedTuple):
    """Sender in normal form ("" is the null sender), recipients in the order of RCPT.

    ``size`` is in bytes: what MAIL declared (RFC 1870) or what of the body was seen, if more.
    """

    sender: str
    recipients: tuple[Recipient, ...]
    by_smtp: bool = True
    size: int = 0
    authenticated: bool = False  # a user of this host sent it (RFC 4954)
    client: str = ""  # the address that it came from, "" if there is none
    now: float | None = None  # seconds since 1970, where a condition asks
    paused: Mapping[str, bool] = NONE_PAUSED  # by rule: whether its mail is held


class Action(Enum):
    """The outcome for a matched recipient; the words of the log."""

    REROUTED = "rerouted"
    COPIED = "copied"
    LEFT = "left"
    REJECTED = "rejected"
    QUARANTINED = "quarantined"
    DISCARDED = "discarded"
    MERGED = "merged"
    TEMPFAILED = "tempfailed"


# What the log says of a rule in test mode. Other words, so that a search for what was done finds
# nothing that was not.
WOULD = {
    Action.REROUTED: "would_reroute",
    Action.COPIED: "would_copy",
    Action.LEFT: "would_leave",
    Action.REJECTED: "would_reject",
    Action.QUARANTINED: "would_quarantine",
    Action.DISCARDED: "would_discard",
    Action.MERGED: "would_merge",
    Action.TEMPFAILED: "would_tempfail",
}


class Reason(Enum):
    """Why a matched recipient was not simply rerouted."""

    UNDECODABLE = "undecodable"
    NO_TARGET = "no_target"
    LOOP = "loop"
    AUTOMATIC = "automatic"
    UNAUTHENTICATED = "unauthenticated"
    OVERSIZE = "oversize"
    SPAM = "spam"
    NO_VERDICT = "no_verdict"
    PAUSED = "paused"
    FLOOD = "flood"


class Reply(Enum):
    """The answer at end of message: code, enhanced status code (RFC 3463), text."""

    ACCEPT = "250 2.0.0 accepted"
    DISCARD = "250 2.0.0 discarded"
    REJECT_SPAM = "550 5.7.1 message refused as spam"
    REJECT_FORGED = "550 5.7.1 message refused because it fails DMARC"
    REJECT_OVERSIZE = "552 5.3.4 message size exceeds limit for this recipient"
    TEMPFAIL_FLOOD = "451 4.7.1 too many messages from this sender, try again later"
    TEMPFAIL = "451 4.7.1 no spam filter verdict yet, try again later"


class Addition(NamedTuple):
    """A recipient to add, with its ESMTP parameters as addrcpt takes them."""

    address: str
    never: bool
    orcpt: str = ""

    @property
    def parameters(self) -> str:
        """Return NOTIFY and ORCPT (RFC 3461). Never SUCCESS or DELAY: they show the target."""
        notify = "NOTIFY=NEVER" if self.never else "NOTIFY=FAILURE"
        return f"{notify} ORCPT={self.orcpt}" if self.orcpt else notify


# Tuples, not sets: to hash a member of an Enum takes longer than to compare it with all of these.
_CHANGING = (
    *(Action.REROUTED, Action.COPIED, Action.QUARANTINED, Action.DISCARDED, Action.MERGED),
)


class Outcome(NamedTuple):
    """The outcome for one matched recipient, and why."""

    recipient: Recipient
    rule: Rule
    action: Action
    reason: Reason | None = None
    targets: tuple[str, ...] = ()
    copies: tuple[Copy, ...] = ()
    withheld: int = 0  # copies that spam does not get
    test: bool = False  # said, not done
    duplicate: bool = False  # the original may also get it: its spelling cannot be known
    insured: str = ""  # where dead letters go: it gets a copy at once
    into: str = ""  # the rule that is routed instead of a merged one

    @property
    def changes_envelope(self) -> bool:
        """Tell whether recipients are added or removed on account of this one."""
        return not self.test and self.action in _CHANGING


class Decision(NamedTuple):
    """What to do with a message. Additions must come before removals."""

    add: tuple[Addition, ...] = ()
    remove: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    marked: str | None = None  # what the marker, the first of the headers, stands for
    envelope_sender: str | None = None  # None: as it is
    reply: Reply = Reply.ACCEPT
    hold: str = ""  # why
    judgement: Judgement = UNJUDGED
    outcomes: tuple[Outcome, ...] = ()
