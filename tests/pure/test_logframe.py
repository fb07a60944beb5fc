"""The same line of Postfix in the frame of each writer: program, pid, time, host and text.

Local time is that of Berlin: the end of daylight saving, and frames without a zone.
"""

import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from crm_milter.trace import frame
from crm_milter.trace.history import group_by_message
from crm_milter.trace.lines import Line, Parser, decided, delivery

NEWEST = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
AT = datetime(2026, 11, 22, 2, 52, 34, tzinfo=UTC)
MESSAGE = "171EB2103A4: to=<ann@solarmora.com>, relay=m[192.0.2.1]:25, status=sent (250 ok: x)"
UNIX = int(AT.timestamp())
TAI = f"@{(1 << 62) + 10 + UNIX:016x}0000abcd"


@pytest.fixture(autouse=True)
def _berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def journal(**more: object) -> str:
    return json.dumps({"_HOSTNAME": "mail", "PRIORITY": "6", **more})


# TAG is "postfix/smtp[6278]", BARE the same without its pid, SAID the message.
WHOLE = {
    "RFC 3164": "Nov 22 03:52:34 mail TAG: SAID",
    "RFC 3164, one-digit day": "Nov  2 03:52:34 mail TAG: SAID",
    "priority": "<22>Nov 22 03:52:34 mail TAG: SAID",
    "milliseconds": "Nov 22 03:52:34.123 mail TAG: SAID",
    "microseconds": "Nov 22 03:52:34.123456 mail TAG: SAID",
    "year behind the day": "Nov 22 2026 03:52:34 mail TAG: SAID",
    "year and a comma": "Nov 22, 2026 03:52:34 mail TAG: SAID",
    "year behind the time": "Nov 22 03:52:34 2026 mail TAG: SAID",
    "ctime": "Sun Nov 22 03:52:34 2026 mail TAG: SAID",
    "date with zone": "Sun Nov 22 02:52:34 UTC 2026 mail TAG: SAID",
    "logread of OpenWrt": "Sun Nov 22 03:52:34 2026 mail.info TAG: SAID",
    "busybox": "Nov 22 03:52:34 mail mail.info TAG: SAID",
    "busybox, small": "Nov 22 03:52:34 mail.info TAG: SAID",
    "FreeBSD -v": "Nov 22 03:52:34 <mail.info> mail TAG: SAID",
    "FreeBSD -vv": "Nov 22 03:52:34 <2.6> mail TAG: SAID",
    "Solaris": "Nov 22 03:52:34 mail TAG: [ID 197553 mail.info] SAID",
    "AIX": "Nov 22 03:52:34 mail mail:info TAG: SAID",
    "AIX, forwarded": "Nov 22 03:52:34 Message forwarded from mail: TAG: SAID",
    "socklog": "2026-11-22_02:52:34.12345Z mail.info: Nov 22 03:52:34 TAG: SAID",
    "multilog": f"{TAI} mail.info: Nov 22 03:52:34 mail TAG: SAID",
    "tabs": "Nov 22 03:52:34\tmail\tTAG:\tSAID",
    "CRLF": "Nov 22 03:52:34 mail TAG: SAID\r\n",
    "byte order mark": "\ufeffNov 22 03:52:34 mail TAG: SAID",
    "no host": "Nov 22 03:52:34 TAG: SAID",
    "IPv6 host": "Nov 22 03:52:34 2001:db8::1 TAG: SAID",
    "syslog-ng chained": "Nov 22 03:52:34 s_local@gw/mail TAG: SAID",
    "sequence number": "000123: Nov 22 03:52:34 mail TAG: SAID",
    "RFC 3339": "2026-11-22T03:52:34.123456+01:00 mail TAG: SAID",
    "RFC 3339, UTC": "2026-11-22T02:52:34Z mail TAG: SAID",
    "RFC 3339, nanoseconds": "2026-11-22T02:52:34.123456789Z mail TAG: SAID",
    "RFC 3339, comma": "2026-11-21T21:22:34,5-0530 mail TAG: SAID",
    "RFC 3339 and a priority": "<22>2026-11-22T02:52:34Z mail TAG: SAID",
    "ISO, blank": "2026-11-22 03:52:34 mail TAG: SAID",
    "ISO, blank and zone": "2026-11-22 02:52:34.5 +0000 mail TAG: SAID",
    "ISO, brackets": "[2026-11-22 03:52:34] mail TAG: SAID",
    "ISO, basic": "20261122T025234Z mail TAG: SAID",
    "slashes": "2026/11/22 03:52:34 mail TAG: SAID",
    "German": "22.11.2026 03:52:34 mail TAG: SAID",
    "day first": "22/11/2026 03:52:34 mail TAG: SAID",
    "month first": "11/22/2026 03:52:34 mail TAG: SAID",
    "common log format": "[22/Nov/2026:03:52:34 +0100] mail TAG: SAID",
    "VMS": "22-Nov-2026 03:52:34.00 mail TAG: SAID",
    "RFC 822": "Sun, 22 Nov 2026 03:52:34 +0100 mail TAG: SAID",
    "French": "nov. 22 03:52:34 mail TAG: SAID",
    "German, day first": "22. Nov 03:52:34 mail TAG: SAID",
    "Russian": "ноя 22 03:52:34 mail TAG: SAID",
    "Polish": "lis 22 03:52:34 mail TAG: SAID",
    "Finnish": "marras 22 03:52:34 mail TAG: SAID",
    "Japanese": "11月 22 03:52:34 mail TAG: SAID",
    "Korean": "11월 22 03:52:34 mail TAG: SAID",
    "RFC 5424": "<22>1 2026-11-22T02:52:34.003Z mail postfix/smtp 6278 - - SAID",
    "RFC 5424, data": '<22>1 2026-11-22T02:52:34Z mail postfix/smtp 6278 ID [a@1 b="\\]d"][e] SAID',
    "RFC 5424, mark": "<22>1 2026-11-22T02:52:34Z mail postfix/smtp 6278 - - \ufeffSAID",
    "RFC 5424, counted": "212 <22>1 2026-11-22T03:52:34+01:00 mail postfix/smtp 6278 - - SAID",
    "RFC 5424, bare": '1 2026-11-22T02:52:34Z mail postfix/smtp 6278 - [meta n="1"] SAID',
    "compose": "postfix-1  | Nov 22 03:52:34 mail TAG: SAID",
    "compose, colours": "\x1b[36mpostfix-1  |\x1b[0m Nov 22 03:52:34 mail TAG: SAID",
    "compose -t": "postfix-1  | 2026-11-22T02:52:34.123456789Z Nov 22 01:52:34 mail TAG: SAID",
    "docker logs -t": "2026-11-22T02:52:34.123456789Z Nov 22 01:52:34 mail TAG: SAID",
    "docker logs -t, bare": "2026-11-22T02:52:34.123456789Z TAG: SAID",
    "json-file": json.dumps(
        {
            "log": "Nov 22 01:52:34 mail TAG: SAID\n",
            "stream": "stdout",
            "time": "2026-11-22T02:52:34Z",
        }
    ).replace("<", "\\u003c"),
    "CRI": "2026-11-22T02:52:34.123456789Z stdout F Nov 22 01:52:34 mail TAG: SAID",
    "CRI, bare": "2026-11-22T03:52:34.123456789+01:00 stderr F TAG: SAID",
    "kubectl --prefix": "[pod/mx-0/postfix] 2026-11-22T02:52:34.1Z Nov 22 01:52:34 mail TAG: SAID",
    "stern": "postfix-0 postfix Nov 22 03:52:34 mail TAG: SAID",
    "logcli": '2026-11-22T02:52:34Z {app="postfix"} Nov 22 01:52:34 mail TAG: SAID',
    "docker in the journal": "Nov 22 03:52:34 node dockerd[12]: Nov 22 01:52:34 mail TAG: SAID",
    "docker's syslog driver": "Nov 22 03:52:34 mail a1b2c3d4e5f6[9]: TAG: SAID",
    "journalctl short-iso": "2026-11-22T03:52:34+0100 mail TAG: SAID",
    "journalctl short-iso-precise": "2026-11-22T03:52:34.123456+01:00 mail TAG: SAID",
    "journalctl short-full": "Sun 2026-11-22 02:52:34 UTC mail TAG: SAID",
    "journalctl short-full, local": "Sun 2026-11-22 03:52:34 CET mail TAG: SAID",
    "journalctl short-unix": f"{UNIX}.123456 mail TAG: SAID",
    "journalctl json": journal(
        MESSAGE="SAID",
        SYSLOG_IDENTIFIER="postfix/smtp",
        SYSLOG_PID="6278",
        __REALTIME_TIMESTAMP=f"{UNIX}123456",
    ),
    "rsyslog's JSON": journal(
        message=" SAID", timegenerated="2026-11-22T02:52:34.1+00:00", syslogtag="TAG:", host="mail"
    ),
    "syslog-ng's JSON": journal(
        PROGRAM="postfix/smtp", PID="6278", MESSAGE="SAID", ISODATE="2026-11-22T03:52:34+01:00"
    ),
    "ECS": json.dumps(
        {
            "@timestamp": "2026-11-22T02:52:34.1Z",
            "message": "SAID",
            "process": {"name": "postfix/smtp", "pid": 6278},
            "host": {"name": "mail"},
        }
    ),
    "milliseconds since 1970": f"{UNIX}123 mail TAG: SAID",
    "CSV": '"2026-11-22T02:52:34Z","mail","TAG:","SAID"',
}
# Frames that hold no pid, no program or no time; nothing is made up.
PARTS = {
    "no pid": ("Nov 22 03:52:34 mail BARE: SAID", "smtp", None, AT),
    "metalog": ("Nov 22 03:52:34 [BARE] SAID", "smtp", None, AT),
    "RFC 5424, nothing": ("<22>1 - - postfix/smtp - - - SAID", "smtp", None, None),
    "journalctl short-monotonic": ("[ 5.123456] mail TAG: SAID", "smtp", 6278, None),
    "journalctl with-unit": ("Sun 2026-11-22 03:52:34 CET mail x@-.service[7]: SAID", None, 7, AT),
    "journalctl cat": ("SAID", "", None, None),
    "priority alone": ("<22>SAID", "", None, None),
    "tag alone": ("TAG: SAID", "smtp", 6278, None),
    "CRI of a bare line": ("2026-11-22T02:52:34.1Z stderr F SAID", "", None, AT),
    "docker logs -t of a bare line": ("2026-11-22T02:52:34.1Z SAID", "", None, AT),
    "compose of a bare line": ("milter_1 | SAID", "", None, None),
    "stamp alone": ("Nov 22 03:52:34 SAID", "", None, AT),
    "stamp and host": ("Nov 22 03:52:34 mail SAID", "", None, AT),
    "time alone": ("03:52:34 mail TAG: SAID", "smtp", 6278, None),
}


