"""What is true of a message for all recipients: worked out once, as its header comes.

``Gathering`` takes the wanted header fields one by one, in time linear in their length, and keeps
nothing of them but small facts: no number and no size of fields makes them grow. Of the fields that
an attacker alone could make long only a beginning is looked at.
"""

import hashlib
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from crm_milter.routing import authentication, automatic
from crm_milter.routing.authentication import Dmarc
from crm_milter.routing.authors import MAX_AUTHORS, authors
from crm_milter.routing.headerfields import HeaderFields
from crm_milter.routing.marker import DIGITS, MARKER_FIELD
from crm_milter.rules.rule import AutomaticClass
from crm_milter.spam.verdict import Hearing, Judge, Judgement

MARKER = MARKER_FIELD.lower()
# A message that a person hands in again has a block of these (RFC 5322 section 3.6.6).
RESENT = frozenset({"resent-date", "resent-from", "resent-message-id"})
# What names a message: the first of each counts.
NAMING = frozenset({"message-id", "from", "date"})
SUBJECT = "subject"
READ = NAMING | RESENT | {MARKER}

_MAX_READ = 100_000  # characters of all fields of one name; Postfix cuts one at 60,000
_MAX_MARKS = 100  # the last ones: those of this host are added at the end
_MARK = re.compile(rf"[ \t\r\n]*([0-9a-f]{{{DIGITS}}})[ \t\r\n]*")
_ID = re.compile(r"<([^<>]*)>")
_NONE: frozenset[str] = frozenset()
_NOT_AUTOMATIC: frozenset[AutomaticClass] = frozenset()
# Not what Unicode calls blank.
_WITHOUT_BLANKS = str.maketrans("", "", " \t\r\n")


class Facts(NamedTuple):
    """The facts of a message, for each of its recipients."""

    judgement: Judgement
    automatic: frozenset[AutomaticClass] = _NOT_AUTOMATIC  # what its header says of itself
    dmarc: Dmarc = Dmarc.NONE
    authors: frozenset[str] = frozenset()  # who stands in From, in normal form
    marks: tuple[str, ...] = ()  # of X-CRM-Milter, in the order of the message
    identities: tuple[str, ...] = ("",)  # by what a marker may name it; the first for a new one
    header: HeaderFields | None = None  # where a condition asks for it
    subject: str = ""  # without blanks, where it is wanted


class Last:
    """The last values that were added, as many as together have so many characters."""

    __slots__ = ("_most", "_size", "_values")

    def __init__(self, most: int) -> None:
        self._most = most
        self._size = 0
        self._values: deque[str] = deque()

    def add(self, value: str) -> None:
        """Keep a value, and drop the oldest if there is no room."""
        self._values.append(value)
        self._size += len(value) + 1
        while self._size > self._most and len(self._values) > 1:
            self._size -= len(self._values.popleft()) + 1

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)


Readers = Mapping[str, tuple[Callable[["Gathering", str, str], None], ...]]


