"""replay: what old mail comes to, by the daemon's own decision, and the lines to write."""

import gzip
import json
import os
import pty
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from crm_milter.cli.main import main
from crm_milter.config.load import parse

CRM = "support@id.1abc.na1.case.salesforce.com"
CONFIG = f"""
unrouted_to: it@solarmora.com
spam: spamassassin
rules:
  - {{name: trial, match: help@solarmora.com, replace_with: t@crm.example, mode: test}}
  - {{name: vip, match: help@solarmora.com, senders: "@big.example", replace_with: v@crm.example}}
  - {{name: support, match: help@solarmora.com, replace_with: {CRM}}}
  - {{name: cases, match: "case-*@solarmora.com", also_deliver_to: c@crm.example}}
"""


def message(*fields: str, day: int = 2, second: int = 0, size: int = 0, **known: str) -> bytes:
    """A message of old as Postfix delivered it; `known` are sender, to, name."""
    sender, to = known.get("sender", "joe@x.example"), known.get("to", "help@solarmora.com")
    lines = [
        f"From {sender} Fri Jan {day} 09:{second // 60:02}:{second % 60:02} 2026",
        f"Return-Path: <{sender}>",
        f"X-Original-To: {to}",
        f"Message-ID: <{known.get('name', f'{day}.{second}.{size}')}@x.example>",
        *fields,
        "",
        "x" * size,
        "",
        "",
    ]
    return "\n".join(lines).encode()


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Replay messages; return what was printed, status and diagnostics asserted."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "crm-milter.yaml").write_text(CONFIG)

    def run(*mail: bytes, options: tuple[str, ...] = ()) -> str:
        Path("box").write_bytes(b"".join(mail))
        status = main(["replay", "--config", "crm-milter.yaml", *options, "box"])
        out, err = capsys.readouterr()
        assert (status, [line for line in err.splitlines() if "warning" not in line]) == (0, [])
        return out

    return run


def of_rule(out: str, name: str) -> dict:
    return next(each for each in json.loads(out)["rules"] if each["rule"] == name)


def test_what_becomes_of_each_rule(run):
    mail = [
        message(),
        message(second=1, sender="anna@big.example"),
        message("X-Spam-Flag: YES", second=2),
        message(second=3, sender=CRM),
        message(second=4, to="case-7@solarmora.com"),
        message(second=5, to="anna@solarmora.com"),
    ]
    out = run(*mail, options=("--json",))
    found = json.loads(out)
    assert (found["messages"], found["matched"], found["recipient_guessed"]) == (6, 5, 0)
    assert of_rule(out, "trial")["actions"] == {"would_reroute": 3, "would_leave": 1}
    assert of_rule(out, "vip")["actions"] == {"rerouted": 1}
    assert of_rule(out, "support")["actions"] == {"rerouted": 1, "left": 2}
    assert of_rule(out, "support")["reasons"] == {"spam": 1, "loop": 1}
    assert of_rule(out, "cases")["actions"] == {"copied": 1}


def test_a_marker_of_old_is_no_loop(run):
    mail = message("X-CRM-Milter: 0123456789abcdef")
    assert of_rule(run(mail, options=("--json",)), "support")["actions"] == {"rerouted": 1}


def test_recipients_that_only_the_header_names(run):
    old = message("To: Help <help@solarmora.com>, x@y.example", to="it@solarmora.com")
    out = run(old, options=("--verbose",))
    assert "box:1: from=<joe@x.example> to=<help@solarmora.com> (from To or Cc)" in out
    assert "1 message, 2026-01-02 to 2026-01-02; rules match 1 of them (1 by To or Cc)" in out
    out = run(message(to="it@solarmora.com"), options=("--verbose",))
    assert "box:1: from=<joe@x.example> to=<it@solarmora.com>\n  no rule matches" in out


