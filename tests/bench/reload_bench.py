"""Measures the memory of all processes after reloads of a large configuration.

    python tests/bench/reload_bench.py [--rules N] [--reloads N] [--command COMMAND]

"first" is the proportional set size after the first reload, by which every later one is judged:
nothing that is no longer in force may stay. {config} in the command is the configuration file.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from config_bench import rules

from bench import free_port, installed, process_tree

MOST = 1.15  # times the memory after the first reload


def main() -> int:
    """Reload so many times, print a line each, and say whether the memory stayed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rules", type=int, default=100_000, help="rules (100000)")
    parser.add_argument("--reloads", type=int, default=10, help="reloads (10)")
    parser.add_argument("--command", default=installed(), help="the program to measure")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="reload-bench-") as folder:
        sizes = measure(Path(folder), options)
    ratio = max(sizes[2:], default=sizes[-1]) / sizes[1]
    verdict = f"at most {ratio:.2f} times that of the first (target {MOST:g})"
    print(f"{'' if ratio <= MOST else '! '}memory after {options.reloads} reloads: {verdict}")
    return 0 if ratio <= MOST else 1


def measure(folder: Path, options: argparse.Namespace) -> list[float]:
    """The memory after the start and after each reload, in MB."""
    config, log, port = folder / "config.yaml", folder / "log", free_port()
    command = options.command.format(config=config).split()
    sizes: list[float] = []

    def write(number: int) -> None:
        head = f"milter: {{listen: 'unix:{folder}/sock', workers: 2, drain_timeout: 1}}\n"
        head += f"metrics: {{listen: '127.0.0.1:{port}'}}\n# {number}\n"
        config.write_text(head + rules(options.rules))

    write(0)
    with log.open("ab") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env={"HOME": str(folder)})
    try:
        for number in range(options.reloads + 1):
            if number:
                write(number)
                process.send_signal(signal.SIGHUP)
            wait_for(log, number + 1, process)
            scrape(port)
            sizes.append(settled(process.pid))
            each = ", ".join(f"{pss(pid):.0f}" for pid in process_tree(process.pid))
            print(f"after {number} reloads: {sizes[-1]:.0f} MB ({each})", flush=True)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    return sizes


def wait_for(log: Path, times: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while log.read_text().count("serving ") < times:
        if process.poll() is not None or time.monotonic() > deadline:
            sys.exit(f"reload_bench: it does not serve: {log.read_text()[-2000:]}")
        time.sleep(0.1)


def scrape(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
                page.read()
                return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def settled(pid: int) -> float:
    """The memory once two looks, a second apart, agree: old workers have ended by then."""
    last = 0.0
    for _ in range(60):
        size = sum(map(pss, process_tree(pid)))
        if abs(size - last) < 0.5:
            break
        last = size
        time.sleep(1)
    return size


def pss(pid: int) -> float:
    """The proportional set size of a process in MB, 0 if it has ended."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0.0
    lines = (line for line in rollup.splitlines() if line.startswith("Pss:"))
    return int(next(lines).split()[1]) / 1024


if __name__ == "__main__":
    sys.exit(main())
