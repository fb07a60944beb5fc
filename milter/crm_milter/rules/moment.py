"""Moments in time as a person writes them: a date, a time of day and where the clock hangs."""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import NamedTuple
from zoneinfo import ZoneInfo

_EXAMPLE = '"2026-12-24 18:00 +01:00" or "2026-12-24 18:00 Europe/Berlin"'
_MOMENT = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d)(?:[Tt ](?P<time>\d\d:\d\d(?::\d\d)?)(?:\.\d+)?)?"
    r"(?: ?(?P<zone>\S.*))?",
    re.ASCII,
)
_OFFSET = re.compile(r"([+-])(\d\d):?(\d\d)?", re.ASCII)
_MAX_HOURS = 15  # ahead of UTC or behind it


class Moment(NamedTuple):
    """A point in time: as it was written, and in seconds since 1970 (UTC)."""

    text: str
    seconds: float


def moment(text: str) -> Moment:
    """Return the moment that a person wrote; raises ValueError."""
    found = _MOMENT.fullmatch(text.strip())
    if not found:
        raise ValueError(
            f'expected a date and time with a time zone, such as {_EXAMPLE}, not "{text}"'
        )
    if not found["zone"]:
        raise ValueError(
            f'"{text}" has no time zone, so it means another moment on every host; write, for'
            f" example, {_EXAMPLE}"
        )
    if not found["time"]:
        raise ValueError(f'"{text}" has no time of day; write, for example, {_EXAMPLE}')
    try:
        local = datetime.fromisoformat(f"{found['date']}T{found['time']}")
    except ValueError as error:
        raise ValueError(f'"{text}" does not exist: {error}') from None
    return Moment(text, _seconds(local, _zone(found["zone"]), text))


def _zone(text: str) -> tzinfo:
    if text.upper() in ("Z", "UTC", "GMT"):
        return UTC
    offset = _OFFSET.fullmatch(text)
    if offset:
        ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3] or 0))
        if ahead <= timedelta(hours=_MAX_HOURS) and int(offset[3] or 0) < 60:
            return timezone(ahead if offset[1] == "+" else -ahead)
    elif "/" in text:  # not "CET" or "EST", which have no summer time or several meanings
        try:
            return ZoneInfo(text)
        except (KeyError, OSError, ValueError):
            pass
    raise ValueError(
        f'unknown time zone "{text}"; write the difference from UTC or a name such as'
        ' "Europe/Berlin"'
    )


def _seconds(local: datetime, zone: tzinfo, text: str) -> float:
    """Return a local time in seconds; raises ValueError for one that the clock skips or repeats."""
    early, late = (local.replace(tzinfo=zone, fold=fold).timestamp() for fold in (0, 1))
    if early == late:
        return early
    what = "is twice on the clock there" if early < late else "is skipped by the clock there"
    raise ValueError(
        f'"{text}" {what} (summer time); write the difference from UTC, such as "+01:00"'
    )
