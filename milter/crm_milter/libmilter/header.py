"""A message's header as Postfix shows it to a milter: octets in, fields out, in linear time.

What smtpd(8) and cleanup(8) of Postfix do, and no more: blanks may stand before the colon (RFC
5322 section 4.5), the header ends at the first line that is not a field, and mbox's "From " lines
come first or not at all (in Postfix 3.10 one such line). ``header_checks`` are not known here.
"""

import re
from collections.abc import Iterator

from crm_milter.libmilter.esmtp import text

_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")
_LONGEST_NAME = 2048  # line_length_limit: the name and its colon are looked for in this much
_MAILBOX = re.compile(rb">*From ")
# header_size_limit where milters are used: a field is cut at a line's end if that costs less than
# a tenth of it, else in the middle of a line (cleanup_out.c).
_LIMIT = 60_000
_DROPPED = frozenset({"bcc", "content-length", "resent-bcc", "return-path"})  # message_drop_headers


def fields(message: bytes) -> Iterator[tuple[str, str]]:
    """Yield name, in lower case, and value, still folded, of each header field."""
    for lines in _folded(message):
        found = _NAME.match(lines[0])
        name = found[1].decode("ascii").lower() if found else ""
        if found and name not in _DROPPED:
            lines[0] = found[1] + b":" + lines[0][found.end() :]
            value = _cut(lines)[len(name) + 1 :].removeprefix(b" ")
            yield name, text(value.partition(b"\0")[0])


def _folded(message: bytes) -> Iterator[list[bytes]]:
    """Yield the lines of each field; none is empty."""
    field: list[bytes] = []
    may_be_mbox = True
    for line in _lines(message):
        if may_be_mbox and _MAILBOX.match(line):
            yield [b"X-Mailbox-Line: " + line]
            continue
        may_be_mbox = False
        if line[:1] in (b" ", b"\t") and field:
            field.append(line)
            continue
        if field:
            yield field
        if not _NAME.match(line, 0, _LONGEST_NAME):
            return
        field = [line]
    if field:
        yield field


def _lines(message: bytes) -> Iterator[bytes]:
    """Yield lines without their ends, CRLF or LF; a CR within a line is part of it."""
    start = 0
    while start < len(message):
        end = message.find(b"\n", start)
        end = len(message) if end < 0 else end
        yield message[start:end].rstrip(b"\r")
        start = end + 1


def _cut(lines: list[bytes]) -> bytes:
    kept: list[bytes] = []
    size = 0
    for line in lines:
        if size + len(line) > _LIMIT:
            if size <= _LIMIT * 9 // 10:
                kept.append(line[: _LIMIT - size])
            break
        kept.append(line)
        size += len(line) + 1
    return b"\n".join(kept)
