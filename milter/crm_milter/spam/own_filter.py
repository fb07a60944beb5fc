"""Spam filters that have no preset: one header field, read by value or by score."""

import re
from collections.abc import Callable
from fnmatch import translate

from crm_milter.spam.verdict import FieldTest, SpamFilter, Stands, Verdict

_FLAGS = re.IGNORECASE | re.ASCII
# A number stands for itself: neither the 2 of "rule2" nor any part of "3.4.6" is one. The comma is
# that of "1,234.5" or, as filters print by the locale, a decimal point. No two ways to read the
# same digits: time stays linear.
_NUMBER = (
    r"[-+]?+(?:\d{1,3}(?:,\d{3})++\.\d*+|\d++(?:[.,]\d*+)?+|[.,]\d++)(?:e[-+]?+\d++)?+(?!\.?\d)"
)
_NAMED_SCORE = re.compile(rf"(?<![\w.-])(?:score|hits)\s*+[=:]\s*+({_NUMBER})", _FLAGS)
_FIRST_NUMBER = re.compile(rf"(?<![\w.])({_NUMBER})", _FLAGS)
# X-Spamd-Bar of rspamd (+, -, /), X-Spam-Level of SpamAssassin (*), SpamScore of MailScanner (s).
_BAR = re.compile(r"\++|\*+|s+|-+|/")


def by_value(name: str, pattern: str) -> SpamFilter:
    """Return a filter: spam if the field's value matches ``*`` and ``?``."""
    plain = pattern.strip()  # as values are
    # Brackets are special to fnmatch, not to a person.
    matches = re.compile(translate(plain.replace("[", "[[]")), re.IGNORECASE).match
    return _filter(name, lambda value: matches(value) is not None, plain)


def _filter(name: str, is_spam: Callable[[str], bool], sample: str) -> SpamFilter:
    def says(value: str) -> Verdict:
        return Verdict.SPAM if is_spam(value) else Verdict.NONE

    test = FieldTest(name.lower(), says, sample)
    return SpamFilter(name, (test,), marks_ham=False, stands=Stands.MILTER | Stands.REINJECTION)


def by_score(name: str, at_least: float) -> SpamFilter:
    """Return a filter: spam if the score in the field reaches a limit."""

    def reaches(value: str) -> bool:
        score = _score(value)
        return score is not None and score >= at_least

    return _filter(name, reaches, str(at_least))


def _score(value: str) -> float | None:
    """Return what ``score=`` or ``hits=`` says, else the first number, else a bar's length."""
    if _BAR.fullmatch(value):
        return {"-": -1.0, "/": 0.0}.get(value[0], 1.0) * len(value)
    found = _NAMED_SCORE.search(value) or _FIRST_NUMBER.search(value)
    if found is None:
        return None
    number = found[1]
    return float(number.replace(",", "" if "." in number else "."))
