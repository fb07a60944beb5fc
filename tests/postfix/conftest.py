"""A Postfix for `crm-milter check --postfix`, shared by the tests of a module."""

from collections.abc import Callable, Iterator

import planted
import pytest
from planted import Planted

from lab.sink import Sink


@pytest.fixture(scope="module")
def plant() -> Iterator[Callable[..., Planted]]:
    """Call it with the class of the domain."""
    running: list[Planted] = []
    with Sink() as sink:

        def make(*kind: str) -> Planted:
            running.append(planted.make(sink, *kind))
            return running[-1]

        yield make
        for each in running:
            each.postfix.stop()
            each.listener.close()


@pytest.fixture(scope="module")
def site(plant: Callable[..., Planted]) -> Planted:
    return plant()
