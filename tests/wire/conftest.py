"""Milters for the wire tests: one process a configuration, shared by all tests of the run."""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack

import pytest
from mta import Mta
from serving import CONFIG

from lab.milter import Milter

StartMilter = Callable[..., Milter]
_running: list[Milter] = []


@pytest.fixture(scope="session")
def shared() -> Iterator[StartMilter]:
    """Call it with the arguments of Milter: one that runs with them, perhaps already."""
    started: dict[str, Milter] = {}
    with ExitStack() as stack:

        def start(config: str = CONFIG, **options: object) -> Milter:
            key = repr((config, options))
            if key not in started:
                started[key] = stack.enter_context(Milter(config, **options))
                _running.append(started[key])
            started[key].logfile.mark()
            return started[key]

        yield start
        _running.clear()


@pytest.fixture
def milter(shared: StartMilter) -> Milter:
    """The milter with CONFIG; its log starts with the test."""
    return shared()


@pytest.fixture
def mta(milter: Milter) -> Iterator[Mta]:
    """A connection to it, with the client announced."""
    with Mta(milter.address) as connection:
        connection.connect()
        yield connection


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the log of the milters with a test that failed."""
    report = yield
    if report.failed:
        report.sections += [(f"log of {each.folder.name}", each.log()[-9000:]) for each in _running]
    return report
