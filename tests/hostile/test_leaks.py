"""Nobody learns where mail for help@ goes: all that leaves the host is searched for it.

Every message of MAIL is sent with the targets and copies working, deferring and refusing, then
all that anybody got is read to the end: messages, reports, bounces, warnings, parameters of RCPT,
SMTP replies, the page of metrics. Where the design lets somebody know, that is asserted as well,
so that an exception cannot grow unseen. Single cases in detail: tests/postfix/test_dsn.py and
test_privacy.py.
"""

import hashlib
import itertools
import re
import urllib.error
import urllib.request
from contextlib import ExitStack

import pytest

from crm_milter.routing.decide import Policy
from crm_milter.routing.marker import marker
from crm_milter.rules.table import RuleTable
from lab import smtp
from lab.base import free_port, is_free, wait_for
from lab.sink import Sink

CONFIG = """
marker_key: {key}
milter:
  listen: LISTEN
  socket_mode: "0666"
metrics:
  listen: 127.0.0.1:{port}
unrouted_to: it@solarmora.com
dead_letters: secret-lost@solarmora.com
spam: amavis
authentication: mx.solarmora.com
rules:
  - name: support
    match: help@solarmora.com
    replace_with: secret-crm@crm.example
    also_deliver_to: [secret-copy@copies.example, {{address: secret-spam@copies.example, deliver_spam: true}}]
  - {{name: sales, match: sales@solarmora.com, replace_with: secret-sales@old.example,
     dead_letters: secret-bounces@solarmora.com, add_headers: {{X-Original: "{{recipient}}"}}}}
  - {{name: open, match: open@solarmora.com, replace_with: secret-open@crm.example,
     bypass_spam_filter: true, also_deliver_to: [{{address: secret-spam@copies.example, deliver_spam: true}}]}}
  - {{name: list, match: list@solarmora.com, also_deliver_to: [secret-copy@copies.example]}}
  - {{name: glob, match: case-*@solarmora.com, replace_with: secret-\\1@crm.example}}
  - {{name: reject, match: reject@solarmora.com, replace_with: secret-r@crm.example, on_spam: reject}}
  - {{name: drop, match: drop@solarmora.com, replace_with: secret-d@crm.example, on_spam: discard}}
  - {{name: topic, match: topic@solarmora.com, headers: {{Subject: "x*"}}, replace_with: secret-t@crm.example,
     case_group: one, add_headers: {{X-Original: "{{recipient}}"}}}}
  - {{name: second, match: second@solarmora.com, replace_with: secret-2@old.example, case_group: one,
     also_deliver_to: [secret-copy@copies.example], add_headers: {{X-Original: "{{recipient}}"}}}}
  - {{name: guarded, match: guarded@solarmora.com, replace_with: secret-g@crm.example, automatic: leave,
     on_unauthenticated: reject, flood: {{limit: 1 in 7d, per: subject, then: tempfail}}}}
  - {{name: few, match: few@solarmora.com, replace_with: secret-f@crm.example, automatic: {{reply: leave, bounce: route, bulk: leave, list: leave}},
     on_unauthenticated: leave, flood: {{limit: 1 in 7d, per: sender, then: leave}}}}
  - {{name: kept, match: kept@solarmora.com, replace_with: secret-k@crm.example, case_group: one,
     on_unauthenticated: quarantine, flood: {{limit: 1 in 7d, per: sender, then: hold}}}}
  - {{name: timed, match: timed@solarmora.com, replace_with: secret-w@crm.example, except_headers: {{X-Migrated: "*"}},
     from: 2020-01-01T00:00:00Z, until: 2037-01-01T00:00:00Z, on_unauthenticated: route}}
  - {{name: asked, match: asked@solarmora.com, addressed: to_or_cc, replace_with: secret-a@crm.example}}
  - {{name: loud, match: loud@solarmora.com, replace_with: loud-target@crm.example, suppress_bounces: false}}
"""  # noqa: E501 - a rule a line
MATCHED = (
    "help",
    "sales",
    "open",
    "list",
    "case-1",
    "reject",
    "drop",
    "topic",
    "second",
    "guarded",
    "few",
    "kept",
    "timed",
    "asked",
)
GUARDED = [[f"<{name}@solarmora.com>"] for name in ("guarded", "few", "kept", "timed")]
FAR = ("crm.example", "old.example", "copies.example")
SECRET = re.compile(rb"(?i)secret-|(crm|old|copies)\.example|X-CRM-Milter|X-Original")
_ALONE = ("list@solarmora.com",)  # sees the marker, if a rule copies its mail and nobody else's
_OUR_FIELDS = re.compile(rb"(?m)^(X-CRM-Milter: [0-9a-f]{16}|X-Original: [\w@.]+)\r$")
POSTMASTER = "postmaster@mail.lab.example"
DEAD = ("secret-bounces@solarmora.com", "secret-lost@solarmora.com")
JOE, ALICE = "joe@customer.example", "alice@solarmora.com"
TO = f"{ALICE}, asked@solarmora.com"
ASKED = ("", " NOTIFY=SUCCESS,DELAY,FAILURE", " NOTIFY=SUCCESS ORCPT=rfc822;x@y.example",
         " NOTIFY=DELAY")  # fmt: skip


