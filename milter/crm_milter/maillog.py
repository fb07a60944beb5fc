"""What a line of the mail log says: one of Postfix's or of ours, whoever wrote it down.

A line comes from a file of syslog (traditional time stamps or RFC 3339), from postlogd, from the
journal, from the log of a container or from our own stderr, which has neither time nor program.
What clients choose, such as a message id, stands behind the queue id and never passes for one.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta

from crm_milter.decision import WOULD, Action

_STAMP = re.compile(
    r"(?:(?P<iso>\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?)"
    r"|(?P<old>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d)) +"
)
_CONTAINER = re.compile(r"std(?:out|err) [FP] ")  # Kubernetes puts it behind its time stamp
_WRITER = re.compile(r"\S*[^\s:] (?P<program>[^\s\[\]:<>]+)(?:\[\d+\])?: ")
_PRIORITY = re.compile(r"<\d{1,3}>")
_QUEUE_ID = r"(?![a-z]+:|NOQUEUE:)[0-9A-Za-z]{6,20}"
_ENTRY = re.compile(rf"(?P<id>{_QUEUE_ID}): ")
_WHOLE_ID = re.compile(r"[0-9A-Za-z]{6,20}", re.ASCII)

_DELIVERY = re.compile(
    r"to=<(?P<to>.*?)>, (?:orig_to=<(?P<original>.*?)>, )?relay=(?P<relay>\S+), .*?"
    r"status=(?P<status>[a-z-]+)(?: \((?P<words>.*)\))?$"
)
_TESTED = {word: action.value for action, word in WOULD.items()}
_ACTIONS = "|".join([*(action.value for action in Action), *_TESTED])
_DECISION = re.compile(
    rf"(?P<action>{_ACTIONS}): to=<(?P<to>.*?)>(?: new=<(?P<new>.*?)>)? rule=(?P<rule>\S+)"
    r"(?P<rest>.*)"
)
# Other messages of the same mail: re-injected by a filter, forwarded, requeued, bounced.
_LINK = re.compile(
    r"(?:queued as |forwarded as |notification: |orig_id=|orig_queue_id=)"
    r"(?P<id>[0-9A-Za-z]{6,20})\b"
)


@dataclass(frozen=True, slots=True)
class Line:
    """One line. ``time`` is aware, None where the line has none; ``queue_id`` may be ""."""

    time: datetime | None
    program: str  # "smtpd", without "postfix/" and the service before it
    queue_id: str
    text: str  # what follows the queue id

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

    @property
    def failed(self) -> bool:
        """Tell whether the attempt came to nothing, for now or for good."""
        return self.status in ("deferred", "bounced", "expired", "undeliverable")


@dataclass(frozen=True, slots=True)
class Decided:
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
    """Reads lines of one source. ``newest`` is when it was written to last.

    Traditional time stamps have no year: theirs is the last one that is not after ``newest``.
    Without a zone a time is local.
    """

    def __init__(self, newest: datetime) -> None:
        self._limit = newest.astimezone() + timedelta(days=1)

    def line(self, octets: bytes) -> Line:
        """Return what a line says; one that cannot be understood is all text."""
        text = octets.decode("utf-8", "replace")
        time = None
        at = 0
        if stamp := _STAMP.match(text):
            time = self._time(stamp)
            at = stamp.end()
            if container := _CONTAINER.match(text, at):
                at = container.end()
        program = ""
        if stamp and (writer := _WRITER.match(text, at)):
            program = writer["program"].rpartition("/")[2]
            at = writer.end()
        if priority := _PRIORITY.match(text, at):
            at = priority.end()
        entry = _ENTRY.match(text, at)
        queue_id = entry["id"] if entry else ""
        return Line(time, program, queue_id, text[entry.end() if entry else at :])

    def _time(self, stamp: re.Match[str]) -> datetime | None:
        try:
            if stamp["iso"]:
                return datetime.fromisoformat(stamp["iso"].replace(",", ".")).astimezone()
            return self._with_year(stamp["old"])
        except (ValueError, OverflowError):
            return None

    def _with_year(self, old: str) -> datetime | None:
        for year in range(self._limit.year, self._limit.year - 9, -1):
            try:
                time = datetime.strptime(f"{year} {old}", "%Y %b %d %H:%M:%S").astimezone()
            except ValueError:  # 29 February
                continue
            if time <= self._limit:
                return time
        return None


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
    )


def decided(line: Line) -> Decided | None:
    """Return what a line of ours says, None for any other line (wording.outcome_line)."""
    found = _DECISION.match(line.text)
    if found is None or not line.queue_id:
        return None
    words = dict(word.partition("=")[::2] for word in found["rest"].split() if "=" in word)
    return Decided(
        line.time,
        _TESTED.get(found["action"], found["action"]),
        found["to"],
        tuple(found["new"].split(">,<")) if found["new"] else (),
        found["rule"],
        words.get("reason", ""),
        words.get("verdict", ""),
        found["action"] in _TESTED,
        line.text,
    )