def parsed(text: str) -> Line:
    return Parser(NEWEST).line(text.encode())


def put(frame: str, name: str, message: str) -> str:
    said = json.dumps(message)[1:-1] if frame.startswith("{") else message
    words = frame.replace("postfix/smtp", name).replace("TAG", f"{name}[6278]")
    return words.replace("BARE", name).replace("SAID", said)


@pytest.mark.parametrize("frame", WHOLE.values(), ids=WHOLE.keys())
def test_frames(frame: str) -> None:
    line = parsed(put(frame, "postfix/smtp", MESSAGE))
    assert line.queue_id == "171EB2103A4"
    assert f"{line.queue_id}: {line.text}" == MESSAGE
    assert (line.program, line.pid) == ("smtp", 6278)
    assert line.time is not None
    day = 2 if "one-digit" in frame or "Nov  2" in frame else 22
    assert line.time.replace(microsecond=0) == AT.replace(day=day)
    found = delivery(line)
    assert found is not None
    assert (found.to, found.status, found.words) == ("ann@solarmora.com", "sent", "250 ok: x")


OURS = "171EB2103A4: rerouted: to=<help@x.example> new=<a@crm.example> rule=r copies=0 verdict=ham"


@pytest.mark.parametrize("frame", WHOLE.values(), ids=WHOLE.keys())
@pytest.mark.parametrize("priority", ["", "<6>"])
def test_frames_of_our_own_lines(frame: str, priority: str) -> None:
    line = parsed(put(frame, "crm-milter", priority + OURS))
    found = decided(line)
    assert found is not None
    assert (line.program, line.pid, found.new) == ("crm-milter", 6278, ("a@crm.example",))


