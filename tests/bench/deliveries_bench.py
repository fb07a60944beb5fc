"""What counting deliveries costs: a log written at 200 messages a second, all of them rerouted.

    .venv/bin/python tests/bench/deliveries_bench.py [SECONDS] [MESSAGES A SECOND]

Each message has a copy, seven lines of Postfix and one of crm-milter; every tenth is deferred once.
Prints the CPU time of the follower as a share of one CPU, and its memory; then the time to catch
up with as much that was written while it was not there.
"""

import os
import socket
import sys
import tempfile
import time
from pathlib import Path

from crm_milter.config.load import Config, parse
from crm_milter.daemon import deliveries
from crm_milter.metrics.memory import Board

RULES = """
spam: {headers: [{name: X-Spam, value: "yes"}]}
metrics: {deliveries: LOG}
rules:
  - name: support
    match: help@solarmora.com
    replace_with: support@v1su0245ewejzhe7.case.my-crm.com
    also_deliver_to: team@solarmora.com
"""
CRM, TEAM = "support@v1su0245ewejzhe7.case.my-crm.com", "team@solarmora.com"


def message(number: int) -> str:
    """The lines of one message."""
    queue_id = f"4{number:09X}Z"
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S.123456+00:00 mx ", time.gmtime())
    client = f"{queue_id}: client=mail{number % 89}.example[192.0.2.1]"
    active = f"{queue_id}: from=<c@customer.example>, size=4711, nrcpt=2 (queue active)"
    through = "relay=mx.example[198.51.100.7]:25, delay=0.42, delays=0.01/0.01/0.2/0.2, dsn=2.0.0"
    lines = [
        f"postfix/smtpd[12]: connect from mail{number % 89}.example[192.0.2.1]",
        f"postfix/smtpd[12]: {client}",
        f"postfix/cleanup[13]: {queue_id}: message-id=<{number}@customer.example>",
        f"crm-milter[7]: {queue_id}: rerouted: to=<help@solarmora.com> new=<{CRM}> rule=support"
        " copies=1 verdict=ham",
        f"postfix/qmgr[9]: {active}",
        "postfix/smtpd[12]: disconnect from mail.example[192.0.2.1] ehlo=1 mail=1 commands=5",
    ]
    if number % 10 == 0:
        lines.append(
            f"postfix/smtp[14]: {queue_id}: to=<{CRM}>, {through}, status=deferred (later)"
        )
        lines.append(f"postfix/qmgr[9]: {active}")
    said = "250 2.0.0 Ok: queued as 5B2C1"
    lines += [
        f"postfix/smtp[14]: {queue_id}: to=<{each}>, {through}, status=sent ({said})"
        for each in (CRM, TEAM)
    ]
    lines.append(f"postfix/qmgr[9]: {queue_id}: removed")
    return "".join(f"{stamp}{each}\n" for each in lines)


def follow(config: Config, folder: Path, board: Board) -> tuple[int, socket.socket]:
    """Start a follower; its process id, and what ends it when it is closed."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        os._exit(
            deliveries.run(
                deliveries.wanted(config), folder, (board, Board("state")), theirs, print
            )
        )
    theirs.close()
    return pid, ours


def total(board: Board) -> int:
    """How many were sent."""
    word = board.read()
    return sum(count for *_, outcome, count in word["counts"] if outcome == "sent") if word else 0


def wait(board: Board, count: int) -> None:
    """Return when so many were counted."""
    while total(board) < count:
        time.sleep(0.05)


def live(config: Config, log: Path, seconds: int, rate: int) -> int:
    """Write and follow; the number of messages."""
    board = Board("live")
    pid, channel = follow(config, log.parent, board)
    while board.read() is None:
        time.sleep(0.05)
    number, began = 0, time.monotonic()
    with log.open("a") as stream:
        while number < seconds * rate:
            due = int((time.monotonic() - began) * rate)
            stream.write("".join(message(each) for each in range(number, due)))
            stream.flush()
            number = max(number, due)
            time.sleep(0.02)
    took = time.monotonic() - began
    wait(board, 2 * number)
    channel.close()
    _, _, usage = os.wait4(pid, 0)
    cpu = usage.ru_utime + usage.ru_stime
    print(
        f"{number:,} messages in {took:.0f} s: {cpu:.2f} s CPU, {100 * cpu / took:.1f} % of one"
        f" CPU, {usage.ru_maxrss >> 10} MiB at most"
    )
    return number


def catch_up(config: Config, log: Path, first: int, count: int) -> None:
    """Follow what was written meanwhile."""
    with log.open("a") as stream:
        stream.writelines(message(each) for each in range(first, first + count))
    board = Board("late")
    began = time.monotonic()
    pid, channel = follow(config, log.parent, board)
    wait(board, 2 * (first + count))
    took = time.monotonic() - began
    channel.close()
    os.wait4(pid, 0)
    print(f"{count:,} messages caught up in {took:.1f} s")


def main() -> None:
    """Measure both."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    rate = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "mail.log"
        log.touch()
        config = parse(RULES.replace("LOG", str(log)), log)
        number = live(config, log, seconds, rate)
        catch_up(config, log, number, number)


if __name__ == "__main__":
    main()
