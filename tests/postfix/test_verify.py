"""``crm-milter verify`` against a real Postfix, a spam filter before ours: every outcome.

The whole screen is compared, with what differs from run to run replaced by a word.
"""

import io
import re
import sys
from pathlib import Path

import pytest
from verifying import (
    GONE,
    MORE_RULES,
    OTHER_TARGET,
    RULES,
    Screen,
    lab,
    mood,
    screen,
    shared,
    shown,
)

from crm_milter.cli import main as cli
from lab.whole import Lab

__all__ = ["lab", "mood", "screen", "shared"]  # fixtures

START = """\
rule "support": <help@solarmora.com> goes to <support@crm.example>, copies to <team@solarmora.com>
this sends a real message: <support@crm.example> will open a case
sent      to SERVER as TOKEN
"""
TAKEN = """\
answer    250 2.0.0 Ok: queued as ID
milter    rerouted: to=<help@solarmora.com> new=<support@crm.example> rule=support copies=1\
 verdict=ham
"""
REFUSED = "host 127.0.0.1[127.0.0.1] said: 550 5.1.1 no such address (in reply to RCPT TO command)"
UNSEEN = """\
answer    250 2.0.0 Ok: queued as ID
milter    nothing logged
queue     <it@solarmora.com> for <help@solarmora.com>
delivery  to <it@solarmora.com> (for <help@solarmora.com>): sent, by SERVER: 250 2.0.0 taken
"""


def test_arrived(screen: Screen, lab: Lab) -> None:
    status, text = screen("help@solarmora.com")
    assert text.startswith(START + TAKEN)
    lines = set(text.removeprefix(START + TAKEN).splitlines())
    assert {
        "delivery  to <support@crm.example>: sent, by SERVER: 250 2.0.0 taken",
        "delivery  to <bob@solarmora.com> (for <team@solarmora.com>): sent, by SERVER:"
        " 250 2.0.0 taken",
        "arrived: <support@crm.example>: 250 2.0.0 taken",
    } <= lines
    assert any(
        line.startswith("queue ") and line.endswith(" instead of <help@solarmora.com>")
        for line in lines
    )
    assert status == 0
    assert lab.sink.recipients == ["bob@solarmora.com", "support@crm.example"]


def test_each_probe_has_a_token_of_its_own(screen: Screen, lab: Lab) -> None:
    for _ in range(2):
        screen("info@solarmora.com")
    tokens = re.findall(
        rb"Subject: test message (\S+)", b"".join(each.data for each in lab.sink.received)
    )
    assert len(tokens) == 4
    assert len(set(tokens)) == 2


def test_deferred_since_the_crm_is_down(screen: Screen) -> None:
    assert screen("dead@solarmora.com") == (
        1,
        """\
rule "dead": <dead@solarmora.com> goes to <case@dead.example>
this sends a real message: <case@dead.example> will open a case
sent      to SERVER as TOKEN
answer    250 2.0.0 Ok: queued as ID
milter    rerouted: to=<dead@solarmora.com> new=<case@dead.example> rule=dead copies=0 verdict=ham
queue     <case@dead.example> instead of <dead@solarmora.com>
delivery  to <case@dead.example>: deferred: connect to 127.0.0.1[127.0.0.1]:1: Connection refused
deferred: <case@dead.example>: connect to 127.0.0.1[127.0.0.1]:1: Connection refused
  the CRM's server does not answer: is outbound port 25 open?
  Postfix will retry; follow it with crm-milter trace --failing
""",
    )


def test_bounced_since_the_crm_refuses(screen: Screen, lab: Lab) -> None:
    lab.sink.refuse("support@crm.example")
    status, text = screen("help@solarmora.com")
    assert status == 1
    assert f"delivery  to <support@crm.example>: bounced, by SERVER: {REFUSED}\n" in text
    assert text.endswith(f"""\
bounced: <support@crm.example>: {REFUSED}
  compare replace_with, character by character, with the address shown in the CRM
""")


def test_a_copy_that_is_refused_is_no_success(screen: Screen, lab: Lab) -> None:
    lab.sink.refuse("bob@solarmora.com")
    status, text = screen("help@solarmora.com")
    assert status == 1
    assert text.endswith(f"""\
copy failed: the CRM has it, but a copy failed: bounced: <bob@solarmora.com>: {REFUSED}
  check the address in the rule's also_deliver_to: is it correct, and does it accept mail?
""")


def test_not_rerouted_since_no_milter_is_attached(screen: Screen) -> None:
    status, text = screen("help@solarmora.com", service="bare")
    assert status == 1
    assert (
        text
        == START
        + UNSEEN
        + """\
not rerouted: crm-milter logged nothing about it; it went to <it@solarmora.com> (sent)
  is crm-milter running? systemctl status crm-milter
  is it attached to the smtpd that accepted the message? crm-milter check --postfix
  has it loaded the current rules? systemctl reload crm-milter
  is its log being read? see --log
"""
    )


def test_not_rerouted_since_the_milter_has_not_read_the_rule(screen: Screen) -> None:
    status, text = screen("new@solarmora.com", text=MORE_RULES)
    assert status == 1
    assert "\nnot rerouted: crm-milter logged nothing about it; it went to" in text
    assert "\n  has it loaded the current rules? systemctl reload crm-milter\n" in text


def test_not_rerouted_since_the_milter_has_other_rules(screen: Screen) -> None:
    status, text = screen("help@solarmora.com", text=OTHER_TARGET)
    assert status == 1
    assert text.endswith("""\
not rerouted: crm-milter logged: rerouted: to=<help@solarmora.com> new=<support@crm.example>\
 rule=support copies=1 verdict=ham
  the running milter uses different rules from the file: systemctl reload crm-milter
""")


