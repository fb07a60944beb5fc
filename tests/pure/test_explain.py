"""explain and rules: the daemon's own decision, told rule by rule, in the words of the log."""

import json
import subprocess
import sys

import pytest
from rows import mark

CONFIG = r"""
unrouted_to: it@solarmora.com
spam: spamassassin
rules:
  - name: cases
    match: "case-*@solarmora.com"
    replace_with: \1@crm.example
    dead_letters: rejected@solarmora.com
  - name: support
    match: [help@solarmora.com, support@solarmora.com]
    replace_with: support@crm.example
    also_deliver_to: team@solarmora.com
    bypass_spam_filter: true
"""
HAM = b"From: joe@x.example\nX-Spam-Status: No, score=1\n\nhello\n"
SPAM = b"From: joe@x.example\nX-Spam-Status: No\nX-Spam-Flag:\n YES\n\nhello\n"

# Without libmilter and without Prometheus: the machine where rules are written has neither.
BARE = """
import sys
sys.modules["milter"] = sys.modules["prometheus_client"] = None
from crm_milter.cli.main import main
sys.exit(main())
"""


@pytest.fixture
def crm_milter(tmp_path):
    config = tmp_path / "crm-milter.yaml"
    config.write_text(CONFIG)

    def run(command, *arguments, message=HAM):
        return subprocess.run(
            [sys.executable, "-c", BARE, command, "--config", str(config), *arguments],
            input=message,
            capture_output=True,
            timeout=30,
            check=False,
        )

    return run


def explain(crm_milter, *arguments, message=HAM):
    done = crm_milter("explain", "--from", "joe@x.example", *arguments, message=message)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout.decode().splitlines()


def test_each_rule_that_was_looked_at_is_named(crm_milter):
    lines = explain(crm_milter, "--to", "Help@SolarMora.com")
    assert lines[3:6] == [
        "to <help@solarmora.com>",
        "  rule cases: does not match",
        "  rule support: applies",
    ]
    assert lines[7:] == [
        "explain: rerouted: to=<help@solarmora.com> new=<support@crm.example> rule=support"
        " copies=1 verdict=ham",
        "add <support@crm.example> NOTIFY=NEVER ORCPT=rfc822;Help@SolarMora.com",
        "add <team@solarmora.com> NOTIFY=NEVER",
        "remove <Help@SolarMora.com>",
        f"header X-CRM-Milter: {mark('support', ('from', 'joe@x.example'))}",
        "reply 250 2.0.0 accepted",
    ]


def test_the_header_field_that_decided_on_spam_is_named(crm_milter):
    lines = explain(crm_milter, "--to", "case-7@solarmora.com", message=SPAM)
    assert lines[1] == "spam: conflicting (x-spam-flag: YES)"
    assert "explain: left: to=<case-7@solarmora.com> rule=cases reason=spam" in lines


def test_nobody_matched(crm_milter):
    lines = explain(crm_milter, "--to", "alice@solarmora.com")
    assert lines[-1].startswith("no rule matches any recipient: accepted at DATA")


def test_a_protected_address_says_that_wildcards_spare_it(crm_milter):
    assert "  rule cases: does not match (wildcards never match this address)" in explain(
        crm_milter, "--to", "postmaster@solarmora.com"
    )


def test_json_says_the_same(crm_milter):
    text = "\n".join(explain(crm_milter, "--json", "--to", "help@solarmora.com"))
    story = json.loads(text)
    assert [each["rule"] for each in story["recipients"][0]["rules"]] == ["cases", "support"]
    assert story["decision"]["add"][0]["address"] == "support@crm.example"
    assert story["decision"]["reply"] == "250 2.0.0 accepted"


def test_a_message_that_is_not_there(crm_milter):
    done = crm_milter("explain", "--from", "", "--to", "help@solarmora.com", "/nowhere.eml")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"crm-milter: /nowhere.eml: no such file or directory\n"


def test_an_odd_message_is_explained_all_the_same(crm_milter):
    for message in (b"", b"\0\xff\n: x\n\n", b"no header at all", b"\n\nbody", b"From:\xe9\n\n"):
        assert explain(crm_milter, "--to", "help@solarmora.com", message=message)


def test_rules_are_listed_in_order(crm_milter):
    lines = crm_milter("rules").stdout.decode().splitlines()
    assert [line.split()[:3] for line in lines] == [
        ["RULE", "MATCH", "REPLACE"],
        ["cases", "case-*@solarmora.com", "\\1@crm.example"],
        ["support", "help@solarmora.com", "(+1)"],
    ]
    as_json = json.loads(crm_milter("rules", "--json").stdout)
    assert [each["name"] for each in as_json] == ["cases", "support"]
    assert as_json[1]["match"] == ["help@solarmora.com", "support@solarmora.com"]


def test_a_rule_in_test_mode_is_named_and_the_next_one_acts(tmp_path, crm_milter):
    config = tmp_path / "crm-milter.yaml"
    trial = (
        "  - {name: trial, match: help@solarmora.com, replace_with: t@crm.example, mode: test}\n"
    )
    config.write_text(CONFIG.replace("rules:\n", f"rules:\n{trial}"))
    lines = explain(crm_milter, "--to", "help@solarmora.com")
    assert lines[4:7] == [
        "  rule trial: applies in mode test: logged, not done",
        "  rule cases: does not match",
        "  rule support: applies",
    ]
    told = [line for line in lines if line.startswith("explain: ")]
    assert ["rule=trial" in line for line in told] == [True, False]
    assert "add <support@crm.example> NOTIFY=NEVER ORCPT=rfc822;help@solarmora.com" in lines
    assert not any("add <t@crm.example>" in line for line in lines)


def test_a_rule_in_test_mode_alone_is_no_rule_that_applies(tmp_path, crm_milter):
    config = tmp_path / "crm-milter.yaml"
    config.write_text(CONFIG.replace("bypass_spam_filter: true", "mode: test"))
    assert "  no rule applies" in explain(crm_milter, "--to", "help@solarmora.com")
    done = crm_milter("explain", "--from", "joe@x.example", "--to", "help@solarmora.com", "--json")
    (recipient,) = json.loads(done.stdout)["recipients"]
    assert recipient["rule"] is None
