"""Time stamps as the writers of logs write them, read into aware times.

A stamp without a zone is local, one without a year is the last such day that is not after the
newest line of its file (RFC 3164 section 4.1.2 has neither).
"""

import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

_HOURS = (
    r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?"
    r"(?: ?(?P<offset>[+-]\d\d(?::?\d\d)?)(?![\w:.-])| ?(?P<zone>Z|[A-Z]{3,5})(?![\w./:-]))?"
)
_LETTERS = r"[^\W\d_]{3,10}"
_DATES = (
    r"(?P<year>\d{4})(?P<between>[-/.])(?P<month>\d\d)(?P=between)(?P<day>\d\d)[T _:]",
    r"(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)[T ]",
    r"(?P<one>\d{1,2})(?P<slash>[-/.])(?P<two>\d{1,2})(?P=slash)(?P<year>\d{4})[T:,]? ?",
    rf"(?P<month>{_LETTERS})\.?\s+(?P<day>\d{{1,2}}),?\s+(?:(?P<year>\d{{4}}),?\s+)?",
    rf"(?P<day>\d{{1,2}})\.?[ /-](?P<month>{_LETTERS})\.?(?:[ /-](?P<year>\d{{4}}))?[:,]?\s*",
    r"(?:(?P<year>\d{4})年)?\s*(?P<month>\d{1,2})[月월]\s*(?P<day>\d{1,2})[日일]?\s+",
)
# ctime(3) and date(1) write the year behind the time.
_LATE_YEAR = r"(?:\s+(?P<late>(?:19|20)\d\d)(?=\s))?"
_CALENDAR = tuple(re.compile(rf"(?<![\w/.-]){each}{_HOURS}{_LATE_YEAR}") for each in _DATES)
_BASIC = re.compile(  # ISO 8601 without its hyphens and colons
    r"(?<![\w/.-])(?P<year>\d{4})(?P<month>\d\d)(?P<day>\d\d)T"
    r"(?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9}))?"
    r"(?:(?P<offset>[+-]\d\d(?::?\d\d)?)|(?P<zone>Z))?(?!\w)"
)
_UNIX = re.compile(
    r"(?<![\w.-])(?P<unix>\d{10})(?:\.(?P<fraction>\d{1,9})|(?P<more>\d{3,9}))?(?!\w)"
)
_TAI = re.compile(r"(?<!\w)@(?P<tai>4[0-9a-f]{15})(?P<fraction>)[0-9a-f]{0,8}(?!\w)")
_ANY = re.compile(r"\d\d:\d\d:\d\d|\d{8}|@4")
_PATTERNS = (*_CALENDAR, _BASIC, _UNIX, _TAI)
_UTC = ("Z", "UTC", "GMT")
_JITTER = timedelta(seconds=2)  # by which lines of several processes may be out of order
_TAI_ZERO = (1 << 62) + 10  # https://cr.yp.to/libtai/tai64.html, as multilog writes it

# Abbreviated months of glibc's locales (journalctl -o short), full ones where they are written.
# In case of doubt the first counts: "lis" is November in Polish and Czech.
_LANGUAGES = (
    "jan feb mar apr may jun jul aug sep oct nov dec",
    "january february march april may june july august september october november december",
    "jän febr mär apr mai juni juli august sept okt nov dez",
    "januar februar märz april mai juni juli august september oktober november dezember",
    "janv févr mars avr mai juin juil août sept oct nov déc",
    "ene feb mar abr may jun jul ago sept oct nov dic",
    "gen feb mar apr mag giu lug ago set ott nov dic",
    "jan fev mar abr mai jun jul ago set out nov dez",
    "jan feb mrt apr mei jun jul aug sep okt nov dec",
    "gener febr març abril maig juny juliol agost set oct nov des",
    "sty lut mar kwi maj cze lip sie wrz paź lis gru",
    "led úno bře dub kvě čen čec srp zář říj lis pro",
    "jan feb mars april maj juni juli aug sept okt nov dec",
    "jan feb mar apr mai jun jul aug sep okt nov des",
    "tammi helmi maalis huhti touko kesä heinä elo syys loka marras joulu",
    "jan febr márc ápr máj jún júl aug szept okt nov dec",
    "oca şub mar nis may haz tem ağu eyl eki kas ara",
    "ian feb mar apr mai iun iul aug sept oct noi dec",
    "янв фев мар апр мая июн июл авг сен окт ноя дек",
    "янв февр марта апр май июня июля авг сент окт нояб дек",
    "січ лют бер кві тра чер лип сер вер жов лис гру",  # noqa: RUF001
)
_MONTHS: dict[str, int] = {}
for _words in _LANGUAGES:
    for _number, _word in enumerate(_words.split(), 1):
        _MONTHS.setdefault(_word, _number)