@pytest.fixture(scope="module")
def world(make_module_lab, tmp_path_factory):
    """A lab, the servers of the far side (one without DSN), and the port of the metrics."""
    with ExitStack() as stack:
        sinks = {name: stack.enter_context(Sink(dsn=name != "old.example")) for name in FAR}
        port = free_port()
        key = tmp_path_factory.mktemp("secret") / "marker.key"
        key.write_text("4bXq1Z-a-secret-that-is-on-no-wire\n")
        key.chmod(0o644)
        aliases = {f"{name}@solarmora.com": "it@solarmora.com" for name in (*MATCHED, "loud")}
        del aliases["list@solarmora.com"]
        lab = make_module_lab(
            CONFIG.format(port=port, key=key),
            virtual_alias_maps=aliases,
            transport_maps=sinks,
            main={"notify_classes": "bounce", "delay_warning_time": "1s"},
        )
        yield lab, sinks, port


@pytest.fixture
def lab(world):
    """The lab of before, fresh."""
    lab, sinks, _ = world
    lab.fresh()
    for sink in sinks.values():
        sink.accept()
        sink.data_reply = "250 2.0.0 taken"
        sink.clear()
    return lab


def mail():
    """Envelopes and texts: each matched address alone, with a stranger, all of them together."""
    envelopes = [[name] for name in MATCHED]
    envelopes += [[name, "alice"] for name in MATCHED] + [[*MATCHED, "alice"], [*MATCHED]]
    for number, names in enumerate(envelopes):
        for verdict in ("NO", "YES"):
            asked = ASKED[number % len(ASKED)]
            text = f"From: {JOE}\nTo: {TO}\nSubject: x\nX-Spam-Flag: {verdict}\n\nhello\n"
            yield [f"<{name}@solarmora.com>{asked}" for name in names], text.encode()


def send_all(lab):
    """Send all of it in one session each; the replies."""
    replies = []
    for rcpts, text in mail():
        sent = smtp.send(lab.postfix.port, f"<{JOE}> RET=FULL ENVID=e1", rcpts, text)
        replies += [*sent.rcpt_replies, sent.reply]
    return replies


def read_by_others(lab, sinks):
    """All that reached somebody who must know of nothing: his address, and every octet of it."""
    for entry in lab.sink.received:
        if entry.recipient in (POSTMASTER, *DEAD):
            continue
        yield entry.recipient, f"{entry.rcpt.raw} {entry.delivery.mail_from}".encode()
        report = entry.sender == "" and entry.recipient == JOE
        # Postfix quotes the header of a message in a report on it, our fields included.
        sees = report or entry.recipient in _ALONE
        yield entry.recipient, _OUR_FIELDS.sub(b"", entry.data) if sees else entry.data
    for sink in sinks.values():  # a target or copy must not learn of another one
        for entry in sink.received:
            sender = "" if entry.sender in DEAD else entry.delivery.mail_from  # whom it returns to
            raw = f"{entry.rcpt.raw} {sender}"
            own = re.compile(rf"(?i){re.escape(entry.recipient)}|crm\.example|X-CRM-Milter")
            yield entry.recipient, own.sub("", raw).encode()
            yield entry.recipient, _OUR_FIELDS.sub(b"", entry.data)


