"""What the worst messages cost, and how long the mail of others waits meanwhile.

    python tests/bench/hostile_bench.py                 every shape
    python tests/bench/hostile_bench.py --shape folded  only those whose name has that in it
    python tests/bench/hostile_bench.py --tiny          fields of a few bytes as well

The installed crm-milter, with one worker, gets messages of 10 MB of header fields over the milter
protocol, from one connection, with 1,000 recipients of 1,000 rules, whose conditions ask for the
header. A second connection sends ordinary mail all the while. Shown are the seconds from the first
packet to the answer, the processor time of the milter, and the longest wait of the other
connection. Exit status 1 if a message took more than 1 s or another waited for more than 250 ms.

Each field is a packet of its own, so that millions of a few bytes take libmilter seconds before a
filter sees them. The rows of tiny fields have no limit but that of waiting; beside them stands the
processor time of the C floor (floor.c), which looks at the name of each field and no more.
"""

import argparse
import os
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "helpers"), str(HERE.parents[1] / "postfix")]

from mta import Mta  # noqa: E402

from lab.base import wait_for  # noqa: E402
from lab.milter import Milter  # noqa: E402

SIZE = 10 << 20
MAX_SECONDS, MAX_WAIT = 1.0, 0.25
FIELD = 60_000  # bytes at which Postfix cuts a field

Fields = Iterator[tuple[bytes, bytes]]


