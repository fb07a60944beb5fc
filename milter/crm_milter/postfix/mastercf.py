"""The text of master.cf: one option of one service is changed, every other byte stays.

An entry begins with a line that starts with neither white space nor "#", and goes on with the
lines that start with white space; comments and empty lines may stand between them (master(5)).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_BLANK = " \t\r\n"


@dataclass(frozen=True, slots=True)
class _Word:
    """A word of an entry and where it stands in the text."""

    start: int
    end: int
    text: str


def with_option(text: str, label: str, name: str, value: str | None) -> str | None:
    """Return the text with ``-o name=value`` in a service, or without the option if None.

    ``value`` has no white space. None is returned if the service is not there.
    """
    lines = _entry(text, label)
    if not lines:
        return None
    options = list(_options(_words(text, lines), name))
    if not options:
        return text if value is None else _appended(text, lines[-1], f"{name}={value}")
    for start, end, inner in reversed(options):
        text = _without(text, start, end) if value is None else _with(text, inner, value)
    return text


def _entry(text: str, label: str) -> list[tuple[int, int]]:
    """Return where the lines of a service begin and end, without comments and empty lines."""
    found: list[tuple[int, int]] = []
    at = 0
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        start, at = at, at + len(line)
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0] in _BLANK:
            if found:
                found.append((start, at))
        elif found:
            break
        elif "/".join(line.split()[:2]) == label:
            found.append((start, at))
    return found


def _words(text: str, lines: list[tuple[int, int]]) -> list[_Word]:
    words: list[_Word] = []
    for start, end in lines:
        at = start
        while at < end:
            if text[at] in _BLANK:
                at += 1
                continue
            stop = _word_end(text, at, end)
            words.append(_Word(at, stop, text[at:stop]))
            at = stop
    return words


def _word_end(text: str, at: int, end: int) -> int:
    depth = 0
    while at < end and (depth or text[at] not in _BLANK):
        depth += (text[at] == "{") - (text[at] == "}")
        at += 1
    return len(text[:at].rstrip(_BLANK)) if depth else at


def _options(words: list[_Word], name: str) -> Iterator[tuple[int, int, _Word]]:
    """Yield where each ``-o name=...`` begins and ends, and its value."""
    pattern = re.compile(rf"(?:\{{\s*)?{re.escape(name)}\s*=\s*")
    for at, word in enumerate(words):
        if not word.text.startswith("-o"):
            continue
        option = word
        if word.text == "-o":
            if at + 1 == len(words):
                return
            option = words[at + 1]
        elif not word.text.startswith("-o{"):
            option = _Word(word.start + 2, word.end, word.text[2:])
        match = pattern.match(option.text)
        if match:
            end = option.end
            if option.text.startswith("{"):
                end = option.start + len(option.text.removesuffix("}").rstrip())
            start = min(option.start + match.end(), end)
            yield word.start, option.end, _Word(start, end, "")


def _with(text: str, inner: _Word, value: str) -> str:
    return text[: inner.start] + value + text[inner.end :]


def _without(text: str, start: int, end: int) -> str:
    """Return the text without an option, and without its line if nothing else is there."""
    begin = text.rfind("\n", 0, start) + 1
    stop = text.find("\n", end) + 1 or len(text)
    if not text[begin:start].strip() and not text[end:stop].strip():
        return text[:begin] + text[stop:]
    return text[:start].rstrip(" \t") + text[end:]


def _appended(text: str, last: tuple[int, int], option: str) -> str:
    line = text[last[0] : last[1]]
    ending = "\r\n" if line.endswith("\r\n") else "\n"
    indent = re.match(r"[ \t]+", line)
    body = line.rstrip("\r\n")
    added = f"{indent[0] if indent else '  '}-o {option}"
    # A last line without its end gets one; the new line then lacks it, as before.
    tail = ending if line.endswith("\n") else ""
    return text[: last[0]] + body + ending + added + tail + text[last[1] :]
