"""The commands check and map: what they print, where, and how they end."""

import json
import subprocess

import pytest
from serving import run

from lab.base import scratch
from lab.milter import program

HEAD = "spam: amavis\n"
DEAD = "dead_letters: rejected@solarmora.com\n"
UNROUTED = f"unrouted_to: it@solarmora.com\n{DEAD}"
RULE = "  - {{name: {}, match: {}, replace_with: x@crm.example{}}}\n"


@pytest.fixture
def write():
    folder = scratch()

    def written(text):
        path = folder / "crm-milter.yaml"
        path.write_text(text)
        return path

    return written


def rules(*matches, rest=""):
    return "rules:\n" + "".join(RULE.format(f"r{n}", m, rest) for n, m in enumerate(matches))


# Rules: keys of the map and their mailboxes. Everything that is not an exact address has none.
MAPS = {
    "one": (rules("help@solarmora.com"), ["help@solarmora.com it@solarmora.com"]),
    "in the order of the rules": (
        rules("z@solarmora.com", "[b@solarmora.com, a@solarmora.com]"),
        [f"{local}@solarmora.com it@solarmora.com" for local in "zba"],
    ),
    "folded": (rules("Help@SolarMora.COM"), ["help@solarmora.com it@solarmora.com"]),
    "no domain": (rules("'@other.example'"), []),
    "no glob": (rules("case-*@solarmora.com"), []),
    "no expression": (rules(r"'/case-\d+@solarmora\.com/'"), []),
    "exact ones among others": (
        rules("[case-*@solarmora.com, help@solarmora.com, '@other.example']"),
        ["help@solarmora.com it@solarmora.com"],
    ),
    "U-label": (
        rules("hilfe@grüße.example"),
        [
            "hilfe@xn--gre-6ka8l.example it@solarmora.com",
            "hilfe@grüße.example it@solarmora.com",
        ],
    ),
    "A-label": (
        rules("hilfe@xn--gre-6ka8l.example"),
        [
            "hilfe@xn--gre-6ka8l.example it@solarmora.com",
            "hilfe@grüße.example it@solarmora.com",
        ],
    ),
    "its own mailbox": (
        rules("a@solarmora.com") + RULE.format("own", "b@solarmora.com", ", unrouted_to: o@x.org"),
        ["a@solarmora.com it@solarmora.com", "b@solarmora.com o@x.org"],
    ),
    "no rules": ("rules: []\n", []),
}


@pytest.mark.parametrize("case", MAPS)
def test_map(write, case):
    text, expected = MAPS[case]
    done = run("map", "--config", write(HEAD + UNROUTED + text))
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert [line for line in lines if not line.startswith("#")] == expected
    assert "error" not in done.stderr


