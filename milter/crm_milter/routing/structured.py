"""The words of a structured header field, in time linear in its length, whatever is in it.

Comments go, however they are nested (RFC 5322 section 3.2.2); one that never ends takes the rest.
What was in quotes keeps the first of them, so that it is never mistaken for a separator.
"""

import re
from collections import deque
from collections.abc import Iterator

SEPARATORS = frozenset(";=")

# Each branch takes whatever follows, so that no character is looked at twice.
_OTHERS = r'"(?:[^"\\]++|\\(?:.|\Z))*+(?:"|\Z)|[;=()]|[ \t\r\n]++|'
_WORD = re.compile(_OTHERS + r'[^ \t\r\n;=()"]++', re.DOTALL)
# A word that goes on behind a parenthesis or a quote in it.
_LONG_WORD = re.compile(_OTHERS + r"[^ \t\r\n;=]++", re.DOTALL)
_COMMENT = re.compile(r"[()]|\\(?:.|\Z)|[^()\\]++", re.DOTALL)
_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_NO_WORDS = " \t\r\n()"  # not all that Unicode calls blank


def _parts(value: str, word: re.Pattern[str] = _WORD) -> Iterator[tuple[int, str]]:
    """Yield all parts of a value, each with how deep in comments what follows it is."""
    position = depth = 0
    while position < len(value):
        found = (_COMMENT if depth else word).match(value, position)
        if found is None:  # cannot be: each takes any character
            return
        position = found.end()
        part = found[0]
        if part == "(":
            depth += 1
        elif part == ")":
            depth = max(depth - 1, 0)
        yield depth, part


def words(value: str, *, within_words: bool = True) -> Iterator[str]:
    """Yield words, separators, and strings that begin with a quote, without comments.

    Comments and strings begin ``within_words`` as well, as they may by the grammar.
    """
    for depth, word in _parts(value, _WORD if within_words else _LONG_WORD):
        if not depth and word[0] not in _NO_WORDS:
            yield _ESCAPE.sub(r"\1", word.removesuffix('"') or '"') if word[0] == '"' else word


def is_closed(value: str) -> bool:
    """Tell whether all comments and quotes of a value have an end."""
    depth, word = deque(_parts(value), maxlen=1).pop() if value else (0, "")
    return not depth and (not word.startswith('"') or bool(_QUOTED.fullmatch(word)))


def keyword(value: str) -> str:
    """Return the first word in lower case, "" if there is none before the parameters."""
    word = next(words(value), "")
    return "" if word in SEPARATORS else word.removeprefix('"').lower()