def test_an_alias_to_the_crm_is_not_our_doing(screen: Screen) -> None:
    status, text = screen("alias@solarmora.com", service="bare")
    assert status == 1
    assert text.endswith("""\
not rerouted: a Postfix alias sent it to <support@crm.example>; crm-milter did not
  remove that alias; "crm-milter map" prints the entries that belong there
""")


def test_nothing_is_sent_without_a_rule(screen: Screen, lab: Lab) -> None:
    assert screen("new@solarmora.com") == (
        1,
        "crm-milter: no rule matches <new@solarmora.com> from <postmaster@mail.lab.example>;"
        ' "crm-milter explain" shows why\n',
    )
    assert lab.sink.received == []


def test_postfix_refuses_the_address(screen: Screen) -> None:
    status, text = screen("help@solarmora.com", service="closed")
    assert status == 1
    assert (
        text
        == START
        + """\
answer    554 5.7.1 <help@solarmora.com>: Recipient address rejected: Access denied
refused: at RCPT: 554 5.7.1 <help@solarmora.com>: Recipient address rejected: Access denied
  Postfix does not accept the address: crm-milter check --postfix says why
"""
    )


def test_no_mail_server(screen: Screen) -> None:
    status, text = screen("help@solarmora.com", "--via", "127.0.0.1:1")
    assert status == 1
    assert (
        text
        == START.replace("SERVER", "127.0.0.1:1")
        + """\
answer    no answer from 127.0.0.1:1: connection refused
refused: at connect: no answer from 127.0.0.1:1: connection refused
  is Postfix running, and is --via its address?
"""
    )


DOWN = f"milter: {{listen: 'unix:{GONE}'}}\n" + RULES
COMPLAINT = f"milter down: connect to Milter service unix:{GONE}: No such file or directory; "


def test_milter_down(screen: Screen) -> None:
    status, text = screen("help@solarmora.com", service="down", text=DOWN)
    assert status == 1
    assert (
        text
        == START
        + f"""\
answer    451 4.7.1 Service unavailable - try again later
{COMPLAINT}451 4.7.1 Service unavailable - try again later
  is crm-milter running? systemctl status crm-milter
"""
    )


def test_milter_down_and_postfix_goes_on_without_it(screen: Screen) -> None:
    status, text = screen("help@solarmora.com", service="down-accept", text=DOWN)
    assert status == 1
    assert (
        text
        == START
        + UNSEEN
        + f"""\
{COMPLAINT}it went to <it@solarmora.com> (sent)
  is crm-milter running? systemctl status crm-milter
"""
    )


def test_mode_test(screen: Screen, lab: Lab) -> None:
    assert screen("trial@solarmora.com") == (
        1,
        """\
rule "trial": <trial@solarmora.com> goes to <case@crm.example>
this sends a real message; in test mode it is delivered as if crm-milter were not there
sent      to SERVER as TOKEN
answer    250 2.0.0 Ok: queued as ID
milter    would_reroute: to=<trial@solarmora.com> new=<case@crm.example> rule=trial copies=0\
 verdict=ham
queue     <it@solarmora.com> for <trial@solarmora.com>
delivery  to <it@solarmora.com> (for <trial@solarmora.com>): sent, by SERVER: 250 2.0.0 taken
test mode: nothing was changed: would_reroute: to=<trial@solarmora.com>\
 new=<case@crm.example> rule=trial copies=0 verdict=ham
  when set-up is complete, remove "mode: test" from rule "trial" and reload
""",
    )
    assert lab.sink.recipients == ["it@solarmora.com"]


def test_a_rule_that_only_copies(screen: Screen) -> None:
    status, text = screen("info@solarmora.com")
    assert status == 0
    assert text.startswith("""\
rule "copies": <info@solarmora.com> stays, copies to <archive@crm.example>
this sends a real message: <archive@crm.example> will open a case
""")
    assert text.endswith("arrived: <archive@crm.example>: 250 2.0.0 taken\n")


def test_the_wrong_log(screen: Screen, lab: Lab, tmp_path: Path) -> None:
    """Nothing is sent: the CRM would open a case, and nobody could tell."""
    (tmp_path / "empty").touch()
    status, text = screen("help@solarmora.com", "--log", str(tmp_path / "empty"), log=False)
    assert status == 1
    assert "crm-milter: nothing was sent: the session with SERVER is not in " in text
    assert "sent      to" not in text
    assert lab.sink.received == []


def test_without_the_log_of_the_milter_it_arrives_all_the_same(screen: Screen, lab: Lab) -> None:
    log = str(lab.postfix.maillog.path)
    status, text = screen("help@solarmora.com", "--log", log, log=False)
    assert status == 0
    assert text.endswith("""\
arrived: <support@crm.example>: 250 2.0.0 taken
  crm-milter's own log line was not found: is its log being read? see --log
""")


def test_the_log_is_found_by_itself(screen: Screen) -> None:
    assert screen("help@solarmora.com", log=False)[0] == 0


def test_nobody_to_ask(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["verify", "help@solarmora.com", "--config", str(lab.milter.config)]
    assert cli.main([*arguments, "--config-directory", str(lab.postfix.config)]) == 2
    assert (
        shown(capsys.readouterr().err)
        == "crm-milter: standard input is not a terminal: use --yes to send without asking\n"
    )


@pytest.mark.parametrize(("answer", "status"), [("y\n", 1), ("\n", 2), ("no\n", 2)])
def test_it_asks(lab: Lab, monkeypatch: pytest.MonkeyPatch, answer: str, status: int) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    arguments = ["verify", "help@solarmora.com", "--config", str(lab.milter.config)]
    log = ["--log", str(lab.postfix.maillog.path), "--via", "127.0.0.1:1"]
    assert cli.main([*arguments, *log]) == status