def test_each_message_in_the_words_of_the_log(run):
    out = run(message("X-Spam-Flag: YES"), options=("--verbose",))
    assert out.splitlines()[:3] == [
        "box:1: from=<joe@x.example> to=<help@solarmora.com>",
        "  would_leave: to=<help@solarmora.com> rule=trial reason=spam",
        "  left: to=<help@solarmora.com> rule=support reason=spam",
    ]


def test_automatic_mail_forgeries_and_duplicates(run):
    mail = [
        message("Auto-Submitted: auto-replied", second=1),
        message(second=2, sender=""),
        message("List-Id: <a.example>", "Precedence: list", second=3),
        message(
            "Authentication-Results: mx.solarmora.com; spf=pass;\n dmarc=fail (p=none)", second=4
        ),
        message(
            "Authentication-Results: mx; dmarc=pass",
            "Authentication-Results: y; dmarc=fail",
            second=5,
        ),
        message("Subject: dmarc=fail", second=6, name="same"),
        message(second=7, name="same"),
        message(second=8, name="same", sender="x@big.example"),
    ]
    out = run(*mail, options=("--json",))
    support = of_rule(out, "support")
    assert support["automatic"] == 3
    assert support["automatic_by_class"] == {"reply": 1, "bounce": 1, "list": 1}
    assert (support["dmarc_failures"], support["duplicates"]) == (1, 1)
    assert of_rule(out, "vip")["duplicates"] == 0


def test_the_peak_of_each_sender(run):
    burst = [message(second=n, sender="monitor@x.example") for n in range(0, 90, 2)]
    mail = [*burst, message(second=91), message(second=92), message(day=3), message(day=1)]
    out = run(*mail, options=("--json",))
    peaks = {
        (each["sender"], each["seconds"]): each["messages"]
        for each in of_rule(out, "support")["peaks"]
    }
    assert peaks == {
        ("monitor@x.example", 60): 30,
        ("joe@x.example", 60): 2,
        ("monitor@x.example", 3600): 45,
        ("joe@x.example", 3600): 2,
    }


def test_the_lines_to_write_are_a_valid_rule(run, tmp_path):
    burst = [message(second=n, sender="monitor@x.example") for n in range(60)]
    mail = [*burst, message("Auto-Submitted: auto-replied"), message(size=27 << 20)]
    out = run(*mail)
    _, _, lines = out.partition("Lines to write:\n")[2].partition("  - name: support\n")
    assert "max_size: 25M  # Salesforce rejects larger ones; the biggest had 27.0M" in lines
    assert "automatic: {reply: leave}  # 1 reply of 62" in lines
    assert "flood: auto  # <monitor@x.example> sent 60 in 60s; Salesforce takes 15" in lines
    assert "most in 60s (Salesforce takes 15): 60 <monitor@x.example>, 2 <joe@x.example>" in out
    unknown = "flood: {limit: 10 in 60s, per: sender, then: leave}"
    assert f"{unknown}  # <monitor@x.example> sent 60 in 60s, the others at most 2" in out
    written = [line.split("  #")[0] for line in lines.splitlines() if line.startswith("    ")]
    rule = "\n".join(
        ["  - name: support", "    match: help@solarmora.com", f"    replace_with: {CRM}", *written]
    )
    config = parse(f"spam: rspamd\nrules:\n{rule}\n", tmp_path / "x.yaml")
    assert config.policy.table.rules[0].max_size == 25 << 20
    assert config.policy.table.rules[0].flood.limit.count == 10  # two thirds of 15
    # Nothing is said twice.
    Path("crm-milter.yaml").write_text(f"spam: rspamd\nrules:\n{rule}\n")
    assert "Lines to write" not in run(*mail)


def test_the_crm_of_targets_that_only_a_message_gives(run, tmp_path):
    run()
    (tmp_path / "t.csv").write_text(f"help@solarmora.com,{CRM}\n")
    assert main(["load", "t.csv", "t.db"]) == 0
    rule = "rules: [{name: tenants, address_map: 'sqlite:t.db'}]\n"
    Path("crm-milter.yaml").write_text(f"spam: rspamd\nunrouted_to: it@solarmora.com\n{rule}")
    assert "rule tenants (Salesforce): 1 rerouted" in run(message())


