"""The real unit under load: restart, upgrade and a supervisor that dies refuse no message."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mailhost import CONFIG_FILE, MailHost
from pods import PodError, wait_for

RESTARTS = 100 if os.environ.get("CRM_MILTER_LONG", "") not in ("", "0") else 10

# A session of SMTP that does nothing until its input ends, and then sends a message.
IDLE = """
import smtplib, sys
session = smtplib.SMTP(sys.argv[1], timeout=300)
session.ehlo("idle.example")
print("ready", flush=True)
sys.stdin.read()
session.sendmail("anna@customer.example", ["help@solarmora.com"],
    "From: anna@customer.example\\r\\nX-Spam: no\\r\\nX-Test-Id: idle\\r\\n\\r\\nhello\\r\\n")
print("sent")
"""


@pytest.fixture(autouse=True)
def _fresh(attached: MailHost) -> Iterator[None]:
    attached.forget()
    yield
    attached.run("systemctl", "reset-failed", "crm-milter", check=False)


def _left_behind(host: MailHost) -> list[str]:
    """Return the processes of the unit but the main one and those below it."""
    lines = host.run("ps", "-o", "pid=,ppid=", "-u", "crm-milter").splitlines()
    parents = dict(line.split() for line in lines)
    below = {host.show("MainPID")}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return [*parents.keys() - below]


def test_restarts_refuse_nothing(attached: MailHost) -> None:
    process = attached._world.start("python3", "-c", IDLE, attached.address)
    assert process.stdout.readline() == "ready\n"
    with attached.load() as load:
        for _ in range(RESTARTS):
            attached.run("systemctl", "restart", "crm-milter")
        time.sleep(1)
    answer, _ = process.communicate(timeout=60)
    assert answer == "sent\n"
    load.accepted.append("idle")
    load.prove(attached)
    assert set(load.replies) == {"250"}
    try:
        wait_for("the old workers' end", lambda: not _left_behind(attached), 90)
    except PodError as error:
        tree = attached.run("ps", "-o", "pid,ppid,stat,etimes,args", "-u", "crm-milter")
        raise PodError(f"{error}\n{tree}\n{attached.journal()[-4000:]}") from error


def test_reloads_refuse_nothing(attached: MailHost) -> None:
    with attached.load() as load:
        for _ in range(RESTARTS):
            attached.run("systemctl", "reload", "crm-milter")
        time.sleep(1)
    load.prove(attached)
    assert set(load.replies) == {"250"}


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


def test_an_upgrade_refuses_nothing(attached: MailHost, newer_package: Path) -> None:
    with attached.load() as load:
        attached.install(newer_package)
        time.sleep(2)
    load.prove(attached)
    assert set(load.replies) == {"250"}
    assert attached.run("crm-milter", "--version").startswith("crm-milter 9")
