"""Mail at full speed: nothing grows, and every message is counted (tests/bench/soak.py)."""

import subprocess
import sys
from pathlib import Path

import pytest
from configs import LONG

SOAK = Path(__file__).parents[1] / "bench" / "soak.py"
MESSAGES = 200_000 if LONG else 60_000


@pytest.mark.timeout(600)
def test_nothing_grows_and_every_message_is_counted(record_property):
    command = [sys.executable, SOAK, "--messages", str(MESSAGES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=590)
    assert done.returncode == 0, done.stderr
    record_property("soak", done.stdout.strip())