class Clock:
    """Reads the stamps of one source, in the order of its lines.

    ``newest`` is when the source was written to last.
    """

    def __init__(self, newest: datetime) -> None:
        self._limit = newest.astimezone() + timedelta(days=1)
        self._last: datetime | None = None
        self._usual: re.Pattern[str] | None = None

    def read(self, text: str) -> datetime | None:
        """Return the first time in a text; one with a zone goes before those without."""
        for stamp in self._stamps(text):
            with suppress(LookupError, ValueError, OverflowError, OSError):
                self._last = self._time(stamp.groupdict())
                self._usual = stamp.re
                return self._last
        return None

    def _stamps(self, text: str) -> list[re.Match[str]]:
        if self._usual and len(_ANY.findall(text)) == 1 and (stamp := self._usual.search(text)):
            return [stamp]  # nearly every line is like the one before
        found = [each for pattern in _PATTERNS for each in pattern.finditer(text)]
        return sorted(found, key=lambda each: (not _has_zone(each), each.start()))

    def _time(self, parts: dict[str, Any]) -> datetime:
        micro = (parts["fraction"] or "").ljust(6, "0")[:6]
        if "unix" in parts:
            whole, more = int(parts["unix"]), (parts["more"] or micro).ljust(6, "0")[:6]
            return datetime.fromtimestamp(whole, UTC).replace(microsecond=int(more)).astimezone()
        if "tai" in parts:
            return datetime.fromtimestamp(int(parts["tai"], 16) - _TAI_ZERO, UTC).astimezone()
        hours = (int(parts["hour"]), int(parts["minute"]), int(parts["second"]), int(micro))
        zone = _zone(parts)
        ahead = []
        for year, month, day in self._dates(parts):
            with suppress(ValueError):  # 29 February
                naive = datetime(year, month, day, *hours)
                local = None if zone else self._local(naive, parts["zone"])
                time = local or naive.replace(tzinfo=zone).astimezone()
                if time <= self._limit:
                    return time
                ahead.append(time)
        return ahead[0]

    def _dates(self, parts: dict[str, Any]) -> Iterator[tuple[int, int, int]]:
        """Yield the dates that a stamp may mean, the likeliest first."""
        text = parts["year"] or parts.get("late")
        year = int(text) if text else None
        if year and "one" in parts:  # 3/4/2026, which is one of two days
            one, two = int(parts["one"]), int(parts["two"])
            yield year, two, one
            yield year, one, two
            return
        years = [year] if year else range(self._limit.year, self._limit.year - 9, -1)
        month = parts["month"]
        number = int(month) if month.isdecimal() else _MONTHS[month.casefold()]
        for each in years:
            yield each, number, int(parts["day"])

    def _local(self, naive: datetime, zone: str | None) -> datetime:
        """Return a local time; in the hour that comes twice, as the line before allows."""
        first, second = naive.astimezone(), naive.replace(fold=1).astimezone()
        if second <= first:  # every other hour
            return first
        if zone in (first.tzname(), second.tzname()):
            return first if zone == first.tzname() else second
        back = self._last is not None and self._last - first > _JITTER
        return second if back else first


def _has_zone(stamp: re.Match[str]) -> bool:
    parts = stamp.groupdict()
    return "hour" not in parts or bool(parts["offset"]) or parts["zone"] in _UTC


def _zone(parts: dict[str, Any]) -> timezone | None:
    if parts["zone"] in _UTC:
        return UTC
    if not parts["offset"]:
        return None
    sign, digits = parts["offset"][0], parts["offset"][1:].replace(":", "").ljust(4, "0")
    ahead = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-ahead if sign == "-" else ahead)
