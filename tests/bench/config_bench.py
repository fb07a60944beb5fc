"""Measures what a large configuration costs to load, and what a decision costs with it.

    python tests/bench/config_bench.py [--rules N]

Each load runs in a process of its own; "peak" is its largest resident set, the interpreter's own
share included. Times are the best of several rounds, in processor time, since others use the
machine as well. A target that is missed is marked with "!" and makes the exit status 1.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from crm_milter.config.load import load
from crm_milter.routing.decide import Policy, decide
from crm_milter.routing.decision import Envelope, Recipient
from crm_milter.rules.conditions import Occasion

HEAD = "unrouted_to: it@mailboxes.example\nspam: rspamd\nrules:\n"
TARGET = "v1su0245ewejzhe7.case.my-crm.com"
ROUNDS = 3
DECISIONS = 2_000  # in a round: short enough to meet a quiet moment
DECISION_ROUNDS = 60
PATTERNS = 100


def rules(count: int) -> str:
    return HEAD + "".join(
        f"  - name: rule-{n}\n    match: help{n}@solarmora.com\n"
        f"    replace_with: support{n}@{TARGET}\n    also_deliver_to: team{n}@solarmora.com\n"
        f"    on_spam: quarantine\n"
        for n in range(count)
    )


def patterns(count: int) -> str:
    return HEAD + "".join(
        f"  - {{name: rule-{n}, match: 'case{n}-*@solarmora.com', replace_with: a{n}@{TARGET}}}\n"
        for n in range(count)
    )


def table(count: int) -> str:
    return "".join(f"help{n}@solarmora.com   support{n}@{TARGET}\n" for n in range(count))


MAP = HEAD + "  - {name: first, match: first@solarmora.com, replace_with: a@crm.example}\n"
MAP += "  - {name: table, address_map: table}\n"


def main() -> int:
    """Run everything, print a line each, and say whether every target was met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rules", type=int, default=100_000, help="rules and entries to load")
    parser.add_argument("--load", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        return load_here(Path(options.load))
    with tempfile.TemporaryDirectory(prefix="config-bench-") as folder:
        good = measure_loads(Path(folder), options.rules)
        good &= measure_decisions(Path(folder), options.rules)
    return 0 if good else 1


def load_here(path: Path) -> int:
    start = time.process_time()
    count = len(load(path).policy.table.rules)
    seconds = time.process_time() - start
    # Not ru_maxrss, which begins with what the parent had when it forked.
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    print(json.dumps({"seconds": seconds, "peak": peak, "rules": count}))
    return 0


def measure_loads(folder: Path, count: int) -> bool:
    files = {
        "rules": (folder / "rules.yaml", rules(count), 5.0, 150),
        "map": (folder / "map.yaml", MAP, 1.0, 100),
    }
    (folder / "table").write_text(table(count))
    good = True
    for name, (path, text, seconds, megabytes) in files.items():
        path.write_text(text)
        command = [sys.executable, __file__, "--load", str(path)]
        runs = [json.loads(subprocess.check_output(command)) for _ in range(ROUNDS)]
        best = min(run["seconds"] for run in runs)
        peak = max(run["peak"] for run in runs) / 1e6
        met = best < seconds and peak < megabytes
        good &= met
        print(
            f"{'' if met else '! '}load {count} {name}: {best:.2f} s (target {seconds:g}),"
            f" peak {peak:.0f} MB (target {megabytes})"
        )
    return good


def measure_decisions(folder: Path, count: int) -> bool:
    """Compare decisions at 1, 1,000 and all rules, one after the other in each round."""
    policies = {size: policy(folder, rules(size)) for size in sorted({1, 1000, count})}
    calls = {f"{size} rules": decision(each, size) for size, each in policies.items()}
    (folder / "table").write_text(table(1))
    calls["1 entry"] = decision(policy(folder, MAP), 1)
    (folder / "table").write_text(table(count))
    calls[f"{count} entries"] = decision(policy(folder, MAP), count)
    costs = dict.fromkeys(calls, float("inf"))
    for _ in range(DECISION_ROUNDS):
        for name, call in calls.items():
            costs[name] = min(costs[name], cost(call))
    good = True
    for name, seconds in costs.items():
        base = costs["1 entry" if "entr" in name else "1 rules"]
        met = seconds < 1.3 * base
        good &= met
        ratio = f"{seconds / base:.2f} of one (target 1.3)"
        print(f"{'' if met else '! '}decision with {name}: {seconds * 1e6:.1f} us, {ratio}")
    return good & measure_patterns(folder)


def measure_patterns(folder: Path) -> bool:
    match = policy(folder, patterns(PATTERNS)).table.match
    good = True
    for address in (f"case{PATTERNS - 1}-77@solarmora.com", "somebody.else@solarmora.com"):
        seconds = min(cost(lambda address=address: match(address)) for _ in range(DECISION_ROUNDS))
        met = seconds < 5e-6
        good &= met
        print(f"{'' if met else '! '}{PATTERNS} patterns, {address}: {seconds * 1e6:.2f} us")
    return good


def policy(folder: Path, text: str) -> Policy:
    path = folder / "bench.yaml"
    path.write_text(text)
    return load(path).policy


def decision(each: Policy, count: int) -> Callable[[], object]:
    """Return a call that looks an address up and decides, for another address each time."""
    numbers = [n * 7919 % count for n in range(1000)]
    addresses = iter(())

    def call() -> object:
        nonlocal addresses
        address = next(addresses, None)
        if address is None:
            addresses = iter([f"help{n}@solarmora.com" for n in numbers])
            address = next(addresses)
        found = each.table.match(address, Occasion("a@customer.example"))
        envelope = Envelope("a@customer.example", (Recipient(address, address, found),))
        return decide(each, envelope, (("x-spam", "no"),))

    return call


def cost(call: Callable[[], object]) -> float:
    start = time.process_time()
    for _ in range(DECISIONS):
        call()
    return (time.process_time() - start) / DECISIONS


if __name__ == "__main__":
    sys.exit(main())
