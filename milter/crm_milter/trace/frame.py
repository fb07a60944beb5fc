"""The frame of a log line: what syslog, the journal or a container runtime put around it.

Every writer puts the time, the host and the program (the *tag*, RFC 3164 section 4.1.3) in front
of the message. So the frame ends where the tag does, whatever stands before it. Lines without
a tag, such as those of crm-milter on stderr, have their known prefixes taken off.
"""

import csv
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_REGION = 512  # characters in which the tag is looked for
_LONGEST_NUMBER = 20
_MAX_FRAMES = 4  # a container's output in the journal in a file of JSON, and one more

_COLOUR = re.compile(r"(?:\x1b|#033|\^\[)\[[0-9;]*[mK]")
_PREFIX = re.compile(
    r"[\w./-]+ *\|(?:\s|$)"  # docker compose
    r"|\d+: (?=[^\W\d_]{3,10}\.? +\d+ |\d{4}-\d\d-\d\dT)"  # a number, as Cisco puts it
)
_PRIORITY = r"<(?:\d{1,3}|[a-z0-9]+\.[a-z0-9]+)>"
_STANDARD = re.compile(  # RFC 5424 section 6, with the octet count of RFC 6587 or without
    rf"(?:\d+ )?(?:{_PRIORITY})?1 (?P<stamp>\S+) (?P<host>\S+) (?P<tag>\S+) (?P<pid>\S+) \S+ "
    r"(?:-|(?:\[(?:[^\]\\]|\\.)*\])+)(?: |$)(?P<text>.*)",
    re.DOTALL,
)
_TAG = re.compile(
    r"(?:^|(?<=[\s|\"'>\]]))\[?(?P<path>[^\s<>\"'=,()|]*/)?(?P<program>[A-Za-z][\w.@-]*)"
    r"(?:\[(?P<pid>\d{1,20})\]\]?:|(?P<colon>:)|(?P<bracket>\])(?!:))(?:[\s\",]|$|(?=<))"
)
# What may stand before a tag and ends with a colon as well: socklog, AIX.
_BEFORE = re.compile(r"\b[a-z]+[0-7]?\.[a-z]+: |[Ff]orwarded from [\w.-]+: ")
_NO_TAGS = frozenset({"error", "fatal", "panic", "warning", "info", "debug", "statistics"})
_CLOCK = re.compile(r"\d\d:\d\d:\d\d|\d{10}|\d{8}T\d{6}|@4[0-9a-f]{15}")
_HOST = re.compile(r"(?:^|\s)(?P<host>[\w@/][\w.@/:-]*)[\s>]+$")
# Kubernetes and CRI put the stream behind their time stamp, P where the line goes on.
_STREAM = re.compile(r"std(?:out|err) [FP](?:\s|$)")
_SUFFIX = re.compile(rf"\s*(?:{_PRIORITY}\s*|\[ID \d+ [a-z0-9.]+\]\s*|\ufeff)*")
QUEUE_ID = r"(?![a-z]+:|NOQUEUE:)[0-9A-Za-z]{6,20}"
_ENTRY = re.compile(rf"(?P<id>{QUEUE_ID}): ")
_CERTAIN_ID = re.compile(r"[0-9A-F]{6,20}|(?=\D*\d)(?=[^A-Z]*[A-Z])[0-9A-Za-z]{10,20}")

# What nearly every line is: rsyslog's and postlogd's, with a queue id.
_USUAL = re.compile(
    r"(?P<before>(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
    r"|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)) (?P<host>[\w.-]+)) "
    r"(?:[\w.-]+/)*(?P<program>[A-Za-z][\w.-]*)\[(?P<pid>\d{1,20})\]: "
    rf"(?P<text>{QUEUE_ID}: [^\x1b#^]*)",
    re.ASCII,
)

# Names of fields, as journalctl, Docker, rsyslog, syslog-ng, Vector, GELF and ECS have them.
_TEXTS = ("message", "log", "msg", "short_message", "full_message", "rawmsg")
_TIMES = (
    *("_source_realtime_timestamp", "__realtime_timestamp", "@timestamp", "timestamp", "time"),
    *("timereported", "timegenerated", "isodate", "date", "ts"),
)
_TAGS = (
    *("syslog_identifier", "programname", "program", "appname", "app-name", "app_name"),
    *("syslogtag", "tag", "ident", "process.name", "log.syslog.appname", "_program", "_comm"),
)
_PIDS = ("syslog_pid", "_pid", "pid", "procid", "process.pid", "log.syslog.procid")
_HOSTS = ("_hostname", "hostname", "host", "host.name", "host.hostname", "fromhost")


@dataclass(frozen=True, slots=True)
class Frame:
    """A line taken apart. ``stamps`` is where its time stands; "" and None for what it lacks."""

    text: str
    program: str = ""  # "smtpd" of "postfix/submission/smtpd"
    pid: int | None = None
    host: str = ""
    stamps: str = ""


