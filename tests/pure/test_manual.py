"""The manual pages and completions: all of --help and of the example, without warnings."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import manual
import mdoc
import reference
from crm_milter.cli import main as cli

PAGES = ("crm-milter.8", "crm-milter.yaml.5")
LINTERS = [["mandoc", "-Tlint", "-Wwarning"]]
if shutil.which("man"):  # groff judges, too, where it is; postfix/install brings mandoc alone
    LINTERS.append(["man", "--warnings", "-E", "UTF-8", "-l"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manual") / "new"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1795305600")
        assert manual.main([str(folder)]) == 0
    return folder


def shown(page: Path) -> str:
    """Return a page as a person sees it, without the breaks of lines."""
    command = ["mandoc", "-Tutf8", "-O", "width=500", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return re.sub(r".\x08", "", done.stdout)


def test_four_files(made: Path) -> None:
    names = {path.name for path in made.iterdir()}
    assert names == {*PAGES, "crm-milter.bash", "_crm-milter"}


def test_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert manual.main([]) == 2
    assert capsys.readouterr().err.startswith("usage: ")


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("linter", LINTERS)
def test_no_warnings(made: Path, page: str, linter: list[str]) -> None:
    done = subprocess.run([*linter, str(made / page)], capture_output=True, text=True, check=False)
    said = done.stdout if linter[0] == "mandoc" else done.stderr
    assert (said, done.returncode) == ("", 0)


def test_every_command_and_option_is_there(made: Path) -> None:
    page = shown(made / "crm-milter.8")
    for name, command in manual.commands(cli._parser()).items():
        assert f"crm-milter {name}" in page
        for action in command._actions:
            if action.dest != "help":
                assert all(option in page for option in action.option_strings[-1:])
    assert "SIGTERM" in page
    assert re.search(r"78\s+invalid configuration", page)
    assert "November 22, 2026" in page


def test_every_key_of_the_example_is_there(made: Path) -> None:
    page = shown(made / "crm-milter.yaml.5")
    text = manual.EXAMPLE.read_text(encoding="utf-8")
    documented = [entry for section in reference.sections(text) for entry in section.entries]
    # The keys of add_headers are names of header fields.
    keys = {path for path, _ in reference._keys(text) if path.islower()}
    # What only groups others needs no words of its own.
    assert keys - {entry.path for entry in documented} <= {"milter", "metrics"}
    words = " ".join(page.split())
    for entry in documented:
        assert entry.path in words
    assert "Default: unix:/var/spool/postfix/crm-milter/milter.sock" in words
    assert words.count("Default: ") == len(re.findall(r"(?m)^ *# Default: ", text))


def test_what_the_example_uses_is_a_valid_file(tmp_path: Path) -> None:
    path = tmp_path / "short.yaml"
    lines = reference.in_use(manual.EXAMPLE.read_text(encoding="utf-8"))
    path.write_text("\n".join(lines))
    assert cli.main(["rules", "--json", "--config", str(path)]) == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("One.  Two, e.g. this.", ["One.", "Two, e.g. this."]),
        (".starts like a macro", [r"\&.starts like a macro"]),
        ("'so does this", [r"\&'so does this"]),
        (r"a \1 and --json", [r"a \e1 and \-\-json"]),
    ],
)
def test_text_means_nothing_to_roff(words: str, expected: list[str]) -> None:
    assert list(mdoc.text(words)) == expected


@pytest.mark.parametrize("argument", ["No", "HOST:PORT", 'a "b"', "Op", ".Sh"])
def test_an_argument_is_never_a_macro(tmp_path: Path, argument: str) -> None:
    page = tmp_path / "page.1"
    page.write_text(
        f".Dd May 1, 2026\n.Dt X 1\n.Os\n.Sh NAME\n.Nm x\n.Nd y\n.Sh DESCRIPTION\n"
        f".Ar {mdoc.argument(argument)}\n"
    )
    assert argument in shown(page)


COMPLETE = """
source {script}
COMP_WORDS=({words}) COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)) COMP_LINE="{words}"
COMP_POINT=${{#COMP_LINE}}
_shtab_crm_milter
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("crm-milter ver", ["verify"]),
        ("crm-milter trace --fail", ["--failing"]),
        ("crm-milter im", ["import"]),
        ("crm-milter replay --ag", ["--against"]),
        ("crm-milter test --ju", ["--junit"]),
        ("crm-milter verify --spam-", ["--spam-line"]),
        ("crm-milter attach --when-down a", ["accept"]),
    ],
)
def test_bash_completes(made: Path, words: str, expected: list[str]) -> None:
    script = COMPLETE.format(script=made / "crm-milter.bash", words=words)
    done = subprocess.run(
        ["bash", "-c", script], capture_output=True, text=True, check=True, timeout=10
    )
    assert done.stdout.split() == expected, json.dumps(done.stderr)


def test_zsh_knows_files_and_commands(made: Path) -> None:
    script = (made / "_crm-milter").read_text()
    assert script.startswith("#compdef crm-milter")
    assert re.search(r'"--config\[.*:_files"', script)
    assert re.search(r"(?m)^ *trace:'Follow messages through the mail log: [^.]*\.'$", script)
