"""The real unit under load: restart, upgrade and a supervisor that dies refuse no message."""

import contextlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mailhost import CONFIG_FILE, Load, MailHost
from pods import wait_for

LONG = os.environ.get("CRM_MILTER_LONG", "") not in ("", "0")
TIMES = 100 if LONG else 10
KILLS = 40 if LONG else 8
BAD = "rules: nonsense\n"

Record = Callable[[str, object], None]

# Sessions of SMTP, one after another, that do nothing for half of drain_timeout, or until the input
# ends, and then send a message each. Prints the ids and the replies.
IDLE = """
import json, select, smtplib, sys
replies, number = {}, 0
while True:
    session = smtplib.SMTP(sys.argv[1], timeout=300)
    session.ehlo("idle.example")
    print("ready", flush=True)
    ended = select.select([sys.stdin], [], [], 30)[0]
    number += 1
    head = f"From: anna@customer.example\\r\\nX-Spam: no\\r\\nX-Test-Id: idle{number}\\r\\n"
    replies[f"idle{number}"] = 250
    try:
        session.sendmail("anna@customer.example", ["help@solarmora.com"], f"{head}\\r\\nhello")
    except smtplib.SMTPException as error:
        replies[f"idle{number}"] = repr(error)
    if ended:
        break
print(json.dumps(replies))
"""


@pytest.fixture(autouse=True)
def _fresh(attached: MailHost) -> Iterator[None]:
    attached.forget()
    yield
    attached.run("systemctl", "reset-failed", "crm-milter", check=False)


def _left_behind(host: MailHost) -> list[str]:
    """Return the processes of the unit that do not descend from the main one."""
    main = host.show("MainPID")
    lines = host.run("ps", "-o", "pid=,ppid=", "-u", "crm-milter").splitlines()
    parents = dict(line.split() for line in lines)
    ours = {main}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sorted(parents.keys() - ours)


@contextlib.contextmanager
def _busy(host: MailHost, record: Record, may_see: frozenset[str] = frozenset()) -> Iterator[Load]:
    """Load, and sessions that are idle, while the block lasts; then nothing is missing."""
    process = host._world.start("python3", "-c", IDLE, host.address)
    assert process.stdout.readline() == "ready\n"
    with host.load() as load:
        yield load
        time.sleep(1)
    idle = json.loads(process.communicate(timeout=60)[0].splitlines()[-1])
    refused = [reply for reply in idle.values() if reply != 250]
    record("replies, idle sessions, of them refused", (load.replies, len(idle), refused))
    assert not refused or may_see
    load.accepted.extend(name for name, reply in idle.items() if reply == 250)
    load.prove(host)
    assert {"250"} <= set(load.replies) <= {"250"} | may_see


@contextlib.contextmanager
def _good_and_bad(host: MailHost) -> Iterator[Callable[[int], None]]:
    """Yield a function that writes a bad file each third time, else the good one."""
    good = host.read(CONFIG_FILE)
    try:
        yield lambda turn: host.write(CONFIG_FILE, BAD if turn % 3 == 1 else good)
    finally:
        host.write(CONFIG_FILE, good)
        host.run("systemctl", "reload", "crm-milter")


def test_restarts_refuse_nothing(attached: MailHost, record_property: Record) -> None:
    with _good_and_bad(attached) as write, _busy(attached, record_property):
        for turn in range(TIMES):
            write(turn)
            attached.run("systemctl", "restart", "crm-milter")
    wait_for("the old workers' end", lambda: not _left_behind(attached), 90)


def test_reloads_refuse_nothing(attached: MailHost, record_property: Record) -> None:
    with _good_and_bad(attached) as write, _busy(attached, record_property):
        for turn in range(TIMES):
            write(turn)
            status = attached.status_of("systemctl", "reload", "crm-milter")
            assert (status != 0) == (turn % 3 == 1)


