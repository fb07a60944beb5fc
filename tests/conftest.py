"""Fixtures of the Postfix tests, how tests are shared out, and two rules of this project's runs.

Rule one: what the children of a test wrote is shown when it fails, and only then.
Rule two: in CI (the variable CI is set) a test that is skipped has failed.
"""

import os
import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from lab.sink import Sink
from lab.whole import Lab

MakeLab = Callable[..., Lab]

_running: list[Lab] = []
_LONGEST_LOG = 20_000
_FAILED = "FAILED_TESTS"  # a file for the names of failed tests, if a busy machine explains all


@pytest.fixture(scope="session")
def _plain_lab() -> Iterator[Lab]:
    with Lab() as lab:
        _running.append(lab)
        yield lab
        _running.remove(lab)


@pytest.fixture
def plain_lab(_plain_lab: Lab) -> Lab:
    """A Postfix without a milter, shared by all tests, and fresh for each."""
    _plain_lab.fresh()
    return _plain_lab


def _make_labs() -> Iterator[MakeLab]:
    made: list[Lab] = []
    with ExitStack() as stack:

        def make(config: str | None = None, **settings: Any) -> Lab:
            lab = stack.enter_context(Lab(config, **settings))
            made.append(lab)
            _running.append(lab)
            return lab

        yield make
        for lab in made:
            _running.remove(lab)


@pytest.fixture
def make_lab() -> Iterator[MakeLab]:
    """Call it with the arguments of Lab: a lab that runs until the test has ended."""
    yield from _make_labs()


@pytest.fixture(scope="module")
def make_module_lab() -> Iterator[MakeLab]:
    """As make_lab, for fixtures of a module; such a lab needs lab.fresh() before each test."""
    yield from _make_labs()


@pytest.fixture
def make_sink() -> Iterator[Callable[..., Sink]]:
    """Call it with the arguments of Sink: one more sink that runs until the test has ended."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(Sink(**options))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Which random mail tests/hostile/test_ledger.py sends, and how much of it."""
    group = parser.getgroup("ledger")
    group.addoption("--ledger-seed", default="20261123", help="another number, other mail")
    group.addoption("--ledger-messages", type=int, default=0, help="accepted in each test")


def pytest_configure() -> None:
    """Let SIGTERM end a run as ^C does, so that everything is cleaned up."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


class _ByFile(LoadScopeScheduling):
    """Each file is one process's work; the containers all together, since they share images."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "containers" if file.startswith("tests/container/") else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByFile:
    """Share out the files in their order: the containers, which take longest, are first."""
    config.option.loadscopereorder = False
    return _ByFile(config, log)


def pytest_runtest_setup() -> None:
    """Start the logs of a test where it starts."""
    for lab in _running:
        lab.mark_logs()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Apply both rules to a test."""
    report = yield
    # What goes from one process to another has to be of a simple type.
    report.user_properties = [(name, str(value)) for name, value in report.user_properties]
    if report.skipped and not hasattr(report, "wasxfail"):
        _fail_in_ci(report)
    if report.failed:
        for lab in _running:
            for title, text in lab.logs().items():
                report.sections.append((f"log of {title}", text[-_LONGEST_LOG:]))
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Apply rule two to a whole file."""
    report = yield
    if report.skipped:
        _fail_in_ci(report)
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """State the figures that the tests have measured, and note what failed, for tests/run."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.line(f"{report.location[2]}: {name}: {value}")
    if _FAILED in os.environ and "PYTEST_XDIST_WORKER" not in os.environ:  # each knows its own
        reports = [*terminalreporter.getreports("failed"), *terminalreporter.getreports("error")]
        if all(map(_is_impatience, reports)):
            names = dict.fromkeys(report.nodeid for report in reports)
            Path(os.environ[_FAILED]).write_text("".join(f"{name}\n" for name in names))


def _is_impatience(report: Any) -> bool:
    """Tell whether a test failed by waiting too long only; no attack on the promises is excused."""
    crash = getattr(report.longrepr, "reprcrash", None)
    waited = crash is not None and "Error: waited " in crash.message
    return waited and not report.nodeid.startswith("tests/hostile/")


def _fail_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        report.outcome = "failed"
        report.longrepr = f"skipped, which counts as failed in CI: {report.longreprtext}"
