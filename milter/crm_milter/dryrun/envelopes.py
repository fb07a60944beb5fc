"""The envelope of old mail, from what its delivery wrote into the header."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import mktime_tz, parsedate_tz
from typing import NamedTuple

from crm_milter.address import strip_path
from crm_milter.dryrun.mailboxes import OldMail
from crm_milter.routing.authors import addressees

# Postfix writes the first and the second, exim and qmail the others.
RECORDED = ("x-original-to", "delivered-to", "envelope-to", "x-envelope-to")
_WANTED = (
    *RECORDED,
    "return-path",
    "to",
    "cc",
    "from",
    "received",
    "date",
    "message-id",
    "authentication-results",
)
_FIELD = re.compile(
    rb"(?im)^(" + "|".join(_WANTED).encode() + rb")[ \t]*:([^\n]*(?:\n[ \t][^\n]*)*)"
)
_MAX_RECIPIENTS = 100
_EARLIEST, _LATEST = 10**8, 10**11  # 1973 and 5138: no time of a message is outside


class Envelope(NamedTuple):
    """Who sent a message to whom, and when; ``guessed``: the recipients are those of To and Cc."""

    sender: str
    recipients: tuple[str, ...]
    guessed: bool
    time: float | None
    message_id: str
    results: str  # Authentication-Results, the field of the last server


def envelope(mail: OldMail, is_taken: Callable[[str], bool]) -> Envelope:
    """Return the envelope of a message; ``is_taken`` tells whether a rule takes an address.

    The recipient is what the delivery recorded. If no rule takes that, as in a mailbox that
    collects the mail of several addresses, those in To and Cc that one takes are it.
    """
    fields = _fields(mail.header)
    recorded = [
        address
        for name in RECORDED
        for value in fields.get(name, ())
        if "@" in (address := strip_path(value.strip()))
    ]
    taken = [each for each in recorded if is_taken(each)]
    if not taken:
        named = (each for name in ("to", "cc") for value in fields.get(name, ())[:10]
                 for each in addressees(value))  # fmt: skip
        guessed = [each for each, _ in zip(named, range(_MAX_RECIPIENTS), strict=False)]
        guessed = [each for each in dict.fromkeys(guessed) if is_taken(each)]
        return _made(mail, fields, guessed or recorded[:1], guessed=bool(guessed))
    return _made(mail, fields, taken[:1], guessed=False)


def _made(
    mail: OldMail, fields: dict[str, list[str]], recipients: list[str], *, guessed: bool
) -> Envelope:
    paths = fields.get("return-path")
    sender = strip_path(paths[0].strip()) if paths else _author(fields)
    message_id, results = (
        "".join(fields.get(name, ())[:1]).strip()
        for name in ("message-id", "authentication-results")
    )
    return Envelope(sender, tuple(recipients), guessed, _time(mail, fields), message_id, results)


def _fields(header: bytes) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for name, value in _FIELD.findall(header):
        fields.setdefault(name.decode().lower(), []).append(
            value.decode("utf-8", "surrogateescape")
        )
    return fields


def _author(fields: dict[str, list[str]]) -> str:
    return next((each for value in fields.get("from", ()) for each in addressees(value)), "")


def _time(mail: OldMail, fields: dict[str, list[str]]) -> float | None:
    """Return when a message arrived, by the last server, the mailbox, or else its author."""
    received = [value.rpartition(";")[2] for value in fields.get("received", ())[:1]]
    for text in (*received, mail.stamp, *fields.get("date", ())[:1]):
        seconds = float(text) if text.isdecimal() else _seconds(text)
        if seconds is not None and _EARLIEST <= seconds < _LATEST:
            return seconds
    return None


def _seconds(text: str) -> float | None:
    try:
        parsed = parsedate_tz(text[:200])
        return mktime_tz(parsed) if parsed else None
    except (ValueError, OverflowError, TypeError, IndexError):
        return None


def day(seconds: float) -> str:
    """Return the date of a time, in UTC."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
