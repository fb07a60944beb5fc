"""The declared metrics as prometheus_client wants them, with what the shared memory has counted."""

import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from itertools import accumulate
from pathlib import Path

from prometheus_client.metrics_core import Metric as Family
from prometheus_client.samples import Sample

from crm_milter import __version__
from crm_milter.config.paused import Pause, current
from crm_milter.metrics import catalogue
from crm_milter.metrics.catalogue import (
    BUILD,
    CONFIG,
    DELIVERIES,
    DELIVERY_SECONDS,
    EXPORTER,
    LOG,
    PAUSED,
    RULE,
    SERVICE,
    WORKER,
    Metric,
)
from crm_milter.metrics.deliveries import Deliveries
from crm_milter.metrics.memory import ServiceState, SharedCounters, Totals

Labels = dict[str, str]
Generation = tuple[tuple[float, ...], dict[str, Pause]]
Samples = Iterator[tuple[str, Labels, float]]  # suffix of the name, labels, value

METRICS = tuple(
    metric for part in (WORKER, RULE, LOG, SERVICE, EXPORTER) for metric in part.metrics
)
_SUFFIXES = {"counter": "_total", "info": "_info"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at all numbers."""

    state: ServiceState
    totals: Totals
    deliveries: Deliveries | None = None  # None if no log is followed
    pauses: Mapping[str, Pause] = field(default_factory=dict)

    def rules(self) -> Iterator[tuple[str, list[float]]]:
        """Yield the first rules of the file, and whichever had mail since the start."""
        nothing = [0.0] * RULE.size
        for name in {**dict.fromkeys(self.state.names), **dict.fromkeys(self.totals.rules)}:
            yield name, self.totals.rules.get(name, nothing)

    def samples(self, metric: Metric) -> Samples:
        if metric in WORKER.metrics:
            yield from _samples(metric, self.totals.cells, {})
        elif metric in SERVICE.metrics:
            yield from _samples(metric, self.state.cells, {})
        elif metric in RULE.metrics:
            for rule, cells in self.rules():
                yield from _samples(metric, cells, {"rule": rule})
        elif metric in LOG.metrics and self.deliveries:
            yield from _of_log(metric, self.deliveries, self.state.names)
        elif metric is PAUSED:
            for rule, _ in self.rules():
                pause = self.pauses.get(rule)
                yield "", {"rule": rule}, pause.since if pause else 0.0
        else:
            yield "_info", _WORKED_OUT[metric.name](self), 1


class Collector:
    """Gives prometheus_client the metrics as they are now."""

    def __init__(self, numbers: SharedCounters, directory: Path | None = None) -> None:
        self._numbers = numbers
        self._directory = directory

    def generation(self) -> Generation:
        """Return what changes with the rules, the pauses or the workers, but not with mail."""
        return self._numbers.generation(), self._pauses()

    def seen(self) -> Snapshot:
        """Look at all numbers, and at the pauses."""
        word = self._numbers.deliveries.read()
        deliveries = Deliveries(**word) if word else None
        return Snapshot(self._numbers.state(), self._numbers.totals(), deliveries, self._pauses())

    def _pauses(self) -> dict[str, Pause]:
        return current(self._directory) if self._directory else {}

    def collect(self) -> Iterator[Family]:
        """Yield each metric with its samples."""
        seen = self.seen()
        deliveries = seen.deliveries
        for metric in METRICS:
            if metric in LOG.metrics and not deliveries:
                continue
            name = f"crm_milter_{metric.name}"
            family = Family(name, metric.help, metric.kind, metric.unit)
            # Never a list: that of a thousand rules would take ten megabytes.
            family.samples = _named(name, seen.samples(metric))  # type: ignore[assignment]
            yield family


def _named(name: str, samples: Samples) -> Iterable[Sample]:
    return (Sample(name + suffix, labels, value) for suffix, labels, value in samples)


def _samples(metric: Metric, cells: list[float], labels: Labels) -> Samples:
    if metric.bounds:
        yield from _histogram(metric, cells, labels)
        return
    suffix = _SUFFIXES.get(metric.kind, "")
    for cell, value in zip(metric.cells, metric.values, strict=True):
        yield suffix, {**labels, metric.label: value} if metric.label else labels, cells[cell]


def _histogram(metric: Metric, cells: list[float] | dict[int, float], labels: Labels) -> Samples:
    *buckets, total = (cells[cell] for cell in metric.cells)
    counts = list(accumulate(buckets))
    for bound, count in zip((*metric.bounds, math.inf), counts, strict=True):
        yield "_bucket", {**labels, "le": "+Inf" if bound == math.inf else str(bound)}, count
    yield "_count", labels, counts[-1]
    yield "_sum", labels, total


def _of_log(metric: Metric, seen: Deliveries, rules: tuple[str, ...]) -> Samples:
    """Yield samples; the first rules have theirs before there was mail, as others are too many."""
    if metric is DELIVERIES:
        counts = {(rule, "target", outcome): 0 for rule in rules for outcome in metric.values}
        counts.update(((rule, "dead_letter", "sent"), 0) for rule in rules)
        counts.update(((rule, kind, outcome), count) for rule, kind, outcome, count in seen.counts)
        for (rule, kind, outcome), count in counts.items():
            yield "_total", {"rule": rule, "kind": kind, "outcome": outcome}, count
    elif metric is DELIVERY_SECONDS:
        yield from _histogram(metric, dict(zip(metric.cells, seen.seconds, strict=True)), {})
    elif metric is catalogue.UNDELIVERED:
        for rule, age in {**dict.fromkeys(rules, 0.0), **seen.ages()}.items():
            yield "", {"rule": rule}, age
    elif metric is catalogue.DROPPED:
        yield "_total", {}, seen.dropped
    else:
        yield "", {}, seen.is_readable


def _config(seen: Snapshot) -> Labels:
    return {"sha256": seen.state.digest}


def _build(_seen: Snapshot) -> Labels:
    try:
        pymilter = metadata.version("pymilter")
    except metadata.PackageNotFoundError:  # it was installed by other means
        pymilter = "unknown"
    python = platform.python_version()
    return {"version": __version__, "pymilter": pymilter, "python": python}


_WORKED_OUT: dict[str, Callable[[Snapshot], Labels]] = {CONFIG.name: _config, BUILD.name: _build}
