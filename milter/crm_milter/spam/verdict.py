"""The spam filter's verdict: header fields in, spam, ham, none or conflicting out.

Only the header fields that the configured filters name are read, every instance of them, names
and values regardless of case, values unfolded. One "spam" wins over any number of "ham"; both
in one message is "conflicting", which is treated as spam. Where every configured filter leaves
ham unmarked, silence is ham; where one marks ham, silence is "none": the filter did not look.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum, Flag, auto
from typing import NamedTuple

from crm_milter.headertext import unfolded


class Verdict(Enum):
    """What the filters said of one message."""

    SPAM = "spam"
    HAM = "ham"
    NONE = "none"
    CONFLICTING = "conflicting"

    @property
    def is_spam(self) -> bool:
        """Conflicting is spam: a forged "ham" must not help its forger."""
        return self is Verdict.SPAM or self is Verdict.CONFLICTING


class Stands(Flag):
    """Where a filter stands, seen from our milter."""

    MILTER = auto()  # a milter before ours
    REINJECTION = auto()  # a content filter that hands the mail back to an smtpd of ours
    GATEWAY = auto()  # a host before this one: the field comes with the message


@dataclass(frozen=True, slots=True)
class FieldTest:
    """One header field that a filter writes, and what its values mean."""

    name: str  # lower case
    says: Callable[[str], Verdict]  # of an unfolded value; NONE: nothing, or unsure
    sample: str  # a value as the filter writes it on spam


@dataclass(frozen=True, slots=True)
class SpamFilter:
    """A spam filter by the header fields that it writes."""

    name: str
    tests: tuple[FieldTest, ...]
    marks_ham: bool
    stands: Stands


class Judgement(NamedTuple):
    """A verdict and the header field that decided it ("" where silence did)."""

    verdict: Verdict
    field: str = ""


UNJUDGED = Judgement(Verdict.NONE)

Fields = Iterable[tuple[str, str]]  # names in lower case, values as received


class Judge:
    """The configured filters, ready to say what they said of a message."""

    def __init__(self, filters: tuple[SpamFilter, ...]) -> None:
        self._tests: dict[str, list[FieldTest]] = {}
        for test in (test for each in filters for test in each.tests):
            self._tests.setdefault(test.name, []).append(test)
        silence_is_ham = filters and not any(each.marks_ham for each in filters)
        self._silence = Judgement(Verdict.HAM if silence_is_ham else Verdict.NONE)

    def __call__(self, fields: Fields) -> Judgement:
        """Return the verdict on a message with these header fields."""
        hearing = Hearing(self)
        for name, value in fields:
            hearing.add(name, value)
        return hearing.judgement()

    def tests(self, name: str) -> list[FieldTest]:
        """Return the tests of a header field."""
        return self._tests.get(name, _NO_TESTS)

    @property
    def names(self) -> Iterable[str]:
        """The names, in lower case, of the header fields with tests."""
        return self._tests

    @property
    def silence(self) -> Judgement:
        """What it means that no filter said anything."""
        return self._silence


_NO_TESTS: list[FieldTest] = []
_LONGEST_QUOTE = 1000  # characters of the field that decided


class Hearing:
    """What the filters said so far of one message; keeps two short texts."""

    __slots__ = ("_ham", "_judge", "_spam")

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self._spam = self._ham = ""

    def add(self, name: str, value: str) -> None:
        """Hear a header field, in time linear in its length."""
        if self._spam and self._ham:
            return  # nothing more can change that
        for test in self._judge.tests(name):
            whole = unfolded(value)
            said = test.says(whole)
            if said is Verdict.SPAM:
                self._spam = self._spam or f"{name}: {whole[:_LONGEST_QUOTE]}"
            elif said is Verdict.HAM:
                self._ham = self._ham or f"{name}: {whole[:_LONGEST_QUOTE]}"

    def judgement(self) -> Judgement:
        if self._spam:
            return Judgement(Verdict.CONFLICTING if self._ham else Verdict.SPAM, self._spam)
        return Judgement(Verdict.HAM, self._ham) if self._ham else self._judge.silence


def field_names(filters: tuple[SpamFilter, ...]) -> frozenset[str]:
    """Return the names, in lower case, of all header fields that the filters write."""
    return frozenset(test.name for each in filters for test in each.tests)
