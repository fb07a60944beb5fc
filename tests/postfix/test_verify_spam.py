"""``crm-milter verify --spam``: whether spam stays behind that a filter before ours marks."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from verifying import RULES, Screen, lab, mood, screen, shared

from crm_milter.journey import journeys
from crm_milter.maillog import Parser
from crm_milter.probe import Reply
from crm_milter.proof import Evidence, Expected, Outcome, judge
from lab.whole import Lab

__all__ = ["lab", "mood", "screen", "shared"]  # fixtures

START = """\
rule "support": <help@solarmora.com> goes to <support@crm.example>, copies to <team@solarmora.com>
a real mail is sent that the filter takes for spam; a CRM that gets it opens a case
sent      to SERVER as TOKEN
"""
LINE = "rerouted: to=<help@solarmora.com> new=<support@crm.example> rule=support copies=1"
NOT_PROVEN = """\
  many filters pass over local clients and mynetworks: ask from outside with --via
  or let the filter look at this one (spamass-milter -i, rspamd local_networks)
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
stayed behind: left: to=<help@solarmora.com> rule=support reason=spam;\
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
the filter refused it: 554 5.7.1 Gtube pattern
  such spam never comes near the CRM, but what the filter only marks is not proven by it
  make it mark a line of yours and send that with --spam-line; rspamd has enable_test_patterns
"""
    )


def test_the_filter_passes_over_a_local_client(screen: Screen, mood: Path) -> None:
    mood.write_text("skip")
    status, text = screen("help@solarmora.com", "--spam")
    assert status == 1
    assert text.endswith(
        f"not proven: the filter gave no verdict to a local client: {LINE} spam=none\n{NOT_PROVEN}"
    )


def test_the_filter_takes_it_for_ham(screen: Screen) -> None:
    status, text = screen("help@solarmora.com", "--spam", "--spam-line", "nothing bad")
    assert status == 1
    assert text.endswith(f"""\
spam was rerouted: {LINE} spam=ham
  the filter takes the line for ham: is it the filter that the file names?
""")


def test_silence_of_a_filter_that_marks_no_ham_proves_nothing() -> None:
    text = f"4bXq1Z: {LINE} spam=ham\nNov 22 03:52:34 mx postfix/qmgr[1]: 4bXq1Z: removed"
    lines = map(Parser(datetime.now(UTC)).line, text.encode().splitlines())
    evidence = Evidence(Reply("message", 250, "queued as 4bXq1Z"), tuple(journeys(lines)))
    target = "support@crm.example"
    expected = Expected("help@solarmora.com", "support", (target,), (), marks_ham=False, spam=True)
    result = judge(expected, evidence, time_is_up=False)
    assert result is not None
    assert result.outcome is Outcome.NO_VERDICT
    assert result.why == f"the filter said nothing, which counts as ham: {LINE} spam=ham"


@pytest.mark.parametrize(
    ("address", "end"),
    [
        (
            "refuse",
            "stayed behind: the milter refused it, as on_spam says: 550 5.7.1 message refused as"
            " spam\n",
        ),
        (
            "drop",
            "stayed behind: discarded: to=<drop@solarmora.com> rule=drop reason=spam;"
            " it was discarded, as on_spam says\n",
        ),
        (
            "hold",
            "stayed behind: quarantined: to=<hold@solarmora.com> new=<case@crm.example> rule=hold"
            " copies=0 spam=spam; it is on hold\n"
            "  postsuper -d deletes what is on hold;"
            " postsuper -H sends it on, to the CRM as well\n",
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
mode test: nothing was done, it would have been left: to=<trial@solarmora.com> rule=trial\
 reason=spam
  once all is set up, take "mode: test" away from rule "trial"
""")


@pytest.mark.parametrize(
    ("address", "rules", "said"),
    [
        ("open", RULES, 'rule "open" bypasses the spam filter: it reroutes spam on purpose'),
        (
            "help",
            RULES.replace("spam: amavis", ""),
            'no spam filter is named under "spam": all mail counts as ham',
        ),
    ],
)
def test_nothing_to_prove(screen: Screen, lab: Lab, address: str, rules: str, said: str) -> None:
    status, text = screen(f"{address}@solarmora.com", "--spam", text=rules)
    assert status == 1
    assert text.endswith(f"crm-milter: {said}\n")
    assert lab.sink.received == []
