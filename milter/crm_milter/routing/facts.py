"""What is true of a message whoever it is for: worked out once, as its header comes.

``Gathering`` takes the wanted header fields one by one, in time linear in their length, and keeps
nothing of them but small facts: no number and no size of fields makes them grow. Of the fields that
an attacker alone could make long only a beginning is looked at.
"""

import hashlib
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from crm_milter.routing import authentication, automatic
from crm_milter.routing.authentication import Dmarc
from crm_milter.routing.authors import MOST_AUTHORS, authors
from crm_milter.routing.headerfields import HeaderFields
from crm_milter.routing.marker import DIGITS, MARKER_FIELD
from crm_milter.rules.rule import AutomaticClass
from crm_milter.spam.verdict import Hearing, Judge, Judgement

MARKER = MARKER_FIELD.lower()
# A message that a person hands in again has a block of these (RFC 5322 section 3.6.6).
RESENT = frozenset({"resent-date", "resent-from", "resent-message-id"})
# What names a message: the first of each counts.
NAMING = frozenset({"message-id", "from", "date"})
READ = NAMING | RESENT | {MARKER}

_MOST_READ = 100_000  # characters of all fields of one name; Postfix cuts one at 60,000
_MOST_MARKS = 100  # the last ones: those of this host are added at the end
_MARK = re.compile(rf"[ \t\r\n]*([0-9a-f]{{{DIGITS}}})[ \t\r\n]*")
_ID = re.compile(r"<([^<>]*)>")
_NONE: frozenset[str] = frozenset()
_NOT_AUTOMATIC: frozenset[AutomaticClass] = frozenset()
# Not what Unicode calls blank.
_WITHOUT_BLANKS = str.maketrans("", "", " \t\r\n")


@dataclass(frozen=True, slots=True)
class Facts:
    """The facts of a message, for each of its recipients."""

    judgement: Judgement
    automatic: frozenset[AutomaticClass] = _NOT_AUTOMATIC  # what its header says of itself
    dmarc: Dmarc = Dmarc.NONE
    authors: frozenset[str] = frozenset()  # who stands in From, in normal form
    marks: tuple[str, ...] = ()  # of X-CRM-Milter, in the order of the message
    identities: tuple[str, ...] = ("",)  # by what a marker may name it; the first for a new one
    header: HeaderFields | None = None  # where a condition asks for it


class Gathering:
    """The facts of one message while its header comes."""

    __slots__ = (
        *("_authors", "_authserv_ids", "_automatic", "_dmarc", "_header", "_hearing", "_marks"),
        *("_naming", "_resent", "_room", "_wanted"),
    )

    def __init__(
        self,
        judge: Judge,
        authserv_ids: frozenset[str] = _NONE,
        wanted: frozenset[str] = _NONE,
        header: HeaderFields | None = None,
    ) -> None:
        self._authserv_ids = authserv_ids
        self._dmarc = Dmarc.NONE
        self._hearing = Hearing(judge)
        self._wanted = wanted  # by conditions
        self._header = header
        self._automatic = _NOT_AUTOMATIC
        self._authors: frozenset[str] = _NONE
        self._marks: deque[str] | None = None  # most messages have none
        self._naming: dict[str, str] = {}
        self._resent: set[str] | None = None
        self._room: dict[str, int] = {}

    def add(self, name: str, value: str) -> None:
        """Take a header field; the name is in lower case."""
        self._hearing.add(name, value)
        if self._header is not None and name in self._wanted:
            self._header.add(name, value)
        if name == MARKER:
            mark = _MARK.fullmatch(value)
            if mark:
                if self._marks is None:
                    self._marks = deque(maxlen=_MOST_MARKS)
                self._marks.append(mark[1])
        elif name == authentication.FIELD:
            if self._dmarc is not Dmarc.FAIL:  # nothing more can change that
                said = authentication.dmarc(value, self._authserv_ids)
                self._dmarc = self._dmarc if said is Dmarc.NONE else said
        elif name in READ or name in automatic.FIELDS:
            room = self._room.get(name, _MOST_READ)
            if room > 0:
                self._room[name] = room - len(value) - 1
                self._read(name, value[:room])

    def _read(self, name: str, value: str) -> None:
        if name in automatic.FIELDS:
            self._automatic |= automatic.classes(name, value)
            return
        if name == "from" and len(self._authors) < MOST_AUTHORS:
            self._authors |= authors(value)
        if name in RESENT:
            self._resent = self._resent or set()
            self._resent.add(_digest(name, value.translate(_WITHOUT_BLANKS)))
        elif name not in self._naming:
            self._naming[name] = value

    def facts(self) -> Facts:
        """Return the facts of all that was added."""
        marks = tuple(self._marks or ())
        identities = tuple(self._identities(all_of_them=bool(marks)))
        judgement, said = self._hearing.judgement(), self._dmarc
        kinds, header = self._automatic, self._header
        return Facts(judgement, kinds, said, self._authors, marks, identities, header)

    def _identities(self, *, all_of_them: bool) -> Iterator[str]:
        """Yield the names of the message; the first is enough where no marker has to be read.

        A Message-ID that the next host added is not there for the first one: both count.
        """
        again = sorted(self._resent or ())
        message_id = self._naming.get("message-id", "")
        if message_id:
            found = _ID.search(message_id)
            name = found[1] if found else message_id
            yield _digest(name.translate(_WITHOUT_BLANKS), *again)
            if not all_of_them:
                return
        first = [self._naming.get(name, "") for name in ("from", "date")]
        yield _digest("\n".join([each.translate(_WITHOUT_BLANKS) for each in first]), *again)


def _digest(*parts: str) -> str:
    text = "\0".join(parts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).hexdigest()
