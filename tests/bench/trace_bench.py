"""How fast ``crm-milter trace`` is: a log of a million lines, plain and compressed.

    .venv/bin/python tests/bench/trace_bench.py [LINES]

Prints seconds of wall clock and the largest memory of each command, in processes of their own.
"""

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

START = datetime(2026, 11, 1)
EVERY = 10  # every tenth message is for an address that is rerouted


def write_log(path: Path, count: int) -> tuple[str, str]:
    """Write a log of about ``count`` lines; the first and the last queue id in it."""
    first = last = ""
    with path.open("w") as log:
        for number in range(count // 7):
            last = f"4{number:09X}Z"
            first = first or last
            stamp = (START + timedelta(seconds=number)).strftime("%b %d %H:%M:%S")
            log.write(message(stamp, last, number))
    return first, last


def message(stamp: str, queue_id: str, number: int) -> str:
    """The lines of one message, seven of Postfix's and perhaps one of ours."""
    routed = number % EVERY == 0
    to = "support@v1su0245ewejzhe7.case.my-crm.com" if routed else f"user{number % 977}@x.example"
    said = "250 2.0.0 Ok: queued as 5B2C1"
    status = f"deferred (connect to {to}: refused)" if number % 9973 == 0 else f"sent ({said})"
    ours = (
        f"{stamp} mx crm-milter[77]: {queue_id}: rerouted: to=<help@solarmora.com> new=<{to}>"
        " rule=support copies=0 verdict=ham\n"
        if routed
        else ""
    )
    return (
        f"{stamp} mx postfix/smtpd[1234]: connect from mail{number % 89}.example[192.0.2.1]\n"
        f"{stamp} mx postfix/smtpd[1234]: {queue_id}: client=mail{number % 89}.example[192.0.2.1]\n"
        f"{stamp} mx postfix/cleanup[1236]: {queue_id}: message-id=<{number}@customer.example>\n"
        f"{ours}"
        f"{stamp} mx postfix/qmgr[12]: {queue_id}: from=<c{number}@customer.example>, size=4711,"
        " nrcpt=1 (queue active)\n"
        f"{stamp} mx postfix/smtpd[1234]: disconnect from mail{number % 89}.example[192.0.2.1]"
        " ehlo=1 mail=1 rcpt=1 data=1 quit=1 commands=5\n"
        f"{stamp} mx postfix/smtp[1240]: {queue_id}: to=<{to}>, relay=mx.example[198.51.100.7]:25,"
        f" delay=0.42, delays=0.01/0.01/0.2/0.2, dsn=2.0.0, status={status}\n"
        f"{stamp} mx postfix/qmgr[12]: {queue_id}: removed\n"
    )


def measure(title: str, *arguments: str) -> None:
    """Run one trace and print what it took."""
    program = str(Path(sys.executable).with_name("crm-milter"))
    began = time.monotonic()
    with subprocess.Popen([program, "trace", *arguments], stdout=subprocess.PIPE) as process:
        output = process.stdout.read() if process.stdout else b""
        _, _, usage = os.wait4(process.pid, 0)
        process.returncode = 0
    took = time.monotonic() - began
    cpu = usage.ru_utime + usage.ru_stime
    lines = output.count(b"\n")
    print(
        f"{title:<34}{took:6.2f} s  {cpu:6.2f} s CPU {usage.ru_maxrss >> 10:5} MiB {lines:6} lines"
    )


def main() -> None:
    """Write the log, then trace in it."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        plain, packed = Path(folder) / "mail.log", Path(folder) / "mail.log.1.gz"
        first, last = write_log(plain, count)
        # Not in memory: a child's largest memory counts from that of its parent.
        with plain.open("rb") as source, gzip.open(packed, "wb", 6) as target:
            shutil.copyfileobj(source, target)
        print(
            f"{count:,} lines, {plain.stat().st_size >> 20} MiB, {packed.stat().st_size >> 20} gz"
        )
        measure("queue id, at the beginning", first, "--log", str(plain))
        measure("queue id, at the end", last, "--log", str(plain))
        measure("queue id, in a .gz", last, "--log", str(packed))
        measure("address, 100 of its messages", "help@solarmora.com", "--log", str(plain))
        arguments = ("help@solarmora.com", "--limit", "20000", "--log", str(plain))
        measure("address, all of its messages", *arguments)
        measure("address in a .gz", "c7@customer.example", "--log", str(packed))
        measure("--failing", "--failing", "--log", str(plain))


if __name__ == "__main__":
    main()
