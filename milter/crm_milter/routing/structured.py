"""The words of a structured header field, in time linear in its length, whatever is in it.

Comments go, however they are nested (RFC 5322 section 3.2.2); one that never ends takes the rest.
What was in quotes keeps the first of them, so that it is never mistaken for a separator.
"""

import re
from collections.abc import Iterator

SEPARATORS = frozenset(";=")

# Each branch takes whatever follows, so that no character is looked at twice.
_WORD = re.compile(
    r'"(?:[^"\\]++|\\(?:.|\Z))*+(?:"|\Z)|[;=()]|[ \t\r\n]++|[^ \t\r\n;=()"]++', re.DOTALL
)
_COMMENT = re.compile(r"[()]|\\(?:.|\Z)|[^()\\]++", re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_BLANKS = " \t\r\n"  # not what Unicode calls blank


def words(value: str) -> Iterator[str]:
    """Yield words, separators, and strings that begin with a quote, without comments."""
    position = depth = 0
    while position < len(value):
        found = (_COMMENT if depth else _WORD).match(value, position)
        if found is None:  # cannot be: each takes any character
            return
        position = found.end()
        word = found[0]
        if word == "(":
            depth += 1
        elif word == ")":
            depth = max(depth - 1, 0)
        elif not depth and word[0] not in _BLANKS:
            yield _ESCAPE.sub(r"\1", word.removesuffix('"') or '"') if word[0] == '"' else word


def keyword(value: str) -> str:
    """Return the first word in lower case, "" if there is none before the parameters."""
    word = next(words(value), "")
    return "" if word in SEPARATORS else word.removeprefix('"').lower()