def unframed(line: str) -> Frame:
    """Return a line without its frames, the innermost one's words first."""
    if usual := _USUAL.fullmatch(line.rstrip()):
        before, host, program, pid, text = usual.groups()
        return Frame(text, program, int(pid), host, before)
    frame = Frame(_plain(line))
    for _ in range(_MAX_FRAMES):
        inner = None if _ENTRY.match(frame.text) else _one(frame.text)
        if inner is None:
            break
        frame = Frame(
            inner.text,
            inner.program or frame.program,
            frame.pid if inner.pid is None else inner.pid,
            inner.host or frame.host,
            f"{frame.stamps} {inner.stamps}".strip(),
        )
    return frame


def _plain(line: str) -> str:
    text = line.rstrip("\r\n").lstrip("\ufeff")
    if "[" in text[:_REGION]:
        text = _COLOUR.sub("", text)
    if prefix := _PREFIX.match(text):
        text = text[prefix.end() :]
    return text.strip()


def _one(text: str) -> Frame | None:
    """Return a text without its outermost frame, None if it has none."""
    if text.startswith("{"):
        return _of_json(text)
    if text.startswith('"') and '",' in text[:_REGION]:
        with suppress(csv.Error):
            text = " ".join(next(csv.reader([text]), []))
    if standard := _STANDARD.match(text):
        program = standard["tag"].rpartition("/")[2].removesuffix(":")
        pid = _number(standard["pid"])
        return Frame(_message(standard["text"]), program, pid, standard["host"], standard["stamp"])
    return _tagged(text) or _untagged(text)


def _tagged(text: str) -> Frame | None:
    for tag in _TAG.finditer(text, 0, _REGION):
        before = text[: tag.start()]
        if ": " in _BEFORE.sub("", before):
            return None  # behind the beginning of a message, where clients choose words
        if _is_tag(tag, before):
            host = _HOST.search(before)
            name = host["host"] if host and not _CLOCK.search(host["host"]) else ""
            pid = int(tag["pid"]) if tag["pid"] else None
            return Frame(_message(text[tag.end() :]), tag["program"], pid, name, before)
    return None


def _is_tag(tag: re.Match[str], before: str) -> bool:
    program = tag["program"]
    if tag["bracket"]:  # metalog
        return bool(tag["path"]) and tag[0].startswith("[") and bool(_CLOCK.search(before))
    if tag["path"] or tag["pid"] or program == "crm-milter":
        return not before or tag[0][0] != "["
    if program in _NO_TAGS or _CERTAIN_ID.fullmatch(program):
        return False
    return bool(_ENTRY.match(_message(tag.string[tag.end() :])))


def _number(text: str) -> int | None:
    # Python refuses numbers of thousands of digits.
    return int(text) if text.isdecimal() and len(text) <= _LONGEST_NUMBER else None


def _message(text: str) -> str:
    suffix = _SUFFIX.match(text)
    return text[suffix.end() if suffix else 0 :]


def _untagged(text: str) -> Frame | None:
    """Return a text without a time stamp or priority at its very beginning."""
    entry = re.search(rf"(?:^|[\s>])(?={QUEUE_ID}: )", text[:_REGION])
    before = text[: entry.end()] if entry else ""
    if not before.strip() or ": " in before or not (_CLOCK.search(before) or before[0] == "<"):
        return _stamped(text)
    return Frame(text[len(before) :], stamps=before)


_LEADING = re.compile(
    rf"(?:{_PRIORITY}\s*)?"
    r"(?:[\[(]?\d{4}-\d\d-\d\d[T _]\d\d:\d\d:\d\d\S*[\])]?(?:\s+(?:Z|UTC|[+-]\d\d:?\d\d)\b)?"
    r"|[^\W\d_]{3,10}\.?\s+\d{1,2}\s+(?:\d{4}\s+)?\d\d:\d\d:\d\d\S*)?\s*"
    rf"(?:{_STREAM.pattern})?(?:{_PRIORITY}\s*)?"
)


def _stamped(text: str) -> Frame | None:
    leading = _LEADING.match(text)
    if leading is None or not leading[0]:
        return None
    return Frame(_message(text[leading.end() :]), stamps=leading[0])


def _of_json(text: str) -> Frame | None:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    fields = dict(_flat(data)) if isinstance(data, dict) else {}
    found = next((fields[name] for name in _TEXTS if fields.get(name)), "")
    if not found:
        return None
    tag = _TAG.match(f"{_first(fields, _TAGS).rstrip(':')}: ")
    number = _first(fields, _PIDS) or (tag["pid"] if tag else "") or ""
    return Frame(
        _plain(found),
        tag["program"] if tag else "",
        _number(number),
        _first(fields, _HOSTS),
        _first(fields, _TIMES),
    )


def _flat(data: dict[str, Any], prefix: str = "") -> Any:
    for name, value in data.items():
        key = f"{prefix}{name}".lower()
        if isinstance(value, dict):
            yield from _flat(value, f"{key}.")
        elif isinstance(value, list):  # the journal's way with octets that are not UTF-8
            if all(isinstance(each, int) and 0 <= each < 256 for each in value):
                yield key, bytes(value).decode("utf-8", "replace")
        else:
            yield key, str(value)


def _first(fields: dict[str, str], names: tuple[str, ...]) -> str:
    return next((fields[name] for name in names if fields.get(name)), "")