def test_postfix_reads_the_map(write):
    config = write(HEAD + UNROUTED + rules("help@solarmora.com", "'@other.example'"))
    table = config.with_name("map")
    table.write_text(run("map", "--config", config).stdout)
    config.with_name("main.cf").touch()
    found = {}
    for key in ("help@solarmora.com", "@solarmora.com", "@other.example", "a@other.example"):
        done = subprocess.run(
            ["/usr/sbin/postmap", "-c", table.parent, "-q", key, f"texthash:{table}"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
        assert done.stderr == ""
        found[key] = done.stdout.strip()
    assert found.pop("help@solarmora.com") == "it@solarmora.com"
    assert set(found.values()) == {""}


def test_map_without_a_mailbox(write):
    own = RULE.format("own", "b@solarmora.com", ", unrouted_to: o@x.org")
    config = write(HEAD + DEAD + "rules:\n" + own + RULE.format("bare", "a@solarmora.com", ""))
    done = run("map", "--config", config)
    assert (done.returncode, done.stdout) == (78, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"crm-milter: {config}:")
    assert '"bare"' in line
    assert "unrouted_to" in line
    # Nothing but the map needs it.
    assert run("check", "--config", config).returncode == 0
    # Nor does a rule that has no line in the map.
    config = write(HEAD + "rules:\n" + own + RULE.format("wild", "'@other.example'", ""))
    assert run("map", "--config", config).returncode == 0


def test_check(write):
    config = write(HEAD + UNROUTED + rules("help@solarmora.com"))
    done = run("check", "--config", config)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{config}: OK, 1 rule\n", "")
    config = write(UNROUTED + rules("help@solarmora.com", "info@solarmora.com"))
    done = run("check", "--config", config)
    assert (done.returncode, done.stdout) == (0, f"{config}: OK, 2 rules\n")
    (warning,) = done.stderr.splitlines()
    assert warning.startswith(f"crm-milter: {config}:")
    assert "warning" in warning


def test_the_first_file_of_a_beginner(write):
    """The shortest file that routes mail."""
    text = """unrouted_to: it@solarmora.com
dead_letters: rejected@solarmora.com
spam: rspamd
rules:
  - name: support
    match: help@solarmora.com
    replace_with: support@v1su0245ewejzhe7.case.my-crm.com
"""
    done = run("check", "--config", write(text))
    assert (done.returncode, done.stderr) == (0, "")


USAGE = [[], ["sing"], ["check", "--konfig", "x"], ["check", "a", "b"], ["serve", "--config"]]


@pytest.mark.parametrize("arguments", USAGE, ids=" ".join)
def test_usage(arguments):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: crm-milter")
    assert "Traceback" not in done.stderr


def test_version_and_help():
    assert run("--version").stdout.startswith("crm-milter ")
    done = run("--help")
    assert done.returncode == 0
    assert all(command in done.stdout for command in ("serve", "check", "map"))


def test_without_a_file_it_looks_in_etc():
    assert "/etc/crm-milter/crm-milter.yaml" in run("check", "--help").stdout


def test_a_reader_that_has_seen_enough(write):
    many = ", ".join(f"a{number}@solarmora.com" for number in range(5000))
    config = write(HEAD + UNROUTED + rules(f"[{many}]"))
    with subprocess.Popen(
        [*program(), "map", "--config", str(config)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        child.stdout.readline()
        child.stdout.close()
        assert b"Traceback" not in child.stderr.read()
        assert child.wait(10) == 1


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "\ufeff", " \n", "rules: []\n", "spam: amavis\n"]
)
def test_check_says_that_there_are_no_rules(write, text):
    config = write(text)
    done = run("check", "--config", config)
    assert done.returncode == 0
    assert done.stdout == f"{config}: OK, but there are no rules: no mail is rerouted\n"


BAD = {
    "a wrong key": ("rulez: []\n", "rulez"),
    "no YAML": ("rules: [\n", "valid YAML"),
    "cut off in the middle of a rule": ("rules:\n  - name: a\n    mat", "expected"),
    "an empty list": (HEAD + rules("file:crm-milter.list"), "crm-milter.list"),
}


@pytest.mark.parametrize("case", BAD)
def test_check_prints_json_for_a_bad_file_as_well(write, case):
    text, word = BAD[case]
    config = write(text)
    config.with_name("crm-milter.list").touch()
    done = run("check", "--json", "--config", config)
    assert done.returncode == 78
    result = json.loads(done.stdout)
    assert result["rules"] is None
    assert [f"crm-milter: {each}" for each in result["errors"]] == done.stderr.splitlines()
    assert word in done.stderr


def test_check_prints_json_for_a_file_that_is_not_there(tmp_path):
    done = run("check", "--json", "--config", tmp_path / "none.yaml")
    assert done.returncode == 78
    assert "no such file" in json.loads(done.stdout)["errors"][0]


def test_check_prints_json_where_postfix_cannot_be_asked(write):
    config = write(HEAD + UNROUTED + rules("help@solarmora.com"))
    nowhere = config.with_name("no-postfix")
    words = ("check", "--postfix", "--json", "--config", config, "--config-directory", nowhere)
    done = run(*words)
    assert done.returncode == 1
    assert "main.cf" in json.loads(done.stdout)["errors"][0]


def test_check_says_what_the_spam_filter_has_to_be_told(write):
    spam = "spam: {filter: amavis, no_verdict: tempfail}\n"
    config = write(UNROUTED + spam + rules("help@solarmora.com"))
    done = run("check", "--json", "--config", config)
    assert done.returncode == 0
    (warning,) = json.loads(done.stdout)["warnings"]
    assert "$sa_tag_level_deflt = undef;" in warning
    assert done.stderr == f"crm-milter: {warning}\n"
