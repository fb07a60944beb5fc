"""The annotated example as a reference: its sections, and each key with what is said above it.

In the example ``# prose`` is a comment and ``#key: value`` an option that is not in use. Only for
the build of the manual pages.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

from crm_milter.config import document
from crm_milter.config.document import Mapping, Node, Sequence
from crm_milter.config.problems import Problems

_OUT_OF_USE = re.compile(r"(?m)^( *)#(?=[^ #\n])")
_PROSE = re.compile(r" *#(?: (?P<text>.*))?$")
_TITLE = re.compile(r"# -+ (?P<title>[^-]+) -+$")
# "Examples: one", with the next ones below each other, as a list of the same indentation.
_LISTED = re.compile(r"(?P<word>Examples|Presets): +(?P<first>.*)")


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """One key: its path, such as ``rules[].match``, and the prose above it."""

    path: str
    prose: list[str]


@dataclass(frozen=True, slots=True)
class DocSection:
    """A part of the file under one title."""

    title: str
    entries: list[KeyEntry]


def introduction(example: str) -> list[str]:
    """Return the prose at the head of the file."""
    head, _, _ = example.partition("\n\n")
    return _prose(head.splitlines())


def sections(example: str) -> list[DocSection]:
    """Return what the file says of its keys, in its order; each key once."""
    lines = example.splitlines()
    titles = {number: m["title"] for number, line in enumerate(lines) if (m := _TITLE.match(line))}
    found = [(number, DocSection(title, [])) for number, title in titles.items()]
    for path, line in _keys(example):
        above = _above(lines, line - 1)
        owner = next(section for number, section in reversed(found) if number < line)
        if above:
            owner.entries.append(KeyEntry(path, above))
    return [section for _, section in found if section.entries]


def in_use(example: str) -> list[str]:
    """Return the file without its comments: the shortest that does the same."""
    lines = [line for line in example.splitlines() if line.strip() and "#" not in line]
    # A section of which nothing is in use would be a key without a value.
    return [
        line
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
        if not line.endswith(":") or _indent(following) > _indent(line)
    ]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _keys(example: str) -> list[tuple[str, int]]:
    text = _OUT_OF_USE.sub(r"\1", example)
    root = document.read(BytesIO(text.encode()), Problems("example"), {})
    first: dict[str, int] = {}
    for path, line in _named(root):
        first.setdefault(path, line)
    return sorted(first.items(), key=lambda item: item[1])


def _named(node: Node | None, prefix: str = "") -> Iterator[tuple[str, int]]:
    if isinstance(node, Sequence):
        for item in node.items:
            yield from _named(item, f"{prefix}[]")
    elif isinstance(node, Mapping):
        for name, value in node.entries.items():
            path = f"{prefix}.{name}" if prefix else name
            yield path, value.line
            yield from _named(value, path)


def _above(lines: list[str], key: int) -> list[str]:
    """Return the prose right above a line."""
    start = key
    while start and _PROSE.match(lines[start - 1]) and not _TITLE.match(lines[start - 1]):
        start -= 1
    return _prose(lines[start:key])


def _prose(lines: list[str]) -> list[str]:
    """Return comments without their signs, what is listed behind a word as lines below it."""
    prose: list[str] = []
    for line in lines:
        match = _PROSE.match(line)
        words = (match["text"] or "") if match else ""
        listed = _LISTED.match(words)
        if listed:
            prose += [f"{listed['word']}:", f"  {listed['first']}"]
        elif len(words) - len(words.lstrip()) > 2 and prose and prose[-1].startswith("  "):
            prose.append(f"  {words.strip()}" if not prose[-1].startswith("    ") else words)
        else:
            prose.append(words)
    return prose