def filled(name: bytes, value: bytes) -> Callable[[], Fields]:
    """10 MB of one field."""

    def fields() -> Fields:
        for _ in range(SIZE // (len(name) + len(value) + 4) + 1):
            yield name, value

    return fields


def repeated(part: bytes) -> bytes:
    return part * (FIELD // len(part))


FOLDED = repeated(b"a" + b" " * 5000 + b"b\n\t c")
SHAPES = {
    "folded blanks in X-Spam-Status": filled(b"X-Spam-Status", FOLDED),
    "folded blanks in From": filled(b"From", FOLDED),
    "line breaks in X-Spam-Flag": filled(b"X-Spam-Flag", repeated(b"\n ")),
    "nested comments in From": filled(b"From", repeated(b"(")),
    "nested comments in Auto-Submitted": filled(b"Auto-Submitted", repeated(b"(")),
    "quotes in From": filled(b"From", repeated(b'"\\')),
    "addresses in From": filled(b"From", repeated(b"a@crm.example, ")),
    "signs in From": filled(b"From", repeated(b"@")),
    "thousands of X-Spam-Flag": filled(b"X-Spam-Flag", b"perhaps " * 250),
    "thousands of From": filled(b"From", b"Joe <joe@customer.example>, " * 70),
    "thousands of markers": filled(b"X-CRM-Milter", b"0" * 2000),
    "thousands of Resent-From": filled(b"Resent-From", b"joe@customer.example " * 95),
    "blanks in Message-ID": filled(b"Message-ID", repeated(b" ")),
    "nested comments in Authentication-Results": filled(
        b"Authentication-Results", b"mail.solarmora.com; " + repeated(b"(")
    ),
    "results in Authentication-Results": filled(
        b"Authentication-Results", b"mail.solarmora.com" + repeated(b"; dmarc=none")
    ),
    "quotes in Authentication-Results": filled(
        b"Authentication-Results", b'mail.solarmora.com; dmarc="' + repeated(b'\\"')
    ),
    "parameters in Content-Type": filled(
        b"Content-Type", b"multipart/report" + repeated(b";report-type*1=")
    ),
    "thousands of Precedence": filled(b"Precedence", b"first-class " * 150),
    "encoded words in Subject": filled(b"Subject", repeated(b"=?utf-8?q?=41_?= ")),
    "open words in Subject": filled(b"Subject", repeated(b"=?utf-8?q?")),
    "beginnings of a match in Subject": filled(b"Subject", repeated(b"[ticket ")),
    "thousands of References": filled(b"References", b"<a@customer.example> " * 95),
    "addresses in To": filled(b"To", repeated(b"help@solarmora.com, ")),
    "comments in To": filled(b"To", repeated(b"(")),
    "thousands of Cc": filled(b"Cc", b"Joe <joe@customer.example>, " * 70),
    "nothing that is read": filled(b"X-Other", b"x" * 2000),
}


TINY = {
    "tiny fields": filled(b"a", b""),
    "tiny From": filled(b"From", b"a@b"),
    "tiny X-Spam-Flag": filled(b"X-Spam-Flag", b"x"),
}
RULES = 1000
CONFIG = """
milter: {listen: LISTEN, socket_mode: "0666", workers: 1}
metrics: {listen: none}
unrouted_to: it@mailboxes.example
spam: {filter: [spamassassin, amavis], no_verdict: leave}
authentication: mail.solarmora.com
rules:
  - name: first
    match: "@solarmora.com"
    headers: {Subject: ["*[ticket #*", '/case [0-9]+#/'], References: "*@old.example*"}
    addressed: to_or_cc
    replace_with: first@crm.example
""" + "".join(
    f"  - {{name: r{n}, match: help{n:04}@solarmora.com, replace_with: c{n}@crm{n}.example,"
    " automatic: leave, on_unauthenticated: leave}\n"
    for n in range(RULES)
)
TICKS = os.sysconf("SC_CLK_TCK")


def packets(fields: Fields) -> bytes:
    """The header as it goes over the wire, without macros."""
    parts = []
    for name, value in fields:
        data = b"L%b\0%b\0" % (name, value)
        parts.append(struct.pack("!L", len(data)) + data)
    return b"".join(parts)


def send(mta: Mta, recipients: int, header: bytes) -> float:
    """Send one message, its header in one write; the seconds until its answer."""
    began = time.monotonic()
    mta.mail()
    for number in range(recipients):
        mta.rcpt(f"<help{number:04}@solarmora.com>")
    mta.data()
    mta.socket.sendall(header)
    mta.end()
    mta.abort()
    return time.monotonic() - began


class Other:
    """Somebody else's connection: ordinary mail, one after the other."""

    def __init__(self, listen: str) -> None:
        self.longest = 0.0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(listen,))

    def _run(self, listen: str) -> None:
        with Mta(listen) as mta:
            mta.connect()
            while not self._stopping.wait(0.01):
                self.longest = max(self.longest, send(mta, 1, ORDINARY))

    def __enter__(self) -> "Other":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()


ORDINARY = packets(iter([(b"From", b"joe@x.example"), (b"X-Spam-Flag", b"NO")]))


def processor_time(pid: int) -> float:
    """Seconds of a process and its children that run."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / TICKS
    return own + sum(processor_time(int(each)) for each in children)


def measure(milter: Milter, header: bytes) -> tuple[float, float, float]:
    """Seconds of one message, of the processor, and the longest wait of the other meanwhile."""
    before = processor_time(milter.pid)
    with Mta(milter.address) as mta:
        mta.connect()
        mta.socket.settimeout(600)
        with Other(milter.address) as other:
            seconds = send(mta, RULES, header)
    return seconds, processor_time(milter.pid) - before, other.longest


def of_floor(header: bytes) -> float:
    """The seconds of processor time that the C floor takes for the same header."""
    with tempfile.TemporaryDirectory() as folder:
        program, listen = f"{folder}/floor", f"unix:{folder}/socket"
        source = str(HERE / "floor.c")
        subprocess.run(["cc", "-O2", "-o", program, source, "-lmilter", "-lpthread"], check=True)
        with subprocess.Popen([program, listen]) as process:
            try:
                wait_for("the floor", Path(f"{folder}/socket").exists)
                with Mta(listen) as mta:
                    mta.connect()
                    mta.socket.settimeout(600)
                    send(mta, 1, header)
                return processor_time(process.pid)
            finally:
                process.kill()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="", help="only shapes with this in their name")
    parser.add_argument("--tiny", action="store_true", help="the rows of tiny fields as well")
    options = parser.parse_args()
    print(f"{'shape':42} {'MB':>5} {'seconds':>8} {'CPU':>6} {'others, ms':>11} {'floor CPU':>10}")
    missed = False
    with Milter(CONFIG) as milter:
        for name, fields in (SHAPES | (TINY if options.tiny else {})).items():
            if options.shape not in name:
                continue
            header = packets(fields())
            seconds, busy, wait = measure(milter, header)
            floor = f"{of_floor(header):10.2f}" if name in TINY else ""
            size = len(header) / 1e6
            print(f"{name:42} {size:5.1f} {seconds:8.3f} {busy:6.2f} {wait * 1000:11.1f} {floor}")
            sys.stdout.flush()
            missed |= wait > MAX_WAIT or (seconds > MAX_SECONDS and name not in TINY)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
