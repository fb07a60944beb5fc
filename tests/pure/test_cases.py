"""test: what cases expect of the rules, in every word of the log, and how failures are told."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from crm_milter.cli.main import main

ROOT = Path(__file__).parents[2]
CONFIG = r"""
unrouted_to: it@solarmora.com
dead_letters: rejected@mail.solarmora.com
spam: {filter: spamassassin, no_verdict: tempfail, unfiltered: 192.0.2.0/24}
rules:
  - {name: trial, match: help@solarmora.com, replace_with: t@crm.example, mode: test}
  - name: support
    match: help@solarmora.com
    replace_with: support@crm.example
    also_deliver_to: [team@solarmora.com, boss@solarmora.com]
    max_size: 1M
    automatic: leave
  - {name: archive, match: "@archive.example", also_deliver_to: keep@solarmora.com, on_spam: reject}
  - name: xmas
    match: xmas@solarmora.com
    from: 2026-12-24 18:00 +01:00
    replace_with: x@crm.example
  - {name: cases, match: "case-*@solarmora.com", replace_with: \1@crm.example}
"""
HAM = "headers: {X-Spam-Status: No}"


@pytest.fixture
def run(tmp_path, capsys):
    """Run cases, given as text; return status, stdout and stderr."""
    (tmp_path / "crm-milter.yaml").write_text(CONFIG)

    def run(*files: str, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        names = [f"cases{number}.yaml" for number in range(len(files))]
        for name, text in zip(names, files, strict=True):
            (tmp_path / name).write_text(text)
        paths = [str(tmp_path / name) for name in names]
        status = main(["test", "--config", str(tmp_path / "crm-milter.yaml"), *options, *paths])
        out, err = (text.replace(f"{tmp_path}/", "") for text in capsys.readouterr())
        return status, out, err

    return run


def case(more: str, to: str = "help@solarmora.com", sender: str = "joe@x.example") -> str:
    return f'cases:\n- {{name: a, from: "{sender}", to: {to}, {more}}}\n'


@pytest.mark.parametrize(
    ("more", "to"),
    [
        (f"{HAM}, expect: {{rule: support, action: rerouted, reason: none}}", "Help@Solarmora.COM"),
        (f"{HAM}, expect: {{targets: Support@CRM.example}}", "<help@solarmora.com>"),
        (
            f"{HAM}, expect: {{copies: [boss@solarmora.com, team@solarmora.com]}}",
            "help@solarmora.com",
        ),
        (f"{HAM}, expect: {{rule: trial, action: would_reroute}}", "help@solarmora.com"),
        (f"{HAM}, expect: {{action: would_reroute}}", "help@solarmora.com"),
        (
            "headers: {X-Spam-Flag: 'YES'}, expect: {action: left, reason: spam, targets: []}",
            "help@solarmora.com",
        ),
        ("headers: {X-Spam-Flag: 'YES'}, expect: {action: rejected}", "a@archive.example"),
        ("expect: {action: tempfailed, reason: no_verdict}", "help@solarmora.com"),
        ("sendmail: true, expect: {action: left, reason: no_verdict}", "help@solarmora.com"),
        ("authenticated: true, expect: {action: rerouted}", "help@solarmora.com"),
        ("client: 192.0.2.7, expect: {action: rerouted}", "help@solarmora.com"),
        (f"{HAM}, at: 2026-12-24 18:00 +01:00, expect: {{rule: xmas}}", "xmas@solarmora.com"),
        (f"{HAM}, at: 2026-12-24 17:59 +01:00, expect: {{rule: none}}", "xmas@solarmora.com"),
        (f"{HAM}, expect: {{rule: xmas}}", "xmas@solarmora.com"),
        (f"{HAM}, size: 2M, expect: {{reason: oversize}}", "help@solarmora.com"),
        (f"{HAM}, size: 1M, expect: {{reason: none}}", "help@solarmora.com"),
        (
            f"{HAM}, expect: {{rule: none, action: none, targets: [], copies: []}}",
            "x@other.example",
        ),
        (f"{HAM}, expect: {{rule: archive, action: copied, targets: []}}", "x@archive.example"),
        (f"{HAM}, expect: {{targets: AbC@crm.example}}", "case-AbC@solarmora.com"),
        (
            "headers: {X-Spam-Status: No, Auto-Submitted: x}, expect: {reason: automatic}",
            "help@solarmora.com",
        ),
        (
            "headers: [{Received: a, X-Spam-Status: No}, {Received: b, X-Spam-Flag: 'YES'}],"
            " expect: {reason: spam}",
            "help@solarmora.com",
        ),
        (
            f"{HAM}, expect: [{{to: help@solarmora.com, rule: support}},"
            " {to: b@x.example, rule: none}]",
            "[help@solarmora.com, b@x.example]",
        ),
    ],
)
def test_what_is_expected_and_happens(run, more, to):
    assert run(case(more, to))[:2] == (0, "1 passed, 0 failed\n")


def test_a_bounce_and_a_loop(run):
    assert run(case(f"{HAM}, expect: {{reason: automatic}}", sender="<>"))[0] == 0
    assert run(case(f"{HAM}, expect: {{reason: loop}}", sender="support@crm.example"))[0] == 0


def test_a_message_from_a_file(run, tmp_path):
    (tmp_path / "mail.eml").write_bytes(b"X-Spam-Flag: YES\r\n\r\n" + b"x" * 2_000_000)
    assert run(case("message: mail.eml, expect: {reason: oversize}"))[0] == 0
    assert run(case("message: mail.eml, size: 10, expect: {reason: spam}"))[0] == 0


@pytest.mark.parametrize(
    ("expect", "lines"),
    [
        ("action: left", ["  rule: support", "- action: left", "+ action: rerouted"]),
        ("reason: spam", ["- reason: spam", "+ reason: none"]),
        ("rule: none", ["- rule: none", "+ rule: support", "  action: rerouted"]),
        ("rule: trial", ["- rule: trial", "+ rule: support"]),
        ("rule: suport", ["- rule: suport", "+ rule: support"]),
        ("targets: x@crm.example", ["- targets: x@crm.example", "+ targets: support@crm.example"]),
        ("copies: []", ["- copies: []", "+ copies: [team@solarmora.com, boss@solarmora.com]"]),
        ("copies: team@solarmora.com", ["- copies: team@solarmora.com"]),
        ("action: would_leave", ["- action: would_leave", "+ action: would_reroute"]),
    ],
)
def test_what_differs_is_shown_as_a_diff(run, expect, lines):
    status, out, err = run(case(f"{HAM}, expect: {{{expect}}}"))
    assert (status, "error" in err) == (1, False)
    first, *shown = out.splitlines()
    assert first == "cases0.yaml:2: a"
    assert shown[0] == "    to: help@solarmora.com"
    assert set(lines) <= {line[2:] for line in shown}
    assert shown[-1] == "0 passed, 1 failed"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", 'required key "cases" is missing'),
        ("cases: []", "cases: the list is empty"),
        ("cases: {}", 'cases: expected a list ("- ..." lines), not a mapping'),
        ("case: []", 'case: unknown key (did you mean "cases"?)'),
        (case(f"{HAM}, expect: {{acton: left}}"), 'unknown key (did you mean "action"?)'),
        (case(f"{HAM}, expect: {{}}"), '"rule" or "action" or'),
        (case(f"{HAM}, expect: {{action: reroute}}"), 'not an action (did you mean "rerouted"?)'),
        (case(f"{HAM}, expect: {{action: bounced}}"), "not an action; expected one of rerouted"),
        (case(f"{HAM}, expect: {{reason: Spam}}"), 'not a reason (did you mean "spam"?)'),
        (case(f"{HAM}, expect: {{targets: '@crm.example'}}"), "has no local part"),
        (case(f"{HAM}, header: x, expect: {{rule: a}}"), 'unknown key (did you mean "headers"?)'),
        (case(f"{HAM}, expect: {{rule: no}}"), "means false in YAML"),
        (case("headers: {A: [b]}, expect: {rule: a}"), "expected a string, not a list"),
        (case("headers: {a b: c}, expect: {rule: a}"), "is not a valid header field name"),
        (
            case("message: nowhere.eml, expect: {rule: a}"),
            '"nowhere.eml": no such file or directory',
        ),
        (case("at: tomorrow, expect: {rule: a}"), "expected a date and time with a time zone"),
        (case("size: big, expect: {rule: a}"), "expected bytes"),
        (case("expect: {to: x@y.example, rule: a}"), "is not one of the addresses"),
        (case("headers: {A: b}, message: c, expect: {rule: a}"), "cannot be combined with"),
        (case(HAM), 'required key "expect" is missing'),
        ("cases: [{name: a, expect: {rule: a}}]", 'required key "from" is missing'),
        ("cases: &x []", "YAML anchor"),
        ("cases: [\n", "invalid YAML"),
    ],
)
def test_a_file_that_is_not_valid(run, text, problem):
    status, out, err = run(text)
    assert (status, out) == (78, "")
    assert problem in err
    assert all(line.startswith("crm-milter: cases0.yaml") for line in err.splitlines())


def test_a_file_that_is_not_there(run):
    assert run(case(f"{HAM}, expect: {{rule: a}}"), options=("nowhere.yaml",))[0] == 78


TWO = (
    case(f"{HAM}, expect: {{rule: support}}"),
    case(f'{HAM}, expect: {{rule: x, action: left}}').replace("name: a", 'name: "50 # < & é"'),
)  # fmt: skip


def test_tap(run):
    status, out, _ = run(*TWO, options=("--tap",))
    lines = out.splitlines()
    assert (status, lines[:3]) == (1, ["TAP version 13", "1..2", "ok 1 - a"])
    assert lines[3:5] == ["not ok 2 - 50 \\# < & é", "  ---"]
    detail = yaml.safe_load("\n".join(lines[5 : lines.index("  ...")]))
    assert detail["at"] == "cases1.yaml:2"
    assert detail["difference"].splitlines()[1:3] == ["- rule: x", "+ rule: support"]


def test_junit(run, tmp_path):
    status, out, _ = run(*TWO, options=("--junit", str(tmp_path / "out.xml")))
    assert (status, out.splitlines()[-1]) == (1, "1 passed, 1 failed")
    first, second = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert (first.get("tests"), first.get("failures"), first[0].get("name")) == ("1", "0", "a")
    assert (second.get("failures"), second[0].get("name")) == ("1", "50 # < & é")
    assert "- rule: x" in second[0][0].text
    assert run(*TWO, options=("--junit", "/nowhere/out.xml"))[0] == 1


def test_the_cases_of_the_annotated_example_pass_without_libmilter():
    bare = "import sys; sys.modules['milter'] = sys.modules['prometheus_client'] = None\n"
    bare += "from crm_milter.cli.main import main; sys.exit(main())"
    files = ("--config", ROOT / "milter/crm-milter.yaml", ROOT / "milter/crm-milter.test.yaml")
    command = [sys.executable, "-c", bare, "test", *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3 passed, 0 failed\n", "")