def test_against_the_rules_of_before(run, tmp_path):
    old = CONFIG.replace("v@crm.example", "old@crm.example").replace('"case-*@', '"ticket-*@')
    (tmp_path / "old.yaml").write_text(old)
    mail = [
        message(),
        message(second=1, sender="anna@big.example"),
        message(second=2, to="case-7@solarmora.com"),
        message(second=3, to="ticket-7@solarmora.com"),
        message("X-Spam-Flag: YES", second=4),
    ]
    out = run(*mail, options=("--against", "old.yaml"))
    assert out.partition("Changed since")[2].splitlines() == [
        " old.yaml: 3",
        "box:2: to=<help@solarmora.com>",
        "  - rerouted rule=vip new=<old@crm.example>",
        "  + rerouted rule=vip new=<v@crm.example>",
        "box:3: to=<case-7@solarmora.com>",
        "  - not matched",
        "  + copied rule=cases copy=<c@crm.example>",
        "box:4: to=<ticket-7@solarmora.com>",
        "  - copied rule=cases copy=<c@crm.example>",
        "  + not matched",
    ]
    found = json.loads(run(*mail, options=("--against", "old.yaml", "--json")))
    assert (found["changed"], found["changes"][0]["where"]) == (3, "box:2")


def test_the_plot(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("crm-milter.yaml").write_text(CONFIG)
    Path("box").write_bytes(b"".join(message(second=n) for n in range(30)))
    assert main(["replay", "--config", "crm-milter.yaml", "--plot", "rates.png", "box"]) == 0
    out, err = capsys.readouterr()
    if find_spec("matplotlib"):
        assert Path("rates.png").read_bytes().startswith(b"\x89PNG")
        assert (
            main(["replay", "--config", "crm-milter.yaml", "--plot", "/nowhere/x.png", "box"]) == 1
        )
    else:
        assert "matplotlib is not installed" in err
        assert f"09  {'#' * 50}      30.0     30" in out


def test_what_cannot_be_read(run, tmp_path, capsys):
    run()
    for name, why in (("nowhere", "no such file or directory"), (".", "neither cur nor new")):
        assert main(["replay", "--config", "crm-milter.yaml", name]) == 1
        assert why in capsys.readouterr().err
    assert main(["replay", "--config", "crm-milter.yaml", "--against", "nowhere.yaml", "box"]) == 78


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n" * 99,
        b"just text\n",
        b"\0" * 5000,
        b"unrouted_to: it@solarmora.com\nspam: rspamd\n",  # a configuration, not a header
        b'{"from": "joe@x.example"}',
        b"<html>\n<p>Subject: x</p>",
        gzip.compress(b"just text\n", mtime=0),
        gzip.compress(message(), mtime=0)[:30],
        b"\x1f\x8bnonsense",
    ],
)
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_garbage_is_no_mailbox(run, capsys, data, options):
    run()
    Path("garbage").write_bytes(data)
    assert main(["replay", "--config", "crm-milter.yaml", *options, "garbage"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1] == (
        "crm-milter: no message in garbage; expected mbox files, Maildirs or messages with their"
        " header"
    )


def test_garbage_among_mailboxes_is_said_and_left_out(run, tmp_path, capsys):
    run()
    (tmp_path / "a.mbox").write_bytes(message())
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n")
    assert main(["replay", "--config", "crm-milter.yaml", "a.mbox", "b.png"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("1 message")
    assert err.splitlines()[-1] == "crm-milter: b.png: neither a mailbox nor a message"


def test_an_empty_mailbox_has_no_messages(run):
    assert run().startswith("0 messages; rules match 0 of them")


def test_several_mailboxes_and_a_pipe(run, tmp_path):
    run()
    (tmp_path / "a.mbox").write_bytes(message())
    command = [sys.executable, "-m", "crm_milter.cli.main", "replay", "--config", "crm-milter.yaml"]
    done = subprocess.run(
        [*command, "a.mbox", "-"], input=message(second=1) * 3, capture_output=True, check=True
    )
    assert b"4 messages, 2026-01-02 to 2026-01-02; rules match 4 of them" in done.stdout


def test_a_reader_that_goes_away_is_one_line(run, tmp_path):
    run(*(message(second=n) for n in range(60)), *(message(day=3, second=n) for n in range(600)))
    command = (
        f"{sys.executable} -m crm_milter.cli.main replay --config crm-milter.yaml --verbose box"
    )
    done = subprocess.run(
        f"{command} | head -1", shell=True, capture_output=True, text=True, check=True
    )
    assert [line for line in done.stderr.splitlines() if "warning" not in line] == [
        "crm-milter: cannot write to standard output: broken pipe"
    ]


def test_a_terminal_gets_a_bar_and_a_pipe_does_not(run, tmp_path):
    run(*(message(second=n, size=20_000) for n in range(5000)))
    command = [
        sys.executable,
        "-m",
        "crm_milter.cli.main",
        "replay",
        "--config",
        "crm-milter.yaml",
        "box",
    ]
    leader, terminal = pty.openpty()
    subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, check=True)
    shown = os.read(leader, 1 << 16)
    os.close(leader)
    os.close(terminal)
    assert b" messages\x1b[K" in shown
    done = subprocess.run(command, capture_output=True, check=True)
    assert b"\x1b" not in done.stderr + done.stdout


def test_the_limit_of_a_crm_that_counts_for_longer(run):
    Path("crm-milter.yaml").write_text(CONFIG.replace(CRM, "help@acme.freshdesk.com"))
    mail = [message(second=30 * n) for n in range(51)]  # freshdesk.com: 50 in 30 minutes
    out = run(*mail)
    assert "  most in 1800s (Freshdesk takes 50): 51 <joe@x.example>" in out
    assert "    flood: auto  # <joe@x.example> sent 51 in 1800s; Freshdesk takes 50" in out
    assert "flood: auto" not in run(*mail[:50])


def test_the_flood_limit_of_a_rule_at_the_times_of_the_messages(run):
    limit = "flood: {limit: 10 in 60s, per: sender, then: leave}"
    Path("crm-milter.yaml").write_text(CONFIG.replace(f"{CRM}}}", f"{CRM}, {limit}}}"))
    burst = [message(second=n, sender="monitor@x.example") for n in range(30)]
    slow = [message(second=60 + 6 * n) for n in range(20)]
    again = [message(day=1, second=n, sender="monitor@x.example") for n in range(10)]
    support = of_rule(run(*burst, *slow, *again, options=("--json",)), "support")
    # Ten at once and one every six seconds: four of the other twenty, and all of the slow ones.
    assert support["reasons"] == {"flood": 16}
    assert support["actions"] == {"left": 16, "rerouted": 44}


@pytest.mark.parametrize(
    "time", ["99999999999999999", "9" * 400, " Fri, 31 Dec 9999 23:59:59 -2359"]
)
def test_a_time_that_no_calendar_has(run, time):
    found = json.loads(run(message(f"Received: from x by y;{time}"), options=("--json",)))
    assert found["messages"] == 1
    assert found["last"] == found["first"] < 2e9


def test_a_name_that_is_too_long_is_said(run, capsys):
    assert main(["replay", "--config", "crm-milter.yaml", "a" * 300]) == 1
    assert "file name too long" in capsys.readouterr().err


def test_a_message_to_two_addresses_of_a_rule_is_no_duplicate(run):
    old = message("To: case-1@solarmora.com, case-2@solarmora.com", to="it@solarmora.com")
    assert of_rule(run(old, options=("--json",)), "cases")["duplicates"] == 0
    assert of_rule(run(old, old, options=("--json",)), "cases")["duplicates"] == 2