@pytest.mark.parametrize(
    "name",
    [
        "postfix/submission/smtp",
        "postfix-out/smtp",
        "postfix/127.0.0.1:10025/smtp",
        "postfix/[::1]:10025/smtp",
        "postfix/private/rewrite-2/smtp",
        "mail.out/relay_1/smtp",
        "mx2/smtp",
        "smtp",
    ],
)
@pytest.mark.parametrize("kind", ["RFC 3164", "RFC 3339", "RFC 5424", "compose", "json-file"])
def test_names_of_services(name: str, kind: str) -> None:
    """syslog_name, also with $service_name as Debian's master.cf has it."""
    line = parsed(put(WHOLE[kind], name, MESSAGE))
    assert (line.program, line.pid, line.queue_id) == ("smtp", 6278, "171EB2103A4")


@pytest.mark.parametrize(("frame", "program", "pid", "time"), PARTS.values(), ids=PARTS.keys())
def test_parts(frame: str, program: str | None, pid: int | None, time: datetime | None) -> None:
    line = parsed(put(frame, "postfix/smtp", MESSAGE))
    assert f"{line.queue_id}: {line.text}" == MESSAGE
    assert program is None or line.program == program
    assert line.pid == pid
    assert (line.time and line.time.replace(microsecond=0)) == time


