"""Text to mdoc(7), the language of manual pages: paragraphs, lists and literal blocks.

Only for the build of the manual pages; nothing of it is needed at run time.
"""

import re
import textwrap
from collections.abc import Iterable, Iterator
from datetime import date

_WIDTH = 78
_SENTENCE_END = re.compile(r"(?<=[.?!]) +(?=[\"A-Z(])")
_NUMBERS = str.maketrans({"\\": r"\e"})


def heading(title: str, section: int, day: date, version: str) -> Iterator[str]:
    """Yield how a page begins."""
    yield f".Dd {day:%B} {day.day}, {day.year}"
    yield f".Dt {title.upper()} {section}"
    yield f".Os crm\\-milter {version}"


def text(words: str) -> Iterator[str]:
    """Yield the lines of one paragraph, each sentence on a line of its own."""
    for sentence in _SENTENCE_END.split(" ".join(words.split())):
        for line in textwrap.wrap(sentence, _WIDTH, break_long_words=False, break_on_hyphens=False):
            yield _line(line)


def literal(lines: Iterable[str]) -> Iterator[str]:
    """Yield lines that are shown as they are."""
    yield ".Bd -literal -offset indent"
    yield from (_line(line) for line in textwrap.dedent("\n".join(lines)).splitlines())
    yield ".Ed"


def argument(words: str) -> str:
    """Return words as one argument of a macro, which is never taken for a macro itself."""
    return f'"\\&{escaped(words)}"'.replace('"\\&-', '"\\-') if words else '""'


def escaped(words: str) -> str:
    """Return words without what means something to roff; "--" stays what can be typed."""
    return words.translate(_NUMBERS).replace("--", r"\-\-").replace('"', r"\(dq")


def _line(words: str) -> str:
    line = words.translate(_NUMBERS).replace("--", r"\-\-")
    return f"\\&{line}" if line.startswith((".", "'")) else line


def prose(lines: list[str]) -> Iterator[str]:
    """Yield paragraphs that blank lines part; what is indented is shown as it is."""
    paragraph: list[str] = []
    first = True
    for line in [*lines, ""]:
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            for part in _parts(paragraph):
                is_literal = part[0].startswith("  ")
                if not first and not is_literal:
                    yield ".Pp"
                yield from literal(part) if is_literal else text(" ".join(part))
                first = False
            paragraph = []


def _parts(paragraph: list[str]) -> list[list[str]]:
    """Return a paragraph cut where its lines begin, or cease, to be indented or to be a default."""
    parts: list[list[str]] = []
    kinds: list[str] = []
    for line in paragraph:
        kind = "literal" if line.startswith("  ") else "text"
        if line.startswith(("Default: ", "Required.")):
            kind = "default"
        if kinds and kinds[-1] == kind:
            parts[-1].append(line)
        else:
            parts.append([line])
            kinds.append(kind)
    return parts
