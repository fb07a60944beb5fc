"""What DMARC said of a message: Authentication-Results (RFC 8601) to pass, fail or none.

Only fields of the authserv-ids that the configuration names count, every instance of them; one
"fail" outweighs any "pass", as a spam filter's verdict does. So a forged "pass" wins nothing, and a
forged "fail" hurts its forger. A field of a version other than 1 says nothing, nor does one that
cannot be understood. All takes time linear in the length of a field. Of very many fields the first
and the last are read: a filter adds its own in front of all others or behind them.

Filters write the envelope sender and the name of the client as they came (rspamd: smtp.mailfrom,
smtp.helo), also one with a parenthesis or a quote that nothing closes. That must not hide the
"fail" behind it: then it is looked for as if there were no comments and no quotes.

OpenDMARC can append the queue ID to its authserv-id (AuthservIDWithJobID): "id/4bXq1Z".
"""

from collections.abc import Iterator
from enum import Enum

from crm_milter.routing.structured import is_closed, words

FIELD = "authentication-results"
_QUOTE = '"'
_LONGEST = 20  # characters of a method that matter
_PLAIN = str.maketrans('()"', "   ")


class Dmarc(Enum):
    """What the field says: three states."""

    PASS = "pass"  # noqa: S105 - a result
    FAIL = "fail"
    NONE = "none"  # no such field, or one that says neither


def dmarc(value: str, authserv_ids: frozenset[str]) -> Dmarc:
    """Return what one field says; the ids are in lower case."""
    rest = words(value)
    if not _is_ours(rest, authserv_ids):
        return Dmarc.NONE
    results = {*_results(rest)}
    if "fail" not in results and not is_closed(value):
        results |= {*_results(words(value.translate(_PLAIN)))} & {"fail"}
    if "fail" in results:
        return Dmarc.FAIL
    return Dmarc.PASS if "pass" in results else Dmarc.NONE


def _is_ours(rest: Iterator[str], authserv_ids: frozenset[str]) -> bool:
    """Tell whether a field is of one of these and in version 1; take it up to its results."""
    name = next(rest, "").removeprefix(_QUOTE).partition("/")[0].lower()
    if name not in authserv_ids:
        return False
    version = next(rest, "")
    return version == ";" or (version == "1" and next(rest, "") == ";")


def _results(rest: Iterator[str]) -> Iterator[str]:
    """Yield the results of the method dmarc: what follows the first "=" of each part."""
    method, values = "", 0
    for word in rest:
        if word == ";":
            method, values = "", 0
        elif word == "=":
            values += 1
        elif not values:
            method = f"{method}{word}"[:_LONGEST]
        elif values == 1:
            values = 2
            if method.partition("/")[0].lower() == "dmarc":
                yield word.removeprefix(_QUOTE).lower()