def assert_nobody_knows(lab, sinks):
    for who, octets in read_by_others(lab, sinks):
        found = SECRET.search(octets)
        assert not found, f"{who} reads {octets[max(0, found.start() - 200) : found.end() + 200]!r}"


def test_delivered(world, lab, record_property):
    _, sinks, _ = world
    replies = send_all(lab)
    text = f"From: {JOE}\nSubject: x\nX-Spam-Flag: NO\n".encode()
    forged = b"Authentication-Results: mx.solarmora.com; dmarc=fail\n"
    automatic = (b"Precedence: bulk\n", b"List-Id: <x>\n", b"Auto-Submitted: auto-replied\n")
    for more in (b"", forged, b"X-Failed-Recipients: x@y.example\n", *automatic):
        for rcpts in GUARDED:
            sent = smtp.send(lab.postfix.port, f"<{JOE}>", rcpts, text + more + b"\nmore\n")
            replies.append(sent.reply)
    lab.postfix.wait_empty_queue(30)
    assert_nobody_knows(lab, sinks)
    assert "rule=few reason=flood" in lab.milter.log()
    assert "rule=kept copies=0 verdict=ham reason=flood" in lab.milter.log()
    before = sinks["crm.example"].received.copy()
    lab.postfix.postsuper("-H", "ALL")  # what flood and DMARC have held
    lab.postfix.wait_empty_queue(30)
    assert len(sinks["crm.example"].received) > len(before)
    assert_nobody_knows(lab, sinks)
    reached = {entry.recipient for sink in sinks.values() for entry in sink.received}
    assert {"secret-crm@crm.example", "secret-sales@old.example", "secret-1@crm.example",
            "secret-copy@copies.example", "secret-spam@copies.example"} <= reached  # fmt: skip
    assert {f"secret-{letter}@crm.example" for letter in "gfkwa"} <= reached
    assert not [each for each in replies if SECRET.search(each.text.encode())]
    assert {each.code for each in replies} == {250, 451, 550}
    assert any(entry.recipient == JOE for entry in lab.sink.received), "no report was sent"
    octets = sum(len(octets) for _, octets in read_by_others(lab, sinks))
    record_property("searched", f"{len(replies)} replies, {octets} octets")


@pytest.mark.parametrize("how", ["rcpt", "data"])
def test_refused_by_the_far_side(world, lab, how):
    """The customer hears nothing of it; the postmaster, that is the exception, all."""
    _, sinks, _ = world
    for sink in sinks.values():
        if how == "rcpt":
            sink.refuse("*", "550 5.1.1 no such case")
        else:
            sink.data_reply = "554 5.7.0 no such case"
    send_all(lab)
    lab.postfix.wait_empty_queue(30)
    assert_nobody_knows(lab, sinks)
    told = [each.data for each in lab.sink.received if each.recipient == POSTMASTER]
    assert any(b"secret-crm@crm.example" in each for each in told)
    assert any(b"secret-sales@old.example" in each for each in told)
    for box in DEAD:
        reports = [each for each in lab.sink.received if each.recipient == box]
        assert any(each.sender == "" and b"message/rfc822" in each.data for each in reports)


def test_delayed(world, lab):
    _, sinks, _ = world
    for sink in sinks.values():
        sink.defer("*", "451 4.3.0 try again later")
    send_all(lab)
    lab.postfix.wait_log("status=deferred .*try again later")
    # A warning is due after a second: the second attempt comes later than that.
    wait_for("attempts", lambda: lab.postfix.log().count("status=deferred") > 60, 30)
    for sink in sinks.values():
        sink.accept()
    lab.postfix.flush()
    lab.postfix.wait_empty_queue(60)
    assert_nobody_knows(lab, sinks)


def test_while_the_milter_is_down(world, lab):
    _, sinks, _ = world
    lab.milter.kill()
    replies = send_all(lab)
    lab.milter.start()
    assert {each.code for each in replies} <= {250, 451}
    assert not [each for each in replies if SECRET.search(each.text.encode())]
    lab.postfix.wait_empty_queue(30)
    assert not [entry for sink in sinks.values() for entry in sink.received]
    assert_nobody_knows(lab, sinks)


