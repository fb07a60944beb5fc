"""Lines of the mail log as each writer writes them, and messages put together from them."""

from datetime import UTC, datetime

import pytest

from crm_milter.routing.decision import Action, Outcome, Recipient
from crm_milter.routing.logline import outcome_line
from crm_milter.rules.rule import Copy, Rule
from crm_milter.spam.verdict import Judgement, Verdict
from crm_milter.trace.history import MessageHistory, group_by_message
from crm_milter.trace.lines import Line, Parser, decided, delivery, is_queue_id
from crm_milter.trace.search import since

NEWEST = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
LOCAL = NEWEST.astimezone().tzinfo


def parsed(text: str) -> Line:
    return Parser(NEWEST).line(text.encode())


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("Nov 22 03:52:34 mail postfix/qmgr[6278]: 171EB2103A4: removed", "qmgr"),
        ("Nov 22 03:52:34 mail postfix/submission/smtpd[6278]: 171EB2103A4: removed", "smtpd"),
        ("Nov 22 03:52:34 2001:db8::1 postfix-out/qmgr: 171EB2103A4: removed", "qmgr"),
        ("2026-11-22T03:52:34.123456+00:00 mail postfix/qmgr[6]: 171EB2103A4: removed", "qmgr"),
        ("2026-11-22T03:52:34Z mail postfix/qmgr[6]: 171EB2103A4: removed", "qmgr"),
        ("2026-11-22T03:52:34,5+0000 mail postfix/qmgr[6]: 171EB2103A4: removed", "qmgr"),
        ("2026-11-22T03:52:34.123456789Z stderr F 171EB2103A4: removed", ""),
        ("2026-11-22T03:52:34Z 171EB2103A4: removed", ""),
        ("Nov 22 03:52:34 171EB2103A4: removed", ""),
        ("<6>171EB2103A4: removed", ""),
        ("171EB2103A4: removed", ""),
        ("Nov 22 03:52:34 mail python3[6]: <6>171EB2103A4: removed", "python3"),
        ("Nov 22 03:52:34 mail postfix/qmgr[6]: 4bXq1Z0yzTz1mY: removed", "qmgr"),
    ],
)
def test_writers(text: str, program: str) -> None:
    line = parsed(text)
    assert (line.program, line.text) == (program, "removed")
    assert line.queue_id in ("171EB2103A4", "4bXq1Z0yzTz1mY")


@pytest.mark.parametrize(
    "text",
    [
        "Nov 22 03:52:34 mail postfix/smtpd[6]: warning: connect to Milter service unix:/x: gone",
        "Nov 22 03:52:34 mail postfix/smtpd[6]: NOQUEUE: reject: RCPT from x[192.0.2.1]: 550 no",
        "Nov 22 03:52:34 mail postfix/smtpd[6]: connect from 171EB2103A4: x[192.0.2.1]",
        "error: at RCPT: RuntimeError()",
        "serving 3 rules",
        "",
        "\x00\xff",
    ],
)
def test_lines_without_a_queue_id(text: str) -> None:
    assert parsed(text).queue_id == ""


def test_a_client_cannot_forge_a_line_of_ours() -> None:
    text = "4bXq1Z: message-id=<x>: 4bXq2Z: rerouted: to=<a@a.example> rule=x copies=0 verdict=ham"
    line = parsed(f"Nov 22 03:52:34 mail postfix/cleanup[6]: {text}")
    assert line.queue_id == "4bXq1Z"
    assert decided(line) is None


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        ("Nov 22 03:52:34", datetime(2026, 11, 22, 3, 52, 34, tzinfo=LOCAL)),
        ("Nov  2 03:52:34", datetime(2026, 11, 2, 3, 52, 34, tzinfo=LOCAL)),
        ("Dec 31 23:59:59", datetime(2025, 12, 31, 23, 59, 59, tzinfo=LOCAL)),
        ("Feb 29 00:00:00", datetime(2024, 2, 29, tzinfo=LOCAL)),
        ("Foo 22 03:52:34", None),
        ("2026-11-22T03:52:34+02:00", datetime(2026, 11, 22, 1, 52, 34, tzinfo=UTC)),
        ("2026-11-22 03:52:34", datetime(2026, 11, 22, 3, 52, 34, tzinfo=LOCAL)),
        ("2026-99-22T03:52:34Z", None),
    ],
)
def test_times(stamp: str, expected: datetime | None) -> None:
    time = parsed(f"{stamp} mail postfix/qmgr[6]: 171EB2103A4: removed").time
    assert (time and time.timestamp()) == (expected and expected.timestamp())


def test_delivery() -> None:
    words = "host mx.example[192.0.2.1] said: 451 4.3.0 <x> (later) (in reply to RCPT TO command)"
    line = Line(
        None,
        "smtp",
        "171EB2103A4",
        'to=<"a>b"@x.example>, orig_to=<team@x.example>, relay=mx.example[192.0.2.1]:25, delay=1,'
        f" delays=1/0/0/0, dsn=4.3.0, status=deferred ({words})",
    )
    found = delivery(line)
    assert found is not None
    assert found.failed
    assert (found.to, found.original) == ('"a>b"@x.example', "team@x.example")
    assert (found.relay, found.status, found.words) == (
        "mx.example[192.0.2.1]:25",
        "deferred",
        words,
    )