class Gathering:
    """The facts of one message while its header comes."""

    __slots__ = (
        *("_authors", "_authserv_ids", "_automatic", "_dmarc", "_header", "_hearing"),
        *("_last_results", "_marks", "_naming", "_readers", "_resent", "_room"),
    )

    def __init__(
        self,
        readers: Readers,
        judge: Judge,
        authserv_ids: frozenset[str] = _NONE,
        header: HeaderFields | None = None,
    ) -> None:
        self._readers = readers
        self._authserv_ids = authserv_ids
        self._dmarc = Dmarc.NONE
        self._last_results: Last | None = None  # most messages have few
        self._hearing = Hearing(judge)
        self._header = header
        self._automatic = _NOT_AUTOMATIC
        self._authors: frozenset[str] = _NONE
        self._marks: deque[str] | None = None  # most messages have none
        self._naming: dict[str, str] = {}
        self._resent: set[str] | None = None
        self._room: dict[str, int] = {}

    def add(self, name: str, value: str) -> None:
        """Take a header field; the name is in lower case."""
        for read in self._readers.get(name, ()):
            read(self, name, value)

    def _hear(self, name: str, value: str) -> None:
        self._hearing.add(name, value)

    def _keep(self, name: str, value: str) -> None:
        if self._header is not None:
            self._header.add(name, value)

    def _mark(self, _name: str, value: str) -> None:
        mark = _MARK.fullmatch(value)
        if mark:
            if self._marks is None:
                self._marks = deque(maxlen=_MAX_MARKS)
            self._marks.append(mark[1])

    def _authenticate(self, name: str, value: str) -> None:
        if self._room.get(name, _MAX_READ) >= len(value):
            self._beginning(name, value)
            self._hear_dmarc(value)
        else:  # one that is read in part might say anything
            self._room[name] = 0
            if self._last_results is None:
                self._last_results = Last(_MAX_READ)
            self._last_results.add(value)

    def _hear_dmarc(self, value: str) -> None:
        if self._dmarc is not Dmarc.FAIL:  # nothing more can change that
            said = authentication.dmarc(value, self._authserv_ids)
            self._dmarc = self._dmarc if said is Dmarc.NONE else said

    def _classify(self, name: str, value: str) -> None:
        part = self._beginning(name, value)
        if part is not None:
            self._automatic |= automatic.classes(name, part)

    def _author(self, name: str, value: str) -> None:
        part = self._beginning(name, value)
        if part is not None and len(self._authors) < MAX_AUTHORS:
            self._authors |= authors(part)

    def _resend(self, name: str, value: str) -> None:
        part = self._beginning(name, value)
        if part is not None:
            self._resent = self._resent or set()
            self._resent.add(_digest(name, part.translate(_WITHOUT_BLANKS)))

    def _name(self, name: str, value: str) -> None:
        if name not in self._naming:
            self._naming[name] = value[:_MAX_READ]

    def _beginning(self, name: str, value: str) -> str | None:
        """Return what of a value is read; nothing once enough of its name was."""
        room = self._room.get(name, _MAX_READ)
        if room <= 0:
            return None
        self._room[name] = room - len(value) - 1
        return value[:room]

    def facts(self) -> Facts:
        """Return the facts of all that was added."""
        for value in self._last_results or ():
            self._hear_dmarc(value)
        marks = tuple(self._marks) if self._marks else ()
        identities = self._identities(all_of_them=bool(marks))
        judgement, said = self._hearing.judgement(), self._dmarc
        kinds, header = self._automatic, self._header
        subject = self._naming.get(SUBJECT, "")
        subject = subject and subject.translate(_WITHOUT_BLANKS)
        return Facts(judgement, kinds, said, self._authors, marks, identities, header, subject)

    def _identities(self, *, all_of_them: bool) -> tuple[str, ...]:
        """Return the names of the message; the first is enough where no marker has to be read.

        A Message-ID that the next host added is not there for the first one: both count.
        """
        again = sorted(self._resent) if self._resent else ()
        by_id: tuple[str, ...] = ()
        message_id = self._naming.get("message-id", "")
        if message_id:
            found = _ID.search(message_id)
            name = found[1] if found else message_id
            by_id = (_digest(name.translate(_WITHOUT_BLANKS), *again),)
            if not all_of_them:
                return by_id
        first = [self._naming.get(name, "") for name in ("from", "date")]
        first = [each.translate(_WITHOUT_BLANKS) for each in first]
        return (*by_id, _digest("\n".join(first), *again))


def _digest(*parts: str) -> str:
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()


_READERS: Readers = {
    MARKER: (Gathering._mark,),
    authentication.FIELD: (Gathering._authenticate,),
    **dict.fromkeys(automatic.FIELDS, (Gathering._classify,)),
    **dict.fromkeys(RESENT, (Gathering._resend,)),
    **dict.fromkeys(NAMING, (Gathering._name,)),
    "from": (Gathering._name, Gathering._author),
    SUBJECT: (Gathering._name,),
}


def readers(judge: Judge, conditions: frozenset[str]) -> Readers:
    """Return the readers of a field, by its name: filters and conditions name some more."""
    found = dict(_READERS)
    for names, read in ((judge.names, Gathering._hear), (conditions, Gathering._keep)):
        for name in names:
            found[name] = (*found.get(name, ()), read)
    return found
