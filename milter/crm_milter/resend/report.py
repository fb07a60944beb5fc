"""A delivery report taken apart (RFC 3464): its fields, and the message in it to the byte."""

import base64
import binascii
import quopri
import re
from collections.abc import Iterator
from email.message import Message
from email.parser import BytesHeaderParser
from typing import NamedTuple

from crm_milter.routing.structured import keyword

_STATUS = ("message/delivery-status", "message/global-delivery-status")
_WHOLE = ("message/rfc822", "message/global")
_HEADER = ("text/rfc822-headers", "message/global-headers")
_ENCODINGS = ("", "7bit", "8bit", "binary", "quoted-printable")  # and base64
_BLANK_LINE = re.compile(rb"\r?\n[ \t]*\r?\n")
_EMPTY_LINE = re.compile(rb"(?:\A|\n)\r?\n")
_COMMENT = re.compile(r"\([^()]*\)")
# What introduces a message in a bounce: of MIME, of qmail (QSBMF), of exim and of smail.
_RETURNED = re.compile(
    rb"^(?:Content-Type:\s*(?:message/(?:rfc822|global|delivery-status)|multipart/report)\b"
    rb"|-+ Below this line is a copy of the message"
    rb"|-+ This is a copy of (?:the|your) message"
    rb"|[ \t|]*-+ (?:Original|Unsent|Returned) message (?:follows|text follows|below))",
    re.IGNORECASE | re.MULTILINE,
)
# Whatever the words in front of it, in any language: the header of a message in a body.
_TRACE = re.compile(
    rb"^[ \t>|]*(?:Received|Return-Path|Message-ID|DKIM-Signature):[ \t]*\S",
    re.IGNORECASE | re.MULTILINE,
)
_SYSTEM = re.compile(r"(?i)\b(?:mailer-daemon|postmaster)\b")
_ESCAPED = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")

Fields = dict[str, str]  # by name, in lower case


class NotOursError(Exception):
    """The message cannot be handed in again; the text says why."""


class Report(NamedTuple):
    """What a report says of the whole message and of each recipient, and the message itself."""

    about: Fields
    recipients: tuple[Fields, ...]
    message: bytes  # as it was returned

    def said(self, name: str) -> tuple[str, ...]:
        """Return the addresses in a field of those recipients that it failed for."""
        failed = [each for each in self.recipients if _action(each) == "failed"]
        return tuple(dict.fromkeys(address(each[name]) for each in failed if name in each))


def header(octets: bytes) -> "Message[str, str]":
    """Return the header fields of a message or a part."""
    return BytesHeaderParser().parsebytes(octets)


def values(head: "Message[str, str]", name: str) -> list[str]:
    """Return the values of all fields of a name."""
    return [_text(value) for each, value in head.raw_items() if each.lower() == name.lower()]


def _text(value: object) -> str:
    """Return the value of a field as it came; octets beyond ASCII are UTF-8."""
    return str(value).encode("ascii", "surrogateescape").decode("utf-8", "replace").strip()


def address(field: str) -> str:
    """Return the address in "rfc822; address", and what RFC 6533 has embedded in it."""
    kind, semicolon, rest = field.partition(";")
    plain = rest if semicolon else kind  # some servers leave the type out
    plain = re.sub(r"(?<=\S)\s+\(.*\)\s*\Z", "", plain)  # a comment
    return unescaped(plain.strip().removeprefix("<").removesuffix(">"))


def _action(fields: Fields) -> str:
    """Return what was done for a recipient, without comments (RFC 3464 section 2.1.1)."""
    action = fields.get("action", "?")
    while action != (less := _COMMENT.sub(" ", action)):
        action = less
    return action.strip().lower()


def unescaped(plain: str) -> str:
    r"""Return text with the characters that ``\x{...}`` stands for (RFC 6533 section 3)."""

    def character(found: re.Match[str]) -> str:
        code = int(found[1], 16)
        is_surrogate = 0xD800 <= code <= 0xDFFF  # half a character
        return chr(code) if 0x80 <= code <= 0x10FFFF and not is_surrogate else found[0]

    return _ESCAPED.sub(character, plain)


def is_report(head: "Message[str, str]") -> bool:
    """Tell whether a message is a report on deliveries."""
    kind = str(head.get_param("report-type") or "").lower()
    is_that = not kind or kind.endswith("delivery-status")  # some servers leave it out
    return head.get_content_type() == "multipart/report" and is_that


def is_bounce(message: bytes, has_null_sender: bool) -> bool:
    """Tell whether a message seems to return another one, in whatever form."""
    head = header(message)
    if "X-Failed-Recipients" in head:
        return True
    end = _EMPTY_LINE.search(message)
    if not (_RETURNED.search(message) or (end and _TRACE.search(message, end.end()))):
        return False
    author = " ".join(values(head, "From"))
    return bool(has_null_sender or _SYSTEM.search(author))


def take_apart(octets: bytes, head: "Message[str, str]") -> Report:
    """Return what a report says; raises NotOursError if it holds no message that was rejected."""
    status: tuple[Fields, ...] = ()
    message = cut = None
    for part in _parts(octets, head.get_boundary() or ""):
        fields = header(part)
        kind = fields.get_content_type()
        if kind in _STATUS and not status:
            status = tuple(_blocks(_content(part, fields)))
        elif kind in _WHOLE and message is None:
            message = _content(part, fields)
        elif kind in _HEADER:
            cut = True
    about = status[0] if status else {}
    # Some servers leave out the block on the whole message, or the empty line after it.
    recipients = status if "action" in about else status[1:]
    report = Report(about, recipients, message or b"")
    actions = sorted({_action(each) for each in report.recipients})
    if "failed" not in actions:
        raise NotOursError(f"it reports {', '.join(actions) or 'nothing'}, and no failure")
    if not message or message.isspace():
        why = "it holds only the header of the message: raise bounce_size_limit in main.cf"
        raise NotOursError(why if cut else "it does not hold the message")
    return report


def _parts(octets: bytes, boundary: str) -> Iterator[bytes]:
    """Yield the parts of a multipart message; the line end before a delimiter belongs to it.

    Raises NotOursError at the end of one that is cut off.
    """
    mark = re.escape(boundary.encode("utf-8", "surrogateescape"))
    delimiter = re.compile(rb"(?:\A|(?<=\n))--" + mark + rb"(--)?[ \t]*(?:\r?\n|\Z)")
    start = None
    for found in delimiter.finditer(octets) if boundary else ():
        if start is not None:
            part = octets[start : found.start()]
            yield part.removesuffix(b"\n").removesuffix(b"\r")
        start = found.end()
        if found[1]:
            return
    if start is not None:
        raise NotOursError("its end is missing, and with it perhaps some of the message")


def _content(part: bytes, fields: "Message[str, str]") -> bytes:
    end = _EMPTY_LINE.search(part)
    content = part[end.end() :] if end else b""
    encoding = keyword(str(fields.get("Content-Transfer-Encoding", "")))
    if encoding == "base64":
        try:
            return base64.b64decode(b"".join(content.split()), validate=True)
        except binascii.Error:
            raise NotOursError("it is damaged: the content is not valid base64") from None
    if encoding not in _ENCODINGS:
        raise NotOursError(f'its content is encoded as "{encoding}", which is not read')
    return quopri.decodestring(content) if encoding == "quoted-printable" else content


def _blocks(octets: bytes) -> Iterator[Fields]:
    for block in _BLANK_LINE.split(octets.strip()):
        fields: Fields = {}
        for name, value in header(block + b"\n\n").raw_items():
            fields.setdefault(name.lower(), " ".join(_text(value).split()))
        yield fields
