"""What the hostile tests share with the others: the wire, and the processes seen from outside."""

import sys
from pathlib import Path

import pytest

for _folder in ("wire", "processes"):
    sys.path.insert(0, str(Path(__file__).parents[1] / _folder))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """State the figures that the tests have measured."""
    for report in terminalreporter.getreports("passed"):
        if report.location[0].startswith("tests/hostile"):
            for name, value in report.user_properties:
                terminalreporter.line(f"{report.location[2]}: {name}: {value}")
