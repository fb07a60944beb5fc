"""What a line of the mail log says: one of Postfix's or of crm-milter's, in any frame.

A line comes from a file of syslog (traditional time stamps or RFC 3339), from postlogd, from the
journal, from the log of a container or from our own stderr, which has neither time nor program.
What clients choose, such as a message id, stands behind the queue id and never passes for one.
"""

import re
from dataclasses import dataclass
from datetime import datetime

from crm_milter.routing.decision import WOULD, Action
from crm_milter.trace.frame import QUEUE_ID, unframed
from crm_milter.trace.stamps import Clock

_ENTRY = re.compile(rf"(?P<id>{QUEUE_ID}): ")
_WHOLE_ID = re.compile(r"[0-9A-Za-z]{6,20}", re.ASCII)

_DELIVERY = re.compile(
    r"to=<(?P<to>.*?)>, (?:orig_to=<(?P<original>.*?)>, )?relay=(?P<relay>\S+), "
    r"(?:(?:conn_use=\d+, )?delay=(?P<delay>[0-9.]+), )?.*?"
    r"status=(?P<status>[a-z-]+)(?: \((?P<words>.*?)\)?)?$"  # Postfix cuts at some 2,000 octets
)
_TESTED = {word: action.value for action, word in WOULD.items()}
_ACTIONS = "|".join([*(action.value for action in Action), *_TESTED])
_DECISION = re.compile(
    rf"(?P<action>{_ACTIONS}): to=<(?P<to>.*?)>(?: new=<(?P<new>.*?)(?:> rule=(?P<rule>\S+)|$))?"
    r"(?P<rest>.*)"
)
# Other messages of the same mail: re-injected by a filter, forwarded, requeued, bounced.
_LINK = re.compile(
    r"(?:queued as |forwarded as |notification: |orig_id=|orig_queue_id=)"
    r"(?P<id>[0-9A-Za-z]{6,20})\b"
)

# Programs of Postfix that write to its log, and this one.
# fmt: off
_PROGRAMS = frozenset((
    "anvil", "bounce", "cleanup", "crm-milter", "defer", "discard", "dnsblog", "error", "flush",
    "lmtp", "local", "master", "nqmgr", "oqmgr", "pickup", "pipe", "postdrop", "postfix-script",
    "postlog", "postlogd", "postmulti", "postqueue", "postscreen", "postsuper", "proxymap", "qmgr",
    "qmqpd", "scache", "sendmail", "showq", "smtp", "smtpd", "spawn", "tlsmgr", "tlsproxy", "trace",
    "trivial-rewrite", "verify", "virtual",
))


# fmt: on


@dataclass(frozen=True, slots=True)
class Line:
    """One line. ``time`` is aware, None where the line has none; ``queue_id`` may be ""."""

    time: datetime | None
    program: str  # "smtpd", without "postfix/" and the service before it
    queue_id: str
    text: str  # what follows the queue id
    pid: int | None = None
    host: str = ""
    source: str = ""  # where the line was read

    @property
    def is_of_mail(self) -> bool:
        """Tell whether Postfix or crm-milter wrote it, as far as that can be seen."""
        return bool(self.queue_id) or self.program in _PROGRAMS

    @property
    def links(self) -> list[str]:
        """Return the queue ids of other messages that this line leads to."""
        found = [match["id"] for match in _LINK.finditer(self.text)]
        return [each for each in found if each != self.queue_id]


@dataclass(frozen=True, slots=True)
class Delivery:
    """An attempt to deliver to one recipient, in the words of the next server."""

    time: datetime | None
    to: str
    original: str  # before aliases, "" where it is the same
    relay: str
    status: str  # sent, deferred, bounced, ...
    words: str
    delay: float | None = None  # seconds since the message came in

    @property
    def failed(self) -> bool:
        """Tell whether the attempt came to nothing, for now or for good."""
        return self.status in ("deferred", "bounced", "expired", "undeliverable")


@dataclass(frozen=True, slots=True)
class DecisionLine:
    """Our own line about one recipient."""

    time: datetime | None
    action: str
    to: str
    new: tuple[str, ...]
    rule: str
    reason: str  # "" for none
    verdict: str  # "" if the line has none
    test: bool  # what the action would have been
    text: str


def is_queue_id(text: str) -> bool:
    """Tell whether a text can be a queue id, short or long (postconf(5) enable_long_queue_ids)."""
    return bool(_WHOLE_ID.fullmatch(text))


class Parser:
    """Reads lines of one source. ``newest`` is when it was written to last."""

    def __init__(self, newest: datetime, source: str = "") -> None:
        self._clock = Clock(newest)
        self._source = source

    def line(self, octets: bytes) -> Line:
        """Return what a line says; one that cannot be understood is all text."""
        frame = unframed(octets.decode("utf-8", "replace"))
        entry = _ENTRY.match(frame.text)
        return Line(
            self._clock.read(frame.stamps) if frame.stamps else None,
            frame.program,
            entry["id"] if entry else "",
            frame.text[entry.end() if entry else 0 :],
            frame.pid,
            frame.host,
            self._source,
        )


def delivery(line: Line) -> Delivery | None:
    """Return the attempt to deliver that a line tells of, None if it tells of none."""
    found = _DELIVERY.match(line.text)
    if found is None:
        return None
    return Delivery(
        line.time,
        found["to"],
        found["original"] or "",
        found["relay"],
        found["status"],
        found["words"] or "",
        _seconds(found["delay"] or ""),
    )


def _seconds(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def decided(line: Line) -> DecisionLine | None:
    """Return what a line of ours says, None for any other line (routing.logline)."""
    found = _DECISION.match(line.text)
    if found is None or not line.queue_id:
        return None
    words = dict(word.partition("=")[::2] for word in found["rest"].split() if "=" in word)
    new = found["new"].split(">,<") if found["new"] else []
    if new and not found["rule"]:  # cut: the last one is perhaps not whole
        new.pop()
    return DecisionLine(
        line.time,
        _TESTED.get(found["action"], found["action"]),
        found["to"],
        tuple(new),
        found["rule"] or words.get("rule", ""),
        words.get("reason", ""),
        words.get("verdict", ""),
        found["action"] in _TESTED,
        line.text,
    )