@pytest.mark.parametrize("action", Action)
@pytest.mark.parametrize("test", [False, True])
@pytest.mark.parametrize("targets", [(), ("a@crm.example",), ("a@crm.example", "b@crm.example")])
def test_every_line_that_we_write_is_understood(
    action: Action, test: bool, targets: tuple[str, ...]
) -> None:
    rule = Rule("support")
    recipient = Recipient("help@x.example", "help@x.example")
    outcome = Outcome(
        recipient, rule, action, targets=targets, copies=(Copy("c@x.example"),), test=test
    )
    text = outcome_line("4bXq1Z", outcome, Judgement(Verdict.HAM))
    found = decided(parsed(text))
    assert found is not None
    assert (found.action, found.to, found.rule) == (action.value, "help@x.example", "support")
    assert found.test is test
    assert text.startswith(f"4bXq1Z: {'would_' if test else action.value}")
    assert found.new in (targets, ())
    assert bool(found.new) is (" new=" in text)
    assert found.verdict == ("ham" if " verdict=" in text else "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("171EB2103A4", True),
        ("4bXq1Z0yzTz1mY", True),
        ("short", False),
        ("a b c d e f", False),
        ("x/../../etc", False),
    ],
)
def test_queue_ids(text: str, expected: bool) -> None:
    assert is_queue_id(text) is expected


def stories(*texts: str) -> list[MessageHistory]:
    return group_by_message(map(parsed, texts))


OURS = "171EB2103A4: rerouted: to=<help@x.example> new=<a@crm.example> rule=r copies=0 verdict=ham"


def postfix(second: int, text: str) -> str:
    return f"Nov 22 03:52:{second:02} mail postfix/smtpd[6]: 171EB2103A4: {text}"


@pytest.mark.parametrize("ours", [OURS, f"Nov 22 03:59:00 mail crm-milter[7]: {OURS}"])
def test_our_line_stands_before_what_follows_from_it(ours: str) -> None:
    """A line without a time, or from a clock that is ahead."""
    (journey,) = stories(
        ours,
        postfix(1, "client=x[192.0.2.1]"),
        postfix(1, "message-id=<1@x>"),
        postfix(1, "from=<a@a.example>, size=3, nrcpt=1 (queue active)"),
    )
    words = [line.text.split("=")[0].split(":")[0] for line in journey.lines]
    assert words == ["client", "message-id", "rerouted", "from"]


def test_our_line_in_a_file_and_in_the_journal_counts_once() -> None:
    (journey,) = stories(
        postfix(1, "client=x"), OURS, f"Nov 22 03:52:01 mail crm-milter[7]: {OURS}"
    )
    assert len(journey.decided) == 1


def test_a_queue_id_that_was_used_again_is_two_messages() -> None:
    again = OURS.replace("a@crm", "b@crm")
    first, second = stories(
        OURS,
        again,
        postfix(1, "client=x[192.0.2.1]"),
        postfix(2, "to=<a@crm.example>, relay=m[1]:25, delay=1, dsn=2.0.0, status=sent (ok)"),
        postfix(3, "removed"),
        postfix(4, "client=y[192.0.2.2]"),
        postfix(5, "to=<b@crm.example>, relay=m[1]:25, delay=1, dsn=2.0.0, status=sent (ok)"),
        postfix(6, "removed"),
    )
    assert [each.new for each in first.decided] == [("a@crm.example",)]
    assert [each.new for each in second.decided] == [("b@crm.example",)]


def test_a_message_that_was_given_up_is_not_the_next_one() -> None:
    assert len(stories(postfix(1, "client=x"), postfix(2, "client=y"), postfix(3, "removed"))) == 2


@pytest.mark.parametrize(
    ("texts", "held", "over"),
    [
        (["milter-hold: END-OF-MESSAGE from x[1]: quarantined"], True, False),
        (["milter-hold: END-OF-MESSAGE from x[1]: q", "released from hold"], False, False),
        (["placed on hold"], True, False),
        (["placed on hold", "removed"], False, True),
        (["milter-reject: END-OF-MESSAGE from x[1]: 5.7.1 no"], False, True),
        (["milter-discard: END-OF-MESSAGE from x[1]: milter triggers DISCARD"], False, True),
        (["client=x[1]"], False, False),
    ],
)
def test_where_it_is(texts: list[str], held: bool, over: bool) -> None:
    (journey,) = stories(*(postfix(n, text) for n, text in enumerate(texts)))
    assert (journey.is_held, journey.is_finished) == (held, over)


@pytest.mark.parametrize("text", ["30m", "2h", "3d", "1w", "today", "yesterday", "2026-11-01"])
def test_since(text: str) -> None:
    assert since(text) <= datetime.now(UTC)


@pytest.mark.parametrize("text", ["", "soon", "2x", "999999w", "2026-13-01"])
def test_since_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"invalid time .*; expected"):
        since(text)
