"""What the README and the pages of docs/ show of a command is what it prints.

A block whose first line is "```console" is a session: lines that begin with "$ " are run, in a
directory with the files that the blocks "```LANGUAGE NAME" of the page show.
"""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"(?ms)^```(\w+)(?: (\S+))?\n(.*?)^```$")
# As on the machine where rules are written: neither libmilter nor Prometheus.
BARE = """
import sys
sys.modules["milter"] = sys.modules["prometheus_client"] = None
from crm_milter.cli.main import main
sys.exit(main())
"""


def sessions() -> list[tuple[str, int]]:
    pages = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
    found = []
    for page in pages:
        number = sum(kind == "console" for kind, _, _ in BLOCK.findall(page.read_text()))
        found += [(str(page.relative_to(ROOT)), each) for each in range(number)]
    return found


@pytest.mark.parametrize(("page", "number"), sessions())
def test_a_session_prints_what_the_page_shows(page: str, number: int, tmp_path: Path) -> None:
    blocks = BLOCK.findall((ROOT / page).read_text())
    for _, name, text in blocks:
        if name:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
    shown = [text for kind, _, text in blocks if kind == "console"][number]
    printed = ""
    for line in shown.splitlines():
        if line.startswith("$ "):
            printed += f"{line}\n{output(line[2:], tmp_path)}"
    assert printed == shown


def output(line: str, folder: Path) -> str:
    """Run a command, diagnostics first, as most of them come; "echo $?" is not needed."""
    program, *arguments = shlex.split(line, comments=True)
    assert program == "crm-milter"
    command = [sys.executable, "-c", BARE, *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    return done.stderr + done.stdout


def test_there_are_sessions() -> None:
    assert sessions()
