"""pause and resume under the running milter: at once, for a while, and never lost."""

import json
import os
import re
import time

import pytest
from mta import Mta
from serving import Serve
from serving import run as run_plain

HAM = [("X-Spam", "no")]
CONFIG = """
unrouted_to: it@solarmora.com
spam: rspamd
rules:
  - name: support
    match: [help@solarmora.com, info@solarmora.com]
    replace_with: support@crm.example
    also_deliver_to: team@solarmora.com
  - {name: sales, match: sales@solarmora.com, replace_with: sales@crm.example}
"""


@pytest.fixture
def milter(monkeypatch):
    made = Serve(CONFIG)
    state = made.folder / "state"
    state.mkdir()
    monkeypatch.setenv("STATE_DIRECTORY", str(state))
    made.state = state
    with made:
        yield made


def run(milter, *arguments):
    return run_plain(*arguments, "--config", milter.config)


def send(milter, *recipients, port=4321, fields=HAM):
    with Mta(milter.address) as mta:
        mta.connect("localhost", "127.0.0.1", port)
        typed = [
            f"<{each}@solarmora.com>" if port else f"{each}@solarmora.com" for each in recipients
        ]
        result = mta.message(typed, fields, "<joe@x.example>" if port else "joe@x.example")
    kinds = {edit[0] for edit in result.edits}
    return "held" if "hold" in kinds else "routed" if "add" in kinds else "left"


def test_paused_mail_is_left_at_once_and_routed_again_at_once(milter):
    assert send(milter, "help") == "routed"
    done = run(milter, "pause", "support", "--for", "2h", "--why", "CRM is  down")
    assert re.fullmatch(r"support: paused until \S+ \S+, mail is left\n", done.stdout), done.stderr
    for _ in range(8):
        assert send(milter, "help") == "left"
        assert send(milter, "sales") == "routed"
    milter.log.wait(r"left: to=<help@solarmora\.com> rule=support reason=paused")
    milter.log.wait(
        r'warning: rule "support" is paused until \S+ \S+ \(CRM is down\): its mail is left'
    )
    assert "paused until" in run(milter, "rules").stdout.splitlines()[1]
    listed = json.loads(run(milter, "rules", "--json").stdout)
    assert [bool(each["paused_until"]) for each in listed] == [True, False]
    done = run(milter, "resume", "support")
    assert (done.returncode, done.stdout) == (0, "support: resumed\n")
    for _ in range(8):
        assert send(milter, "help") == "routed"
    milter.log.wait('the pause of rule "support" has ended')


def test_it_ends_by_itself_and_survives_a_restart(milter):
    assert run(milter, "pause", "support", "--for", "4s").returncode == 0
    milter.kill()
    milter.start().log.wait("(?s)serving 2 rules.*serving 2 rules", 20)
    assert send(milter, "help") == "left"
    deadline = time.monotonic() + 10
    while send(milter, "help") == "left" and time.monotonic() < deadline:
        time.sleep(0.2)
    assert send(milter, "help") == "routed"
    milter.log.wait('the pause of rule "support" has ended')
    assert run(milter, "resume", "support").returncode == 1


def test_mail_is_held_only_if_all_recipients_come_to_it_and_only_by_smtp(milter):
    assert run(milter, "pause", "support", "--for", "1h", "--hold").returncode == 0
    assert send(milter, "help") == "held"
    assert send(milter, "help", "info") == "held"
    assert send(milter, "help", "anna") == "left"
    assert send(milter, "help", "sales") == "routed"  # sales alone
    assert send(milter, "help", port=0) == "left"
    assert send(milter, "help", fields=[("X-Spam", "yes")]) == "left"
    milter.log.wait(r"quarantined: to=<help@solarmora\.com> .*rule=support.* reason=paused")
    assert len((milter.state / "held.support").read_text().splitlines()) >= 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("pause", "suport", "--for", "1h"), 'did you mean "support"'),
        (("resume", "support"), 'rule "support" is not paused'),
    ],
)
def test_what_is_refused(milter, arguments, words):
    done = run(milter, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert words in done.stderr


@pytest.mark.parametrize(
    "text", ["rules: [", f"{CONFIG}  - {{name: sales, match: x@y.example, replace_with: z@q.w}}\n"]
)
def test_a_rule_in_force_can_be_paused_while_the_file_is_invalid(milter, text):
    milter.config.write_text(text)
    done = run(milter, "pause", "support", "--for", "1h")
    assert done.returncode == 0, done.stderr
    assert 'is invalid; whether there is a rule "support" is not known' in done.stderr
    assert send(milter, "help") == "left"
    for name in ("../support", "Support", "a b", "sup*"):
        assert run(milter, "pause", name, "--for", "1h").returncode == 78
    assert run(milter, "resume", "support").returncode == 0
    assert send(milter, "help") == "routed"
    milter.config.unlink()
    assert run(milter, "pause", "support", "--for", "1h").returncode == 78


@pytest.mark.parametrize("span", ["", "0", "-1h", "2 weeks", "31d", "1.5h", "h", "99999999999999"])
def test_a_time_that_is_none(milter, span):
    assert run(milter, "pause", "support", f"--for={span}").returncode == 2
    assert not (milter.state / "paused.json").exists()


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[]", '{"support": 1}', '{"support": [1]}', "null"]
)
def test_a_file_that_makes_no_sense_pauses_nothing(milter, text):
    (milter.state / "paused.json").write_text(text)
    time.sleep(0.5)
    assert send(milter, "help") == "routed"
    assert run(milter, "pause", "support", "--for", "1h").returncode == 0
    assert send(milter, "help") == "left"


def test_explain_knows_and_a_directory_that_cannot_be_written_is_named(milter, monkeypatch):
    assert run(milter, "pause", "support", "--for", "1h").returncode == 0
    (milter.folder / "mail").write_text("X-Spam: no\n\nx\n")
    mail = ("--from", "joe@x.example", "--to", "help@solarmora.com", milter.folder / "mail")
    assert "reason=paused" in run(milter, "explain", *mail).stdout
    monkeypatch.setenv("STATE_DIRECTORY", str(milter.folder / "nowhere"))
    done = run(milter, "pause", "support", "--for", "1h")
    assert done.returncode == 1
    assert f"cannot write in {milter.folder}/nowhere, the state directory" in done.stderr
    assert os.environ["STATE_DIRECTORY"]
