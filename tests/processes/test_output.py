"""Every command with standard streams that are closed, full or of a small character set."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

CONFIG = """
unrouted_to: it@grüße.example
dead_letters: letters@grüße.example
spam: rspamd
rules:
  - name: support
    match: ["grüße@solarmora.com", "héllo@solarmora.com", "ωμέγα@solarmora.com"]
    replace_with: support@crm.example
"""
MESSAGE = "From: a@a.example\nSubject: grüße Ω\n\nhello\n"
LOG = (
    "Nov 22 03:52:33 mail crm-milter[7]: 4bXq1Z0001: rerouted: to=<grüße@solarmora.com>"
    " new=<support@crm.example> rule=support copies=0 verdict=ham\n"
    "Nov 22 03:52:34 mail postfix/smtp[6]: 4bXq1Z0001: to=<support@crm.example>, relay=m[1]:25,"
    " dsn=5.1.1, status=bounced (host said: 550 grüße Ω)\n"
)
# The arguments, and the exit status where nothing is wrong with the streams.
COMMANDS: Mapping[str, tuple[list[str], int]] = {
    "help": (["--help"], 0),
    "version": (["--version"], 0),
    "help of a command": (["trace", "--help"], 0),
    "help of serve": (["serve", "--help"], 0),
    "check": (["check"], 0),
    "check --json": (["check", "--json"], 0),
    "explain": (["explain", "--from", "a@a.example", "--to", "grüße@solarmora.com", "MAIL"], 0),
    "explain --json": (["explain", "--from", "", "--to", "x@y.example", "--json", "MAIL"], 0),
    "rules": (["rules"], 0),
    "rules --json": (["rules", "--json"], 0),
    "map": (["map"], 0),
    "schema": (["schema"], 0),
    "trace": (["trace", "4bXq1Z0001", "--log", "LOG"], 0),
    "trace --json": (["trace", "4bXq1Z0001", "--json", "--log", "LOG"], 0),
    "trace --failing": (["trace", "--failing", "--log", "LOG"], 1),
}
# These print nothing but a diagnostic where the host has no such Postfix.
WITHOUT_RESULT: Mapping[str, tuple[list[str], int]] = {
    "check --postfix": (["check", "--postfix", "--config-directory", "NOWHERE"], 1),
    "map --write": (["map", "--write", "--config-directory", "NOWHERE"], 1),
    "attach": (["attach", "--yes", "--config-directory", "NOWHERE"], 1),
    "detach": (["detach", "--yes", "--config-directory", "NOWHERE"], 1),
    "bad configuration": (["check", "--config", "NOWHERE/x.yaml"], 78),
    "usage": (["trace", "--limit", "x"], 2),
    "no command": ([], 2),
}
EVERY = {**COMMANDS, **WITHOUT_RESULT}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("output")
    (folder / "crm-milter.yaml").write_text(CONFIG)
    (folder / "mail").write_text(MESSAGE)
    (folder / "log").write_text(LOG)
    return folder


def run(
    files: Path, words: list[str], redirection: str = "", **environment: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command in a shell, without PYTHONUNBUFFERED, which hides faults at exit."""
    places = {"MAIL": str(files / "mail"), "LOG": str(files / "log"), "NOWHERE": "/nonexistent"}
    arguments = [places.get(word, word.replace("NOWHERE", "/nonexistent")) for word in words]
    if words and not words[0].startswith("--") and "--config" not in words:
        arguments += ["--config", str(files / "crm-milter.yaml")]
    program = str(Path(sys.executable).with_name("crm-milter"))
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(
        ["/bin/bash", "-c", f'"$@" {redirection}', "bash", program, *arguments],
        capture_output=True,
        timeout=60,
        check=False,
        env={**kept, "LC_ALL": "C.UTF-8", **environment},
    )


def assert_one_line(done: subprocess.CompletedProcess[bytes]) -> None:
    text = done.stderr.decode()
    assert text.startswith("crm-milter: ")
    assert len(text.splitlines()) == 1
    assert "Traceback" not in text
    assert "Exception ignored" not in text


@pytest.mark.parametrize(("words", "status"), EVERY.values(), ids=EVERY.keys())
def test_the_commands(files: Path, words: list[str], status: int) -> None:
    assert run(files, words).returncode == status


