"""The spam filter's verdict: header fields in, spam, ham, none or conflicting out.

Only the header fields that the configured filters name are read, every instance of them, names
and values regardless of case, values unfolded. One "spam" wins over any number of "ham"; both
in one message is "conflicting", which is treated as spam. Where every configured filter leaves
ham unmarked, silence is ham; where one marks ham, silence is "none": the filter did not look.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from fnmatch import translate
from typing import NamedTuple


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


@dataclass(frozen=True, slots=True)
class FieldTest:
    """One header field that a filter writes, and what its values mean."""

    name: str  # lower case
    is_spam: Callable[[str], bool]
    is_ham: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class SpamFilter:
    """A spam filter by the header fields that it writes."""

    name: str
    tests: tuple[FieldTest, ...]
    marks_ham: bool


class Judgement(NamedTuple):
    """A verdict and the header field that decided it ("" where silence did)."""

    verdict: Verdict
    field: str = ""


UNJUDGED = Judgement(Verdict.NONE)

Fields = Iterable[tuple[str, str]]  # names in lower case, values as received

_FOLD = re.compile(r"\s*[\r\n]+\s*")
_NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")


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
        spam = ham = ""
        for name, value in fields:
            for test in self._tests.get(name, ()):
                unfolded = _unfolded(value)
                if test.is_spam(unfolded):
                    spam = spam or f"{name}: {unfolded}"
                elif test.is_ham(unfolded):
                    ham = ham or f"{name}: {unfolded}"
        if spam:
            return Judgement(Verdict.CONFLICTING if ham else Verdict.SPAM, spam)
        return Judgement(Verdict.HAM, ham) if ham else self._silence


def _unfolded(value: str) -> str:
    folded = "\n" in value or "\r" in value
    return (_FOLD.sub(" ", value) if folded else value).strip()


def field_names(filters: tuple[SpamFilter, ...]) -> frozenset[str]:
    """Return the names, in lower case, of all header fields that the filters write."""
    return frozenset(test.name for each in filters for test in each.tests)


def _matcher(pattern: str) -> Callable[[str], bool]:
    compiled = re.compile(pattern, re.IGNORECASE)
    return lambda value: compiled.search(value) is not None


def _silent(value: str) -> bool:  # noqa: ARG001 - a test that never says so
    return False


def _field(name: str, spam: str, ham: str = "") -> FieldTest:
    return FieldTest(name.lower(), _matcher(spam), _matcher(ham) if ham else _silent)


_RSPAMD = (
    _field("X-Spam", r"^yes\b", r"^no\b"),
    _field("X-Rspamd-Action", r"^(add header|rewrite subject|reject)$", r"^(no action|greylist)$"),
    _field("X-Spam-Status", r"^yes\b", r"^no\b"),
)

PRESETS = {
    preset.name: preset
    for preset in (
        SpamFilter(
            "spamassassin",
            (_field("X-Spam-Flag", r"^yes\b"), _field("X-Spam-Status", r"^yes\b", r"^no\b")),
            marks_ham=True,
        ),
        SpamFilter("amavis", (_field("X-Spam-Flag", r"^yes\b", r"^no\b"),), marks_ham=True),
        SpamFilter("rspamd", _RSPAMD, marks_ham=False),
        SpamFilter("rspamd-headers", _RSPAMD, marks_ham=True),
        SpamFilter(
            "microsoft",
            (
                _field("X-MS-Exchange-Organization-SCL", r"^([5-9]|\d\d)", r"^(-1|[0-4])$"),
                _field(
                    "X-Forefront-Antispam-Report",
                    r"(^|;)\s*(SCL:([5-9]|\d\d)|SFV:SPM|CAT:(SPM|PHSH|HPHSH|HSPM|MALW))\s*(;|$)",
                    r"(^|;)\s*SCL:(-1|[0-4])\s*(;|$)",
                ),
            ),
            marks_ham=True,
        ),
        SpamFilter(
            "barracuda",
            (
                _field("X-Barracuda-Spam-Flag", r"^yes\b"),
                _field("X-Barracuda-Spam-Status", r"^yes\b", r"^no\b"),
            ),
            marks_ham=True,
        ),
        # A third state, Unsure, is neither: with nothing else it is "none".
        SpamFilter("bogofilter", (_field("X-Bogosity", r"^spam\b", r"^ham\b"),), marks_ham=True),
        SpamFilter(
            "dspam", (_field("X-DSPAM-Result", r"^spam\b", r"^innocent\b"),), marks_ham=True
        ),
        # A sender's own gateway writes rule=outbound_notspam: no word of ours.
        SpamFilter(
            "proofpoint",
            (
                _field(
                    "X-Proofpoint-Spam-Details",
                    r"(^|[\s;,])rule=spam([\s;,]|$)",
                    r"(^|[\s;,])rule=notspam([\s;,]|$)",
                ),
            ),
            marks_ham=True,
        ),
        SpamFilter(
            "gmail",
            (_field("X-Gm-Spam", r"^1$", r"^0$"), _field("X-Gm-Phishy", r"^1$")),
            marks_ham=True,
        ),
    )
}


def mailscanner(organisation: str) -> SpamFilter:
    """Return the filter MailScanner, whose header field carries the site's own name."""
    name = f"X-{organisation}-MailScanner-SpamCheck"
    return SpamFilter("mailscanner", (_field(name, r"^spam\b", r"^not spam\b"),), marks_ham=True)


def by_value(name: str, pattern: str) -> SpamFilter:
    """Return a filter of one's own: spam where the field's value matches ``*`` and ``?``."""
    compiled = re.compile(translate(_collapsed(pattern)), re.IGNORECASE)
    test = FieldTest(name.lower(), lambda value: compiled.match(value) is not None, _silent)
    return SpamFilter(name, (test,), marks_ham=False)


def _collapsed(pattern: str) -> str:
    # Only "*" and "?" are special to a person; brackets are meant as they stand.
    return re.sub(r"\*+", "*", pattern).replace("[", "[[]")


def by_score(name: str, at_least: float) -> SpamFilter:
    """Return a filter of one's own: spam where the first number in the field reaches a score."""

    def reaches(value: str) -> bool:
        number = _NUMBER.search(value)
        return number is not None and float(number[0]) >= at_least

    return SpamFilter(name, (FieldTest(name.lower(), reaches, _silent),), marks_ham=False)
