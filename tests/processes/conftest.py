"""A milter of two workers, alone or behind a Postfix, and what the tests of its processes need."""

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack

import pytest
from configs import ALIASES, config
from mta import Mta

from lab.milter import Milter
from lab.whole import Lab

_running: list[Milter] = []


@pytest.fixture
def make_milter() -> Iterator[Callable[..., Milter]]:
    """Call it with the arguments of Milter: one that runs until the test has ended."""
    with ExitStack() as stack:

        def make(text: str | None = None, **options: object) -> Milter:
            milter = stack.enter_context(Milter(text or config(), **options))
            milter.wait_log("serving")
            _running.append(milter)
            return milter

        yield make
    _running.clear()


@pytest.fixture
def dial() -> Iterator[Callable[[Milter], Mta]]:
    """Call it with a milter: a session with it, client announced, hung up when the test ends."""
    with ExitStack() as stack:

        def connect(milter: Milter) -> Mta:
            mta = Mta(milter.address)
            stack.callback(mta.socket.close)
            mta.connect()
            return mta

        yield connect


@pytest.fixture
def routing_lab(make_lab: Callable[..., Lab]) -> Callable[..., Lab]:
    """Call it with the arguments of Lab: Postfix with a milter that routes help@."""

    def make(text: str | None = None, **options: object) -> Lab:
        lab = make_lab(text or config(), virtual_alias_maps=ALIASES, **options)
        lab.milter.wait_log("serving")
        return lab

    return make


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show the log of a milter without a lab with a test that failed."""
    report = yield
    if report.failed:
        report.sections += [(f"log of {each.folder.name}", each.log()[-9000:]) for each in _running]
    return report
