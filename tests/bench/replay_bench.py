"""How fast ``crm-milter replay`` is: an mbox file and a Maildir of old mail.

    .venv/bin/python tests/bench/replay_bench.py [MESSAGES [KILOBYTES]]

Prints seconds of wall clock and of CPU time and the largest memory of each run, in processes of
their own, and of a tenth of the mail: memory should be the same.
"""

import gzip
import os
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

START = datetime(2026, 1, 5, 8, tzinfo=UTC)
CONFIG = """
unrouted_to: it@solarmora.com
spam: rspamd
rules:
  - {name: vip, match: help@solarmora.com, senders: "@bigcustomer.example", replace_with: vip@acme.zendesk.com}
  - {name: support, match: help@solarmora.com, replace_with: support@acme.zendesk.com}
  - {name: cases, match: "case-*@solarmora.com", replace_with: 'case-\\1@acme.zendesk.com'}
"""  # noqa: E501
HEADER = """Return-Path: <user{n}@customer{m}.example>
X-Original-To: {to}
Delivered-To: it@mail.solarmora.com
Received: from mx.customer{m}.example (mx.customer{m}.example [192.0.2.{m}])
	by mail.solarmora.com (Postfix) with ESMTPS id 4bXq1Z{n}
	for <{to}>; {date}
Authentication-Results: mail.solarmora.com; dkim=pass header.d=customer{m}.example;
	spf=pass smtp.mailfrom=customer{m}.example; dmarc=pass header.from=customer{m}.example
DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=customer{m}.example; s=s1; t=1796000000;
	h=from:to:subject:date:message-id; bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;
	b=dzdVyOfAKCdLXdJOc9G2q8LoXSlEniSbav+yuU4zGeeruD00lszZVoG4ZHRNiYzRabcdefghijklmnopqrstuv
Received: from [10.0.0.7] by mx.customer{m}.example with ESMTPSA; {date}
From: =?utf-8?q?J=C3=B6rg?= <user{n}@customer{m}.example>
To: Support <{to}>
Cc: colleague@customer{m}.example
Subject: Order {n}
Date: {date}
Message-ID: <{n}@customer{m}.example>
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8
X-Spam-Status: No, score=-0.1

"""


def message(number: int, body: bytes) -> bytes:
    """One message; every tenth is for a pattern, every twentieth is spam."""
    to = f"case-{number}@solarmora.com" if number % 10 == 0 else "help@solarmora.com"
    date = format_datetime(START + timedelta(seconds=40 * number))
    head = HEADER.format(n=number, m=number % 97, to=to, date=date)
    spam = "X-Spam: Yes\n" if number % 20 == 0 else ""
    return (spam + head).encode() + body


def make(folder: Path, count: int, size: int) -> tuple[Path, Path, Path]:
    """Write the mail as an mbox file, the same compressed, and a Maildir."""
    body = (
        b"0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWX\n" * (size // 64)
    ) + b"\n"
    mbox, maildir = folder / f"{count}.mbox", folder / f"{count}.maildir"
    for name in ("cur", "new", "tmp"):
        (maildir / name).mkdir(parents=True)
    with mbox.open("wb") as stream:
        for number in range(count):
            stamp = (START + timedelta(seconds=40 * number)).ctime()
            text = message(number, body)
            stream.write(f"From user@customer.example {stamp}\n".encode() + text + b"\n")
            (maildir / "cur" / f"{1767600000 + 40 * number}.{number}.host:2,S").write_bytes(text)
    packed = mbox.with_suffix(".mbox.gz")
    with mbox.open("rb") as plain, gzip.open(packed, "wb", compresslevel=1) as target:
        shutil.copyfileobj(plain, target)
    return mbox, packed, maildir


def measured(*arguments: object) -> tuple[float, float, int]:
    """Run replay: seconds of wall clock, of CPU, and megabytes of memory."""
    command = [sys.executable, "-m", "crm_milter.cli.main", "replay", *map(str, arguments)]
    start = time.monotonic()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = status
    assert status == 0
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss >> 10


def main() -> None:
    """Measure."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    size = 1024 * (int(sys.argv[2]) if len(sys.argv) > 2 else 20)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = folder / "crm-milter.yaml"
        config.write_text(CONFIG)
        for number in (count // 10, count):
            for path in make(folder, number, size):
                wall, cpu, memory = measured("--config", config, path)
                times = f"{wall:6.2f} s  {cpu:6.2f} s CPU"
                print(f"{number:7} messages  {path.suffix:8}  {times}  {memory} MB")


if __name__ == "__main__":
    main()