def test_restarts_close_together_refuse_nothing(
    attached: MailHost, record_property: Record
) -> None:
    """Also while the one before has not ended, and with reloads and signals between them."""
    burst = """
for each in 1 2 3; do systemctl restart --no-block crm-milter; sleep 0.2; done
systemctl reload --no-block crm-milter
systemctl kill --kill-who=main --signal=HUP crm-milter
systemctl restart crm-milter
"""
    with _busy(attached, record_property):
        for _ in range(TIMES // 10 + 2):
            attached.run("sh", "-c", burst)
    assert attached.show("ActiveState") == "active"
    wait_for("the old workers' end", lambda: not _left_behind(attached), 90)


def test_killed_at_random_nothing_is_lost(attached: MailHost, record_property: Record) -> None:
    """Only the sessions of a killed worker may see 451: four, of five messages, and the idle."""
    dead = 0
    with _busy(attached, record_property, frozenset({"451"})) as load:
        for _ in range(KILLS):
            main = attached.show("MainPID")
            pids = attached.run("pgrep", "-u", "crm-milter", "-P", main, check=False).split()
            victim = random.choice([main, *pids])
            dead += victim != main
            attached.run("kill", "-KILL", victim, check=False)
            time.sleep(2.6)  # five deaths of workers within ten seconds end the service
    record_property("kills, of them below the supervisor", (KILLS, dead))
    assert load.replies["451"] <= 20 * dead
    wait_for("the service", lambda: attached.show("ActiveState") == "active")


def test_a_killed_supervisor_refuses_nothing(attached: MailHost) -> None:
    with attached.load() as load:
        for _ in range(3):
            before = attached.show("MainPID")
            attached.run("kill", "-KILL", before)
            wait_for("the next", lambda old=before: attached.show("MainPID") not in ("0", old))
            time.sleep(2)
    load.prove(attached)
    assert set(load.replies) == {"250"}


def test_a_bad_file_at_a_restart_is_served_by_the_last_good_one(attached: MailHost) -> None:
    good = attached.read(CONFIG_FILE)
    table = attached.read("/etc/postfix/crm-milter-aliases")
    attached.write(CONFIG_FILE, "rules: nonsense\n")
    try:
        with attached.load() as load:
            attached.run("systemctl", "restart", "crm-milter")
            time.sleep(2)
        load.prove(attached)
        assert set(load.replies) == {"250"}
        assert "the last good configuration" in attached.status()
        errors = attached.run("journalctl", "-q", "-o", "cat", "-p", "err", "-u", "crm-milter")
        assert "expected a list" in errors
        assert attached.read("/etc/postfix/crm-milter-aliases") == table
    finally:
        attached.write(CONFIG_FILE, good)
        attached.run("systemctl", "reload", "crm-milter")


def test_a_restart_writes_the_table(attached: MailHost) -> None:
    good = attached.read(CONFIG_FILE)
    attached.write(CONFIG_FILE, good.replace("match: help@", "match: [new@solarmora.com, help@", 1))
    text = attached.read(CONFIG_FILE)
    first = next(line for line in text.splitlines() if "new@solarmora.com" in line)
    attached.write(CONFIG_FILE, text.replace(first, f"{first}]"))
    try:
        attached.run("systemctl", "restart", "crm-milter")
        assert "new@solarmora.com" in attached.read("/etc/postfix/crm-milter-aliases")
    finally:
        attached.write(CONFIG_FILE, good)
        attached.run("systemctl", "restart", "crm-milter")


def test_an_upgrade_refuses_nothing(
    attached: MailHost, newer_package: Path, record_property: Record
) -> None:
    with _busy(attached, record_property):
        attached.install(newer_package)
        time.sleep(2)
    assert attached.run("crm-milter", "--version").startswith("crm-milter 9")


def test_an_upgrade_with_a_bad_file_says_so_and_serves_the_last_good_one(
    attached: MailHost, newer_package: Path
) -> None:
    attached.install(newer_package)
    good = attached.read(CONFIG_FILE)
    attached.write(CONFIG_FILE, BAD)
    try:
        with attached.load() as load:
            said = attached.run("dpkg", "-i", "/tmp/crm-milter.deb", timeout=180)
            time.sleep(2)
        load.prove(attached)
        assert set(load.replies) == {"250"}
        assert f"crm-milter: {CONFIG_FILE} is not valid for this version:" in said
        assert "the last good configuration is served until that is fixed" in said
        assert "the last good configuration" in attached.status()
    finally:
        attached.write(CONFIG_FILE, good)
        attached.run("systemctl", "reload", "crm-milter")
