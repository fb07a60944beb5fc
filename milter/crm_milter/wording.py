"""Text for a person: printable, one line, counted, and with what was meant."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches


def printable(text: str) -> str:
    """Return text that cannot break out of its line: what cannot be printed becomes ``?``."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else "?" for character in text)


def why(error: BaseException) -> str:
    """Return the reason of an error as the messages have it."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).lower()


_LONGEST = 400


def one_line(text: str) -> str:
    """Return a text for a message: on one line, without characters that trick a terminal."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST - 60]} ... {text[-50:]}"
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in text)


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean "..."?)`` for a misspelt word, "" where nothing is like it."""
    close = get_close_matches(word[:60].lower(), list(known), n=1, cutoff=0.7)
    return f' (did you mean "{close[0]}"?)' if close else ""


def abridged(items: list[str] | str) -> str:
    """Return the first of several and how many more there are, ``-`` for none."""
    if isinstance(items, str):
        return items
    return f"{items[0]} (+{len(items) - 1})" if len(items) > 1 else "".join(items) or "-"


def counted(number: int, noun: str, several: str = "") -> str:
    """Return ``1 rule`` or ``2 rules``, or with a plural of its own ``2 entries``."""
    return f"{number} {noun if number == 1 else several or f'{noun}s'}"


def and_more(items: Sequence[str], most: int) -> str:
    """Return the first of several, and how many more there are."""
    more = f" and {len(items) - most} more" if len(items) > most else ""
    return f"{', '.join(items[:most])}{more}"
