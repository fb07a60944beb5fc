"""Measures a table in SQLite with a million rows: memory of all processes, cost of a look-up.

    python tests/bench/table_bench.py [--rows N]

Memory is the sum of the proportional set sizes of all processes after some mail, compared with that
of a table with one row. Times are processor time, of interleaved rounds. A target that is missed is
marked with "!" and makes the exit status 1.
"""

import argparse
import re
import sqlite3
import statistics
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "helpers"), str(HERE.parents[1] / "postfix")]

from mta import Mta  # noqa: E402
from procs import group  # noqa: E402
from routes import UNIQUE  # noqa: E402
from serving import Serve  # noqa: E402

from crm_milter.config.load import load  # noqa: E402

MAX_MEMORY = 10  # MB more than with one row
CONFIG = """
unrouted_to: it@solarmora.com
spam: rspamd
rules:
  - {name: tenants, address_map: 'sqlite:tenants.db'}
  - {name: plain, match: help@solarmora.com, replace_with: support@crm.example}
"""
ROUNDS, LOOK_UPS, MESSAGES = 15, 2_000, 400


def fill(path: Path, rows: int) -> None:
    """Write a table of so many rows in a thousand domains."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(UNIQUE)
        listed = ((f"u{n}@t{n % 1000}.example", f"case-{n}@crm.example") for n in range(rows))
        connection.executemany("INSERT INTO routes VALUES (?, ?)", listed)
        connection.commit()


def memory(milter: Serve) -> float:
    """Return what all processes of a milter take, in MB."""
    pss = 0
    for pid in group(milter.pid):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        pss += int(re.search(r"Pss:\s+(\d+) kB", text)[1])  # type: ignore[index]
    return pss / 1024


def with_mail(rows: int) -> float:
    """Return the memory of a milter with a table, after mail for many of its addresses."""
    milter = Serve(CONFIG)
    fill(milter.folder / "tenants.db", rows)
    with milter:
        for number in range(MESSAGES):
            with Mta(milter.address) as mta:
                mta.connect()
                row = number * 2477 % rows
                result = mta.message([f"<u{row}@t{row % 1000}.example>"], [("X-Spam", "no")])
                assert result.of("add"), result
        return memory(milter)


def look_ups(folder: Path, rows: int) -> dict[str, float]:
    """Return microseconds per look-up by what is looked up."""
    fill(folder / "tenants.db", rows)
    (folder / "crm-milter.yaml").write_text(CONFIG)
    table = load(folder / "crm-milter.yaml").policy.table
    asked = {
        "a row": [f"u{n}@t{n % 1000}.example" for n in range(0, rows, max(1, rows // LOOK_UPS))],
        "no row, domain of the table": [f"x{n}@t{n % 1000}.example" for n in range(LOOK_UPS)],
        "another domain": [f"x{n}@other{n}.example" for n in range(LOOK_UPS)],
    }
    times: dict[str, list[float]] = {what: [] for what in asked}
    for _ in range(ROUNDS):
        for what, addresses in asked.items():
            began = time.process_time()
            for address in addresses:
                table.match(address)
            times[what].append((time.process_time() - began) / len(addresses) * 1e6)
    return {what: statistics.median(found) for what, found in times.items()}


def main() -> int:
    """Run everything, print a line each, and say whether every target was met."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    few, many = with_mail(1), with_mail(rows)
    missed = many - few > MAX_MEMORY
    print(f"memory, 1 row: {few:.1f} MB; {rows} rows: {many:.1f} MB{' !' if missed else ''}")
    with tempfile.TemporaryDirectory() as folder:
        for what, cost in look_ups(Path(folder), rows).items():
            print(f"look-up of {what}: {cost:.1f} us")
    return missed


if __name__ == "__main__":
    sys.exit(main())
