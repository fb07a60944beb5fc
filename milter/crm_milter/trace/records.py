"""Log records that are not one plain line each, turned into lines.

Kubernetes splits long lines, journalctl -o export and verbose have a line for each field, and JSON
escapes what is looked for.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

_PART = re.compile(rb"\S+ (?P<stream>std(?:out|err)) (?P<flag>[PF]) (?P<text>.*)", re.DOTALL)
_VERBOSE = re.compile(rb"\S+ (?P<stamp>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\S* \S+) \[s=")
_LIST = re.compile(rb'" ?: ?\[')
_JSON_ESCAPES = ((b"\\u003c", b"<"), (b"\\u003e", b">"), (b"\\u0026", b"&"))


def whole(first: bytes, lines: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines of a source, each a whole record; its first line tells the writer."""
    if not first:
        return
    every = _chained(first, lines)
    if first.startswith(b"__CURSOR=") or _VERBOSE.match(first):
        yield from _records(every)
    elif first.startswith(b"{"):
        yield from map(_unescaped, every)
    elif _PART.match(first):
        yield from _joined(every)
    else:
        yield from every


def _chained(first: bytes, lines: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from lines


def _joined(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Yield lines of CRI logs, which mark all parts of a long one but its last with P."""
    begun: dict[bytes, bytes] = {}
    for line in lines:
        part = _PART.match(line)
        if part is None:
            yield line
            continue
        stream = part["stream"]
        joined = begun.pop(stream) + part["text"] if stream in begun else line
        if part["flag"] == b"P":
            begun[stream] = joined.rstrip(b"\n")
        else:
            yield joined
    yield from begun.values()


def _records(lines: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the entries of journalctl's formats export and verbose as its format json."""
    fields: dict[str, str] = {}
    for line in lines:
        head = _VERBOSE.match(line)
        if fields and (head or not line.strip()):
            yield json.dumps(fields, ensure_ascii=False).encode()
            fields = {}
        name, equals, value = line.decode("utf-8", "replace").strip().partition("=")
        if head:
            fields["time"] = head["stamp"].decode()
        elif equals:
            fields[name] = value
    if fields:
        yield json.dumps(fields, ensure_ascii=False).encode()


def _unescaped(line: bytes) -> bytes:
    """Return a line of JSON with its text as it was logged, so that words are found in it."""
    for escape, octet in _JSON_ESCAPES:
        line = line.replace(escape, octet)
    if b"\\u" in line or _LIST.search(line):
        with suppress(ValueError, RecursionError):
            return json.dumps(_with_text(json.loads(line)), ensure_ascii=False).encode()
    return line


def _with_text(value: Any) -> Any:
    """Return JSON with text for what the journal writes as a list of octets."""
    if isinstance(value, dict):
        return {name: _with_text(each) for name, each in value.items()}
    if isinstance(value, list) and all(isinstance(each, int) and 0 <= each < 256 for each in value):
        return bytes(value).decode("utf-8", "replace")
    return value