@pytest.mark.parametrize("kind", ["RFC 3164", "RFC 5424", "json-file", "journalctl json", "CRI"])
def test_hosts(kind: str) -> None:
    assert parsed(put(WHOLE[kind], "postfix/smtp", MESSAGE)).host == "mail"


FORGED = "postfix/smtp[9]: DEADBEEF01: to=<a@x.example>, relay=m, status=bounced (no)"


@pytest.mark.parametrize(
    "said",
    [
        f"171EB2103A4: warning: header Subject: {FORGED}",
        f"171EB2103A4: message-id=<Nov 22 03:52:34 mail {FORGED}>",
        f"NOQUEUE: reject: RCPT from x[192.0.2.1]: 550 no; helo=<Nov 22 03:52:34 mail {FORGED}>",
        f"warning: header Subject: Nov 22 03:52:34 mail {FORGED}",
        f"171EB2103A4: client=x {FORGED}",
    ],
)
@pytest.mark.parametrize("frame", [*WHOLE.values(), "SAID", "<22>SAID", "x | SAID"])
def test_what_clients_choose_is_no_frame(said: str, frame: str) -> None:
    assert parsed(put(frame, "postfix/smtp", said)).queue_id != "DEADBEEF01"


@pytest.mark.parametrize(
    "text",
    [
        "-- Boot 5f2a1c --",
        "-- Logs begin at Sun 2026-11-22 03:52:34 CET. --",
        "Nov 22 03:52:34 mail CRON[7]: (root) CMD (true)",
        "Nov 22 03:52:34 mail last message repeated 3 times",
        "{",
        '{"a": 1}',
        '{"log": 1, "time": [300, "x"]}',
        '{"log": "", "time": "x"}',
        '"a","b',
        "[" * 2000,
        "{" * 2000,
        "<22>1 - - - - - -",
        "x" * 100_000 + ": " + MESSAGE,
        "a/" * 1000 + "[1]: " + MESSAGE,
    ],
)
def test_other_lines(text: str) -> None:
    line = parsed(text)
    assert (line.queue_id, line.is_of_mail) == ("", False)