@pytest.mark.parametrize(
    ("redirection", "reason"),
    [
        (">/dev/full", "no space left on device"),
        (">&-", "it is closed"),
        ("| :; exit ${PIPESTATUS[0]}", "broken pipe"),
    ],
)
@pytest.mark.parametrize("words", [each for each, _ in COMMANDS.values()], ids=COMMANDS.keys())
def test_stdout_takes_nothing(files: Path, words: list[str], redirection: str, reason: str) -> None:
    done = run(files, words, redirection)
    assert done.returncode == 1
    assert done.stdout == b""
    assert_one_line(done)
    assert f"cannot write to standard output: {reason}" in done.stderr.decode()


def test_nothing_is_tried_again_when_python_lets_go_of_stdout(files: Path) -> None:
    """Python 3.14 says so always, earlier ones in development mode."""
    for redirection in (">/dev/full", "| :; exit ${PIPESTATUS[0]}"):
        done = run(files, ["map"], redirection, PYTHONDEVMODE="1")
        assert b"Exception ignored" not in done.stderr


@pytest.mark.parametrize("redirection", ["2>/dev/full", "2>&- <&-"])
@pytest.mark.parametrize(("words", "status"), EVERY.values(), ids=EVERY.keys())
def test_the_other_streams_change_nothing(
    files: Path, words: list[str], status: int, redirection: str
) -> None:
    done = run(files, words, redirection)
    assert done.returncode == status
    assert bool(done.stdout) == (words in [each for each, _ in COMMANDS.values()])
    assert b"Traceback" not in done.stderr + done.stdout


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "| :; exit ${PIPESTATUS[0]}"])
@pytest.mark.parametrize(("words", "status"), WITHOUT_RESULT.values(), ids=WITHOUT_RESULT.keys())
def test_diagnostics_without_stdout(
    files: Path, words: list[str], status: int, redirection: str
) -> None:
    done = run(files, words, redirection)
    assert done.returncode in (status, 1)
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr


def test_verify_asks_nobody(files: Path) -> None:
    words = ["verify", "grüße@solarmora.com", "--log", "LOG"]
    for redirection in ("", "<&-", ">/dev/full", ">&-", "2>&-"):
        done = run(files, words, redirection)
        assert done.returncode in (1, 2)
        assert b"Traceback" not in done.stderr


def test_explain_does_not_take_a_closed_stdin_for_an_empty_message(files: Path) -> None:
    done = run(files, ["explain", "--from", "", "--to", "x@solarmora.com"], "<&-")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"crm-milter: -: standard input is closed\n"


LOCALES = [
    {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "POSIX"},
    {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "latin-1"},
    {"PYTHONIOENCODING": "ascii:strict"},
    {"PYTHONIOENCODING": "koi8-r"},
    {"LC_ALL": "nowhere.UTF-8"},
]


@pytest.mark.parametrize("locale", LOCALES, ids=" ".join)
@pytest.mark.parametrize("name", ["check", "explain", "rules", "trace", "trace --failing"])
def test_locales(files: Path, name: str, locale: dict[str, str]) -> None:
    words, status = COMMANDS[name]
    done = run(files, words, **locale)
    assert b"Traceback" not in done.stderr
    # In a locale without UTF-8 an argument may be no address; that is said.
    assert done.returncode == status or b"crm-milter" in done.stderr


@pytest.mark.parametrize("locale", LOCALES, ids=" ".join)
def test_the_map_is_utf_8_in_every_locale(files: Path, locale: dict[str, str]) -> None:
    done = run(files, ["map"], **locale)
    assert done.returncode == 0
    assert "héllo@solarmora.com" in done.stdout.decode("utf-8")


def test_what_cannot_be_encoded_is_escaped(files: Path) -> None:
    done = run(files, ["rules", "--json"], PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    done = run(files, ["trace", "4bXq1Z0001", "--log", "LOG"], PYTHONIOENCODING="latin-1")
    assert "grüße \\u03a9".encode("latin-1") in done.stdout


def test_a_reader_that_has_seen_enough(files: Path) -> None:
    log = files / "many"
    log.write_text(LOG.splitlines(keepends=True)[0] * 200_000)
    done = run(
        files, ["trace", "4bXq1Z0001", "--log", str(log)], "| head -1; exit ${PIPESTATUS[0]}"
    )
    assert done.stdout.count(b"\n") == 1
    assert b"Traceback" not in done.stderr
