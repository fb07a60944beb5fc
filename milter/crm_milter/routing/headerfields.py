"""The header fields that the conditions of rules ask for: kept as they came, read when asked.

What is kept is bounded; each field is decoded once and each pattern tried once a message,
however many recipients and rules ask.
"""

from collections.abc import Iterator

from crm_milter import address as addresses
from crm_milter.headertext import readable
from crm_milter.routing.authors import MAX_AUTHORS, addressees
from crm_milter.routing.decision import Envelope
from crm_milter.rules.conditions import Occasion
from crm_milter.rules.fieldpattern import FieldPattern
from crm_milter.rules.table import RuleTable

_MAX_KEPT = 100_000  # characters of all fields of one name; Postfix cuts one at 60,000


class HeaderFields:
    """The fields of one message."""

    __slots__ = ("_addressees", "_answers", "_delimiter", "_raw", "_room", "_texts")

    def __init__(self, delimiter: str = "") -> None:
        self._delimiter = delimiter
        self._raw: dict[str, list[str]] = {}
        self._room: dict[str, int] = {}
        self._texts: dict[str, list[str]] = {}
        self._answers: dict[tuple[str, FieldPattern], bool] = {}
        self._addressees: dict[str, frozenset[str]] = {}

    def add(self, name: str, value: str) -> None:
        """Keep a header field; the name is in lower case."""
        room = self._room.get(name, _MAX_KEPT)
        if room > 0:
            self._room[name] = room - len(value) - 1
            self._raw.setdefault(name, []).append(value[:room])

    def has(self, name: str, pattern: FieldPattern) -> bool:
        """Tell whether a field of this name matches."""
        question = (name, pattern)
        answer = self._answers.get(question)
        if answer is None:
            answer = self._answers[question] = any(map(pattern.matches, self._read(name)))
        return answer

    def _read(self, name: str) -> list[str]:
        texts = self._texts.get(name)
        if texts is None:
            texts = self._texts[name] = [readable(value) for value in self._raw.get(name, ())]
        return texts

    def names(self, fields: tuple[str, ...], address: str) -> bool:
        """Tell whether an address in normal form, or one with an extension of it, is in a field."""
        return any(address in self._named(name) for name in fields)

    def _named(self, name: str) -> frozenset[str]:
        named = self._addressees.get(name)
        if named is None:
            values = self._raw.get(name, ())
            named = frozenset(each for value in values for each in self._normal(value))
            self._addressees[name] = named
        return named

    def _normal(self, value: str) -> Iterator[str]:
        odd = 0  # those that take long
        for address in addressees(value):
            plain = addresses.PLAIN.fullmatch(address)
            odd += not plain
            if plain or odd <= MAX_AUTHORS:
                normal = addresses.normalise(address)
                yield normal
                yield addresses.without_extension(normal, self._delimiter)


def chosen(table: RuleTable, envelope: Envelope, header: HeaderFields) -> Envelope:
    """Return the envelope with the rule of each recipient that waits for the header."""
    occasion = Occasion(envelope.sender, header=header, now=envelope.now)
    recipients = tuple(
        each._replace(match=table.match(each.address, occasion, each.raw), waits=False)
        if each.waits
        else each
        for each in envelope.recipients
    )
    return envelope._replace(recipients=recipients)
