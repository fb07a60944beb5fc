"""What DMARC said of a message: Authentication-Results (RFC 8601) to pass, fail or none.

Only fields of the authserv-ids that the configuration names count, every instance of them; one
"fail" outweighs any "pass", as a spam filter's verdict does. So a forged "pass" wins nothing, and a
forged "fail" hurts its forger. A field of a version other than 1 says nothing, nor does one that
cannot be understood. All takes time linear in the length of a field. Of very many fields the first
and the last are read: a filter adds its own in front of all others or behind them.

Filters write the envelope sender and the name of the client as they came (rspamd: smtp.mailfrom,
smtp.helo), also one with a parenthesis or a quote in it. That must not hide the "fail" behind it:
it is looked for once more as if no comment and no quote began within a word, or in such a value,
and as if there were none at all if nothing closes one.

OpenDMARC can append the queue ID to its authserv-id (AuthservIDWithJobID): "id/4bXq1Z".
"""

import re
from collections.abc import Iterator
from enum import Enum

from crm_milter.address import ascii_domain
from crm_milter.routing.structured import is_closed, words

FIELD = "authentication-results"
_QUOTE = '"'
_LONGEST = 20  # characters of a method that matter
_PLAIN = str.maketrans('()"', "   ")
_PROPERTY = re.compile(r"\.[\w-]+=[^\s;]*", re.ASCII)  # such as smtp.mailfrom=...


class Dmarc(Enum):
    """What the field says: three states."""

    PASS = "pass"  # noqa: S105 - a result
    FAIL = "fail"
    NONE = "none"  # no such field, or one that says neither


def identity(authserv_id: str) -> str:
    """Return an authserv-id as it is compared: most are names of hosts (RFC 8601 section 2.5)."""
    return ascii_domain(authserv_id)


def dmarc(value: str, authserv_ids: frozenset[str]) -> Dmarc:
    """Return what one field says; the ids are as ``identity`` returns them."""
    rest = words(value)
    if not _is_ours(rest, authserv_ids):
        return Dmarc.NONE
    results = {*_results(rest)}
    if "fail" not in results and "fail" in value.lower():
        results |= {*_hidden(value)} & {"fail"}
    if "fail" in results:
        return Dmarc.FAIL
    return Dmarc.PASS if "pass" in results else Dmarc.NONE


def _hidden(value: str) -> Iterator[str]:
    """Yield the results that what a sender wrote may hide from a reader of comments and quotes."""
    if '"' not in value and "(" not in value:
        return
    if not is_closed(value):
        yield from _results(words(value.translate(_PLAIN)))
    plain = _PROPERTY.sub(lambda found: found[0].translate(_PLAIN), value)
    for each in (value, plain):
        yield from _results(words(each, within_words=False))


def _is_ours(rest: Iterator[str], authserv_ids: frozenset[str]) -> bool:
    """Tell whether a field is of one of these and in version 1; take it up to its results."""
    name = next(rest, "").removeprefix(_QUOTE).partition("/")[0]
    if identity(name) not in authserv_ids:
        return False
    version = next(rest, "")
    return version == ";" or (version.lstrip("0") == "1" and next(rest, "") == ";")


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
