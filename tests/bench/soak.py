"""Sends mail at full speed, and shows that nothing grows and every message is counted.

    python tests/bench/soak.py                        200,000 messages, half of them matching
    python tests/bench/soak.py --plot soak.png        with a picture (pip install matplotlib)

The load is that of bench.py, which checks every edit. Meanwhile the memory, the descriptors and
the threads of all processes are looked at. After a first quarter, in which caches fill, neither
memory nor descriptors may grow; at the end the page of metrics and the log must name exactly the
messages that were sent. Exit 1 if they do not.
"""

import argparse
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from bench import OURS, Bench, BenchError, Server, installed, process_tree, workshop

RULES = 1000
GROWTH = 1024  # kB that all processes together may grow by, once their caches are full
INTERVAL = 0.05  # seconds between two looks
FEWEST = 20  # looks that say something
PATIENCE = 20.0  # seconds


@dataclass(frozen=True)
class Look:
    """All processes at a moment."""

    seconds: float
    memory: int  # kB resident, the sum
    descriptors: int
    threads: int


def look(server: Server, began: float) -> Look:
    memory = descriptors = threads = 0
    for pid in process_tree(server.process.pid):
        folder = Path(f"/proc/{pid}")
        for line in (folder / "status").read_text().splitlines():
            key, _, value = line.partition(":")
            memory += int(value.split()[0]) if key == "VmRSS" else 0
            threads += int(value) if key == "Threads" else 0
        descriptors += len([*(folder / "fd").iterdir()])
    return Look(time.monotonic() - began, memory, descriptors, threads)


def soak(bench: Bench, server: Server) -> tuple[list[Look], dict[str, int]]:
    """The looks while the load ran, and what the load says it has sent."""
    began = time.monotonic()
    looks = [look(server, began)]
    result = bench.watch(server, lambda: looks.append(look(server, began)), INTERVAL, "-p", "50")
    if len(looks) < FEWEST:
        raise BenchError(f"too few messages for a soak: over after {looks[-1].seconds:.1f} s")
    return looks, result


def settled(server: Server, before: Look) -> Look:
    """The processes once the last session has ended."""
    deadline = time.monotonic() + PATIENCE
    while (now := look(server, 0.0)).descriptors > before.descriptors:
        if time.monotonic() > deadline:
            raise BenchError(f"descriptors: {before.descriptors} before, {now.descriptors} after")
        time.sleep(INTERVAL)
    return now


def counted(server: Server) -> dict[str, int]:
    """What the page of metrics says: messages by outcome, recipients, copies, open sessions."""
    url = f"http://127.0.0.1:{server.metrics_port}/metrics"
    with urllib.request.urlopen(url, timeout=10) as page:
        families = list(text_string_to_metric_families(page.read().decode()))
    found: dict[str, int] = {}
    for sample in (sample for family in families for sample in family.samples):
        name = sample.name.removeprefix("crm_milter_")
        if name in ("messages_total", "recipients_total", "copies_total", "sessions"):
            key = f"{name} {sample.labels.get('outcome', '')}".strip()
            found[key] = found.get(key, 0) + int(sample.value)
    return {key: value for key, value in found.items() if value or key == "sessions"}


def first_page(server: Server) -> None:
    """Wait for the exporter, and for what it counts."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            counted(server)
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(INTERVAL)
        else:
            return


def expected(result: dict[str, int]) -> dict[str, int]:
    matching, others = result["matching"], result["messages"] - result["matching"]
    return {
        "messages_total rerouted": matching,
        "messages_total passed": others,
        "recipients_total replaced": matching,
        "copies_total added": matching,
        "sessions": 0,
    }


def growth(looks: list[Look]) -> int:
    """By how many kB the most of the last quarter is above the most of the second."""
    quarter = max(1, len(looks) // 4)
    second, last = looks[quarter : 2 * quarter], looks[-quarter:]
    return max(each.memory for each in last) - max(each.memory for each in second)


def check(server: Server, looks: list[Look], result: dict[str, int]) -> str:
    """The figures; raises BenchError where one is wrong."""
    after = settled(server, looks[0])
    grown = growth(looks)
    deadline = time.monotonic() + PATIENCE  # a page is kept for some seconds
    while (found := counted(server)) != expected(result) and time.monotonic() < deadline:
        time.sleep(INTERVAL)
    if grown > GROWTH:
        raise BenchError(f"memory grew by {grown} kB")
    if found != expected(result):
        raise BenchError(f"counted {found}, sent {expected(result)}")
    lines = server.log.read_text().count(": rerouted: ")
    if lines != result["matching"]:
        raise BenchError(f"{lines} lines of the log for {result['matching']} messages")
    return (
        f"{result['messages']} messages in {result['seconds']:.1f} s, counters and log exact; "
        f"memory {looks[0].memory} kB before, grown by {grown} kB after the first quarter, "
        f"{after.memory} kB after; descriptors {looks[0].descriptors} before, "
        f"{max(each.descriptors for each in looks)} at most, {after.descriptors} after; "
        f"threads {max(each.threads for each in looks)} at most"
    )


def plot(path: Path, looks: list[Look], title: str) -> None:
    from matplotlib import pyplot  # only here: nobody else needs it

    figure, panes = pyplot.subplots(2, 1, sharex=True, figsize=(8, 5))
    seconds = [each.seconds for each in looks]
    panes[0].plot(seconds, [each.memory / 1024 for each in looks])
    panes[0].set_ylabel("resident, MiB")
    panes[1].plot(seconds, [each.descriptors for each in looks], label="descriptors")
    panes[1].plot(seconds, [each.threads for each in looks], label="threads")
    panes[1].legend()
    panes[1].set_xlabel("seconds")
    for pane in panes:
        pane.set_ylim(0, 1.2 * pane.get_ylim()[1])
        pane.grid(alpha=0.3)
    panes[0].set_title(title, fontsize=9)
    figure.tight_layout()
    figure.savefig(path, dpi=90)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=200_000, help="(200000)")
    parser.add_argument("--plot", type=Path, help="draw a PNG")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(workshop())
        bench = Bench(folder, {OURS: installed()}, 1, options.messages, "auto", RULES, stack)
        bench.metrics = ["deliveries: none"]  # the process for these comes and goes with a log
        server = bench.start(OURS)
        try:
            first_page(server)  # the exporter has its memory from its first page on
            looks, result = soak(bench, server)
            print(check(server, looks, result))
        except BenchError as error:
            print(f"soak: {error}", file=sys.stderr)
            return 1
        if options.plot:
            title = f"{result['messages']:,} messages at {result['per_second']:,.0f} a second"
            plot(options.plot, looks, title)
    return 0


if __name__ == "__main__":
    sys.exit(main())