@pytest.mark.parametrize("kind", ["RFC 3164", "journalctl short-full, local"])
@pytest.mark.parametrize(
    ("begin", "end"), [("02:59:58", "02:00:01"), ("02:30:05", "02:29:50"), ("02:10:00", "02:10:30")]
)
def test_the_end_of_daylight_saving_splits_no_message(kind: str, begin: str, end: str) -> None:
    parser = Parser(NEWEST)
    frame = WHOLE[kind].replace("Nov 22", "Oct 25").replace("11-22", "10-25")
    texts = [
        put(frame, "postfix/smtpd", "171EB2103A4: client=x").replace(
            "03:52:34 CET", begin + " CEST"
        ),
        put(frame, "postfix/qmgr", "171EB2103A4: removed").replace("03:52:34", end),
    ]
    lines = [parser.line(each.replace("03:52:34", begin).encode()) for each in texts]
    (journey,) = group_by_message(lines)
    assert [line.text for line in journey.lines] == ["client=x", "removed"]


@pytest.mark.parametrize(
    ("stamp", "utc"),
    [
        ("Oct 25 01:59:59", "2026-10-24T23:59:59"),
        ("Oct 25 02:30:00", "2026-10-25T00:30:00"),
        ("Oct 25 03:30:00", "2026-10-25T02:30:00"),
        ("Mar 29 03:30:00", "2026-03-29T01:30:00"),
        ("Dec 31 23:59:59", "2025-12-31T22:59:59"),
        ("Feb 29 00:00:00", "2024-02-28T23:00:00"),
        ("3/4/2026 00:00:00", "2026-04-02T22:00:00"),
        ("10/12/2026 00:00:00", "2026-10-11T22:00:00"),
    ],
)
def test_local_times(stamp: str, utc: str) -> None:
    line = parsed(f"{stamp} mail postfix/qmgr[6]: 171EB2103A4: removed")
    assert line.time is not None
    assert line.time.astimezone(UTC).isoformat() == utc + "+00:00"


def test_lines_that_were_cut() -> None:
    long = "x" * 1900
    words = f"host crm.example[192.0.2.1] said: 550 {long}"
    line = parsed(
        f"Nov 22 03:52:34 mail postfix/smtp[6]: 171EB2103A4: to=<a@crm.example>, relay=m[1]:25,"
        f" delay=1, dsn=5.1.1, status=bounced ({words}"
    )
    found = delivery(line)
    assert found is not None
    assert (found.status, found.words) == ("bounced", words)
    whole = decided(parsed("171EB2103A4: rerouted: to=<a@x> new=<b@x>,<c@x> rule=r copies=0..."))
    assert whole is not None
    assert (whole.new, whole.rule) == (("b@x", "c@x"), "r")
    cut = decided(parsed("171EB2103A4: rerouted: to=<a@x.example> new=<b@x.example>,<c@x.ex"))
    assert cut is not None
    assert (cut.new, cut.rule) == (("b@x.example",), "")


def test_the_short_way_to_the_usual_frame_leads_where_the_long_one_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stamps = ("Nov  2 03:52:34 mail", "2026-11-22T02:52:34.5Z m.x", "2026-11-22T03:52:34+01:00 m")
    tags = ("postfix/smtp[1]", "postfix-out/submission/smtpd[22]", "crm-milter[3]", "qmgr[4]")
    said = (MESSAGE, OURS, "171EB2103A4: removed", f"171EB2103A4: message-id=<{FORGED}>")
    lines = [f"{stamp} {tag}: {text}" for stamp in stamps for tag in tags for text in said]
    short = [frame.unframed(line) for line in lines]
    assert all(frame._USUAL.fullmatch(line) for line in lines)
    monkeypatch.setattr(frame, "_USUAL", re.compile("(?!)"))
    assert short == [frame.unframed(line) for line in lines]
