"""What scraping costs the mail: the load of bench.py, with and without scrapes, in turn.

    python tests/bench/scrape_bench.py [--scrapes 100] [--rules 10] [--rounds 7]

Printed are the rates with and without, the median of the ratios of the same round with its 95 %
bootstrap interval, and how many scrapes a second came to their end. The client that scrapes takes
its processor time from the same machine; a real one would not.
"""

import argparse
import multiprocessing
import socket
import statistics
import sys
import time
from contextlib import ExitStack, nullcontext
from multiprocessing.sharedctypes import Synchronized

from bench import OURS, Bench, BenchError, Server, installed, ratio_text, workshop

_UNREAD = bytearray(1 << 20)


def scrape(port: int) -> int:
    """One scrape; how many bytes it brought."""
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        total = 0
        # The bytes are thrown away where they are (tcp(7)): the client's work is not of interest.
        while got := connection.recv_into(_UNREAD, 0, socket.MSG_TRUNC):
            total += got
    if total < 2000:
        raise BenchError(f"a scrape brought {total} bytes")
    return total


def scrape_on(port: int, per_second: int, done: "Synchronized[int]") -> None:
    """Scrape for ever, so often, and count."""
    due = time.monotonic()
    while True:
        scrape(port)
        done.value += 1
        due += 1 / per_second
        time.sleep(max(0.0, due - time.monotonic()))


class Scraper:
    """A process that scrapes while the block runs; `rate` is what it came to."""

    def __init__(self, port: int, per_second: int) -> None:
        self._done = multiprocessing.Value("q", 0)
        self._process = multiprocessing.Process(
            target=scrape_on, args=(port, per_second, self._done), daemon=True
        )
        self.rate = 0.0

    def __enter__(self) -> "Scraper":
        self._process.start()
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.rate = self._done.value / (time.monotonic() - self._began)
        self._process.kill()
        self._process.join()


def measure(
    bench: Bench, server: Server, scrapes: int
) -> tuple[list[float], list[float], list[float]]:
    """The rates of messages without and with scrapes, and the rates of scrapes."""
    without, beside, rates = [], [], []
    for number in range(bench.rounds + 1):
        rate: dict[bool, float] = {}
        for scraping in (True, False) if number % 2 else (False, True):
            with Scraper(server.metrics_port, scrapes) if scraping else nullcontext() as scraper:
                rate[scraping] = bench.load(server, "-p", "100")["rate"]
            if scraper and number > 0:
                rates.append(scraper.rate)
        if number > 0:  # the first round warms up
            without.append(rate[False])
            beside.append(rate[True])
    return without, beside, rates


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scrapes", type=int, default=100, help="a second (100)")
    parser.add_argument("--rules", type=int, default=10, help="rules (10)")
    parser.add_argument("--rounds", type=int, default=7, help="measured rounds (7)")
    parser.add_argument("--messages", type=int, default=20_000, help="messages a run (20000)")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = stack.enter_context(workshop())
        bench = Bench(
            *(folder, {OURS: installed()}, options.rounds, options.messages),
            *("auto", options.rules, stack),
        )
        without, beside, rates = measure(bench, bench.start(OURS), options.scrapes)
    print(
        f"{options.rules} rules: {statistics.median(without):.0f} messages/s without scrapes, "
        f"{statistics.median(beside):.0f} beside {statistics.median(rates):.0f} scrapes/s, "
        f"ratio {ratio_text(beside, without)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