def test_questions_of_a_client(lab):
    with smtp.Session(lab.postfix.port) as session:
        for name in (*MATCHED, "loud"):
            for verb in ("VRFY", "EXPN", "MAIL FROM:<>\r\nRCPT TO:", "RSET\r\nHELP"):
                for command in f"{verb} <{name}@solarmora.com>".split("\r\n"):
                    assert not SECRET.search(session.cmd(command).text.encode())
            session.cmd("RSET")


def test_the_page_of_metrics(world, lab):
    """It names rules, and no address at all."""
    _, _, port = world
    send_all(lab)
    lab.postfix.wait_empty_queue(30)
    wait_for("the exporter", lambda: not is_free(port))
    for path in ("/metrics", "/", "/healthz", "/secret-crm@crm.example"):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                page = answer.read() + str(answer.headers).encode()
        except urllib.error.HTTPError as error:
            page = error.read() + str(error.headers).encode()
        assert not re.search(rb"secret-|[a-z]\.example|solarmora\.com|customer", page)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        assert b'rule="support"' in answer.read()


def marks_in_reports(lab, rcpts, text):
    """Who asks for a report gets the header of the message in it, after our edits."""
    lab.sink.clear()
    asked = lab.send(f"<{JOE}> RET=HDRS", [f"{each} NOTIFY=SUCCESS" for each in rcpts], text)
    reports = [each.data for each in asked.received if each.sender == ""]
    assert reports
    return [re.findall(rb"(?m)^X-CRM-Milter: (\S+)\r$", each) for each in reports]


OPEN, GLOB = "<open@solarmora.com>", "<case-1@solarmora.com>"


def test_nothing_can_be_guessed_from_a_marker(lab):
    """Not by whoever knows all but the key: the rules, the targets and this program."""
    text = b"Message-ID: <%d@x.example>\nFrom: joe@customer.example\nX-Spam-Flag: NO\n\nhello\n"
    (mark,), *_ = marks_in_reports(lab, [OPEN], text % 1)
    assert re.fullmatch(rb"[0-9a-f]{16}", mark)
    rules = ("", "open", "glob", "support", "list")
    targets = (
        "",
        "secret-open@crm.example",
        "secret-1@crm.example",
        "<1@x.example>",
        "1@x.example",
    )
    facts = Policy(RuleTable()).facts
    identity = facts([("message-id", "<1@x.example>")]).identities[0]
    for rule, what in itertools.product(rules, (*targets, identity)):
        octets = f"{rule}\0{what}".encode()
        guesses = {hashlib.sha256(octets).hexdigest()[:16], marker(b"", rule, what)}
        assert mark.decode() not in guesses


def test_markers_of_different_messages_and_recipients_cannot_be_compared(lab):
    text = b"Message-ID: <%d@x.example>\nFrom: joe@customer.example\nX-Spam-Flag: NO\n\nhello\n"
    envelopes = ([OPEN], [GLOB], [OPEN, GLOB], [GLOB, "<list@solarmora.com>"])
    seen = set()
    for number, rcpts in enumerate([*envelopes, *envelopes]):
        for marks in marks_in_reports(lab, rcpts, text % number):
            assert len(marks) == 1  # a second would tell that there is another recipient
            seen |= {*marks}
    assert len(seen) == 2 * len(envelopes)


def test_the_exceptions(world, lab):
    """Who was asked for in so many words knows, and so does who reads the local logs."""
    _, sinks, _ = world
    sinks["crm.example"].refuse("*", "550 5.1.1 no such case")
    text = b"Subject: x\nX-Spam-Flag: NO\n\nhello\n"
    loud = lab.send(f"<{JOE}>", ["<loud@solarmora.com>"], text)
    assert b"loud-target@crm.example" in loud.of(JOE).data  # suppress_bounces: false
    lab.sink.clear()
    lab.sink.clear()
    quiet = lab.send(f"<{JOE}>", ["<help@solarmora.com>"], text)
    assert quiet.recipients == [POSTMASTER, DEAD[1]]
    assert "new=<secret-crm@crm.example>" in quiet.log[0]
    assert "to=<secret-crm@crm.example>" in lab.postfix.log()
