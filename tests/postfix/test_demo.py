"""The first command of the README: it shows the truth, and its exit status tells."""

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import demo

DEMO = Path(demo.__file__)


def test_all_is_right():
    done = subprocess.run([sys.executable, DEMO], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all 3 messages were handled correctly" in done.stdout


def test_what_is_not_right_ends_with_1(monkeypatch, capsys):
    wrong = [replace(each, expected={"else@solarmora.com": (None, "x")}) for each in demo.MESSAGES]
    monkeypatch.setattr(demo, "MESSAGES", wrong)
    monkeypatch.setattr(sys, "argv", ["demo"])
    assert demo.main() == 1
    assert "3 of 3 messages failed" in capsys.readouterr().out


def test_stay_shows_what_arrives_until_interrupted():
    with subprocess.Popen(
        [sys.executable, DEMO, "--stay"], stdout=subprocess.PIPE, text=True
    ) as process:
        lines = iter(process.stdout.readline, "")
        command = next(line for line in lines if "sendmail -C" in line)
        subprocess.run(["/bin/sh", "-c", command], check=True)
        assert "RCPT TO:<support@" in next(line for line in lines if "RCPT TO" in line)
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
    assert process.returncode == 0
    assert rest.endswith("stopped\n")
