"""The metrics by name, type, unit and help, and the samples that the shared numbers give.

This is the one place where they are named; a test checks the table in docs/monitoring.md against
it. The only labels with words of a person are the names of rules, which are ``[a-z0-9._-]``.
"""

import math
import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import accumulate

from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample

from crm_milter import __version__
from crm_milter.metrics.catalogue import (
    BLOCK_CELLS,
    BLOCKS,
    BOUNDS,
    BUCKETS,
    COPIES,
    COPY_OUTCOMES,
    ERRORS,
    LAST_REROUTED,
    MESSAGE_OUTCOMES,
    MESSAGES,
    RECIPIENT_OUTCOMES,
    SECONDS,
    SESSIONS,
    STAGES,
    VERDICT,
    VERDICTS,
)
from crm_milter.metrics.memory import Numbers, State, Totals

Samples = Iterator[tuple[str, dict[str, str], float]]  # suffix of the name, labels, value


@dataclass(frozen=True, slots=True)
class Seen:
    """One look at all numbers."""

    state: State
    totals: Totals

    def rules(self) -> Iterator[tuple[str, list[float]]]:
        """Yield the first rules of the file, and whichever had mail since the start."""
        nothing = [0.0] * BLOCK_CELLS
        for name in {**dict.fromkeys(self.state.names), **dict.fromkeys(self.totals.rules)}:
            yield name, self.totals.rules.get(name, nothing)


@dataclass(frozen=True, slots=True)
class Family:
    """A metric: its name without the prefix and without the suffix that its type brings."""

    name: str
    kind: str
    unit: str
    help: str
    samples: Callable[[Seen], Samples]


class Collector:
    """Gives prometheus_client the metrics as they are now."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers

    def collect(self) -> Iterator[Metric]:
        """Yield each metric with its samples."""
        seen = Seen(self._numbers.state(), self._numbers.totals())
        for family in FAMILIES:
            name = f"crm_milter_{family.name}"
            metric = Metric(name, family.help, family.kind, family.unit)
            # Never a list: that of a thousand rules would take ten megabytes.
            metric.samples = _named(name, family.samples(seen))  # type: ignore[assignment]
            yield metric


def _named(name: str, samples: Samples) -> Iterator[Sample]:
    return (Sample(name + suffix, labels, value) for suffix, labels, value in samples)


def _fixed(first: int, label: str, values: tuple[str, ...]) -> Callable[[Seen], Samples]:
    """Samples of a counter with one cell for each value of its label."""

    def samples(seen: Seen) -> Samples:
        for cell, value in enumerate(values, first):
            yield "_total", {label: value}, seen.totals.cells[cell]

    return samples


def _by_rule(first: int, outcomes: tuple[str, ...]) -> Callable[[Seen], Samples]:
    def samples(seen: Seen) -> Samples:
        for rule, values in seen.rules():
            for cell, outcome in enumerate(outcomes, first):
                yield "_total", {"rule": rule, "outcome": outcome}, values[cell]

    return samples


def _last_rerouted(seen: Seen) -> Samples:
    return (("", {"rule": rule}, values[LAST_REROUTED]) for rule, values in seen.rules())


def _processing(seen: Seen) -> Samples:
    counts = list(accumulate(seen.totals.cells[BUCKETS:BLOCKS]))
    for bound, count in zip((*BOUNDS, math.inf), counts, strict=True):
        yield "_bucket", {"le": "+Inf" if bound == math.inf else str(bound)}, count
    yield "_count", {}, counts[-1]
    yield "_sum", {}, seen.totals.cells[SECONDS]


def _one(value: Callable[[Seen], float], suffix: str = "") -> Callable[[Seen], Samples]:
    return lambda seen: iter([(suffix, {}, value(seen))])


def _config(seen: Seen) -> Samples:
    yield "_info", {"sha256": seen.state.digest}, 1


def _build(_seen: Seen) -> Samples:
    try:
        pymilter = metadata.version("pymilter")
    except metadata.PackageNotFoundError:  # it was installed by other means
        pymilter = "unknown"
    python = platform.python_version()
    yield "_info", {"version": __version__, "pymilter": pymilter, "python": python}, 1


FAMILIES: Iterable[Family] = (
    Family(
        *("messages", "counter", "messages"),
        "Messages by outcome. A message with several outcomes counts once, as the first of:"
        f" {', '.join(MESSAGE_OUTCOMES)}.",
        _fixed(MESSAGES, "outcome", MESSAGE_OUTCOMES),
    ),
    Family(
        *("recipients", "counter", "recipients"),
        "Matched recipients by rule and outcome. In test mode they count only as test.",
        _by_rule(0, RECIPIENT_OUTCOMES),
    ),
    Family(
        *("copies", "counter", "copies"),
        "Copies added, or withheld because the message is spam.",
        _by_rule(COPIES, COPY_OUTCOMES),
    ),
    Family(
        *("spam_verdicts", "counter", "verdicts"),
        "Spam filter verdicts on messages with a matched recipient. none: no verdict"
        " although the filter marks ham. Not counted if no filter is configured.",
        _fixed(VERDICT, "verdict", VERDICTS),
    ),
    Family(
        *("last_rerouted_timestamp_seconds", "gauge", "seconds"),
        "Unix time when the rule last replaced a recipient; 0 if not since the service started.",
        _last_rerouted,
    ),
    Family(
        *("processing_seconds", "histogram", "seconds"),
        "Time spent in milter callbacks per message, in seconds, except callbacks that only"
        " store a header field or count body bytes. Aborted messages are not included.",
        _processing,
    ),
    Family(
        *("sessions", "gauge", "sessions"),
        "Open connections from the mail server.",
        _one(lambda seen: seen.totals.cells[SESSIONS]),
    ),
    Family(
        *("errors", "counter", "errors"),
        "Internal errors by stage. Each is logged, and the message is answered with 451, or left as"
        " it is if it came from sendmail(1).",
        _fixed(ERRORS, "stage", STAGES),
    ),
    Family(
        *("config_last_reload_successful", "gauge", ""),
        "1 if the last reload succeeded, 0 if it failed and the previous rules are still in use.",
        _one(lambda seen: seen.state.reload_good),
    ),
    Family(
        *("config_last_reload_success_timestamp_seconds", "gauge", "seconds"),
        "Unix time when the rules in use were loaded.",
        _one(lambda seen: seen.state.reloaded_at),
    ),
    Family(
        *("config_last_good", "gauge", ""),
        "1 if the last good configuration is served because the file was invalid at the start.",
        _one(lambda seen: seen.state.last_good),
    ),
    Family(
        *("socket_bound", "gauge", ""),
        "1 if the path of the milter socket leads to this instance, 0 if the socket is gone.",
        _one(lambda seen: seen.state.bound),
    ),
    Family(
        *("rules", "gauge", "rules"),
        "Rules in use.",
        _one(lambda seen: seen.state.rules),
    ),
    Family(
        *("config", "info", ""),
        "Always 1. sha256: checksum of the configuration file in use, without included"
        " files, as printed by sha256sum(1).",
        _config,
    ),
    Family(
        *("worker_restarts", "counter", "restarts"),
        "Workers that died and were replaced.",
        _one(lambda seen: seen.state.restarts, "_total"),
    ),
    Family(
        *("workers", "gauge", "workers"),
        "Workers accepting mail.",
        _one(lambda seen: seen.state.serving),
    ),
    Family(
        *("build", "info", ""),
        "1, with the versions of crm-milter, pymilter and Python.",
        _build,
    ),
)
