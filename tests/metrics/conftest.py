"""A private Prometheus and a milter with an exporter, each for the length of a test."""

import shutil
from collections.abc import Callable, Iterator

import pytest
from scraping import Exporter, Prometheus, with_metrics

from lab.milter import Milter


@pytest.fixture
def prometheus() -> Iterator[Callable[..., Prometheus]]:
    """Call it with the ports of exporters."""
    running: list[Prometheus] = []

    def start(*ports: int) -> Prometheus:
        running.append(Prometheus(*ports))
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.fixture
def serving() -> Iterator[Callable[..., tuple[Milter, Exporter]]]:
    """Call it with a configuration: a milter without Postfix, and its exporter."""
    running: list[Milter] = []

    def start(config: str, workers: int = 2) -> tuple[Milter, Exporter]:
        text, port = with_metrics(config, workers)
        running.append(Milter(text))
        running[-1].start()
        return running[-1], Exporter(port).wait()

    yield start
    for each in running:
        each.kill()
        shutil.rmtree(each.folder, ignore_errors=True)
