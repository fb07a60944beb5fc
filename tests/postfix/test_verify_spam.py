"""``crm-milter verify --spam``: whether spam stays behind that a filter before ours marks."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from verifying import RULES, Screen, lab, mood, screen, shared

from crm_milter.trace.history import group_by_message
from crm_milter.trace.lines import Parser
from crm_milter.verify.outcome import Evidence, Expected, Proof, evaluate
from crm_milter.verify.probe import ServerReply
from lab.whole import Lab

__all__ = ["lab", "mood", "screen", "shared"]  # fixtures

START = """\
rule "support": <help@solarmora.com> goes to <support@crm.example>, copies to <team@solarmora.com>
this sends a real message that the filter should mark as spam;\
 if it reaches the CRM, a case is opened
sent      to SERVER as TOKEN
"""
LINE = "rerouted: to=<help@solarmora.com> new=<support@crm.example> rule=support copies=1"
NOT_PROVEN = """\
  many filters skip local clients and mynetworks: send through an outside server with --via
  or make the filter scan mail from this host (see spamass-milter -i, rspamd local_networks)
  the filter must come before crm-milter: crm-milter check --postfix
"""


def test_spam_stays_behind(screen: Screen, lab: Lab) -> None:
    status, text = screen("help@solarmora.com", "--spam")
    assert status == 0
    assert (
        text
        == START
        + """\
answer    250 2.0.0 Ok: queued as ID
milter    left: to=<help@solarmora.com> rule=support reason=spam
queue     <it@solarmora.com> for <help@solarmora.com>
delivery  to <it@solarmora.com> (for <help@solarmora.com>): sent, by SERVER: 250 2.0.0 taken
kept from the CRM: left: to=<help@solarmora.com> rule=support reason=spam;\
 it went to <it@solarmora.com> (sent)
"""
    )
    assert lab.sink.recipients == ["it@solarmora.com"]


def test_the_filter_refuses_it(screen: Screen, mood: Path) -> None:
    mood.write_text("refuse")
    status, text = screen("help@solarmora.com", "--spam")
    assert status == 1
    assert (
        text
        == START
        + """\
answer    554 5.7.1 Gtube pattern
rejected by the filter: 554 5.7.1 Gtube pattern
  the filter rejects this spam outright, so it cannot reach the CRM;\
 mail that the filter only marks was not tested
  have the filter mark a test line of your own and send it with --spam-line\
 (rspamd: enable_test_patterns)
"""
    )


def test_the_filter_passes_over_a_local_client(screen: Screen, mood: Path) -> None:
    mood.write_text("skip")
    status, text = screen("help@solarmora.com", "--spam")
    assert status == 1
    assert text.endswith(
        f"inconclusive: the filter gave no verdict to a local client: {LINE} verdict=none\n"
        f"{NOT_PROVEN}"
    )


def test_the_filter_takes_it_for_ham(screen: Screen) -> None:
    status, text = screen("help@solarmora.com", "--spam", "--spam-line", "nothing bad")
    assert status == 1
    assert text.endswith(f"""\
spam was rerouted: {LINE} verdict=ham
  the filter did not mark the test line as spam: is it the filter configured under "spam"?
""")


def test_silence_of_a_filter_that_marks_no_ham_proves_nothing() -> None:
    text = f"4bXq1Z: {LINE} verdict=ham\nNov 22 03:52:34 mx postfix/qmgr[1]: 4bXq1Z: removed"
    lines = map(Parser(datetime.now(UTC)).line, text.encode().splitlines())
    evidence = Evidence(
        ServerReply("message", 250, "queued as 4bXq1Z"), tuple(group_by_message(lines))
    )
    target = "support@crm.example"
    expected = Expected("help@solarmora.com", "support", (target,), (), marks_ham=False, spam=True)
    result = evaluate(expected, evidence, time_is_up=False)
    assert result is not None
    assert result.outcome is Proof.NO_VERDICT
    assert result.why == f"no verdict from the filter, which counts as ham: {LINE} verdict=ham"


@pytest.mark.parametrize(
    ("address", "end"),
    [
        (
            "refuse",
            "kept from the CRM: crm-milter rejected it, as on_spam requires:"
            " 550 5.7.1 message refused as spam\n",
        ),
        (
            "drop",
            "kept from the CRM: discarded: to=<drop@solarmora.com> rule=drop reason=spam;"
            " discarded, as on_spam requires\n",
        ),
        (
            "hold",
            "kept from the CRM: quarantined: to=<hold@solarmora.com> new=<case@crm.example>"
            " rule=hold copies=0 verdict=spam; it is on hold\n"
            "  postsuper -H releases the message (to the CRM as well); postsuper -d deletes it\n",
        ),
    ],
)
def test_on_spam(screen: Screen, lab: Lab, address: str, end: str) -> None:
    status, text = screen(f"{address}@solarmora.com", "--spam")
    assert status == 0
    assert text.endswith(end)
    assert lab.sink.received == []


def test_mode_test_proves_nothing_yet(screen: Screen) -> None:
    status, text = screen("trial@solarmora.com", "--spam")
    assert status == 1
    assert text.endswith("""\
test mode: nothing was changed: would_leave: to=<trial@solarmora.com> rule=trial reason=spam
  when set-up is complete, remove "mode: test" from rule "trial" and reload
""")


@pytest.mark.parametrize(
    ("address", "rules", "said"),
    [
        ("open", RULES, 'rule "open" bypasses the spam filter: it reroutes spam on purpose'),
        (
            "help",
            RULES.replace("spam: amavis", ""),
            'no spam filter is configured under "spam": all mail counts as ham',
        ),
    ],
)
def test_nothing_to_prove(screen: Screen, lab: Lab, address: str, rules: str, said: str) -> None:
    status, text = screen(f"{address}@solarmora.com", "--spam", text=rules)
    assert status == 1
    assert text.endswith(f"crm-milter: {said}\n")
    assert lab.sink.received == []
