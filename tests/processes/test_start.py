"""What a start takes and refuses, what systemd is told, and what the log looks like."""

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import time
from itertools import chain
from pathlib import Path

import pytest
from configs import changed, config, environment
from procs import wait_for_workers, workers

from lab.base import wait_for
from lab.milter import Milter, program

HELP = "<help@solarmora.com>"
HAM = [("Subject", "kaputt"), ("X-Spam-Flag", "NO")]


def serve(path, *, timeout=30):
    """Run a milter that should not stay."""
    command = [*program(), "serve", "--config", path]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


@pytest.mark.parametrize("inet", [False, True], ids=["unix", "inet"])
def test_two_on_one_socket(make_milter, dial, inet):
    first = make_milter(inet=inet)
    session = dial(first)
    second = serve(first.config)
    assert second.returncode == 1
    who = "process" if inet else "crm-milter"  # known by the lock, without asking the socket
    assert re.fullmatch(
        rf"(?s).*crm-milter: [^\n]*another {who} is listening [^\n]*\n", second.stderr
    )
    assert session.message([HELP], HAM).of("delete")
    assert dial(first).message([HELP], HAM).of("delete")
    assert inet or stat.S_ISSOCK(first.socket.stat().st_mode)


def test_the_socket_of_another_program_is_left_alone(make_milter, dial, tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        (tmp_path / "config").write_text(config().replace("LISTEN", f"unix:{path}"))
        ended = serve(tmp_path / "config")
        assert ended.returncode == 1
        assert ended.stderr.endswith(f'another process is listening on "{path}"\n')
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))


def test_a_stale_socket_is_replaced(make_milter, dial):
    milter = Milter(config())
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(milter.socket))
    with milter:
        assert dial(milter).message([HELP], HAM).of("delete")
        assert stat.S_IMODE(milter.socket.stat().st_mode) == 0o666


def test_children_hold_nothing_of_the_supervisor(make_milter):
    """A lock or a channel that a child keeps would outlive the supervisor."""
    milter = make_milter()
    for pid in wait_for_workers(milter):
        targets = [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]
        assert not [each for each in targets if each.endswith(".lock")]
        sockets = [each for each in targets if each.startswith("socket:")]
        assert len(sockets) == 2, "the listener and the channel"


# Processors: number of workers, of usable processors, of those that a quota allows


@pytest.mark.parametrize(
    ("count", "usable", "quota", "pinned"),
    [(2, 2, 2, True), (1, 2, 2, True), (3, 2, 2, True), (2, 1, 2, False), (2, 2, 1, False)],
)
def test_workers_stay_on_a_processor_and_share_them_evenly(
    make_milter, count, usable, quota, pinned
):
    cpus = sorted(os.sched_getaffinity(0))[:usable]
    assert len(cpus) == usable, "this needs two processors"
    statement = f"import os; os.sched_setaffinity(0, {cpus})"
    patch = changed(f"{statement}; processors.PIN = True; workers.quota = lambda: {float(quota)}")
    milter = make_milter(config(milter=f"workers: {count}"), command=patch)
    found = [os.sched_getaffinity(pid) for pid in wait_for_workers(milter, count)]
    if pinned:
        assert {len(each) for each in found} == {1}
        assert len({*chain(*found)}) == min(count, usable)
    else:
        assert found == [{*cpus}] * count


def test_workers_interrupt_nobody(make_milter):
    """Neither the thread that waits for the supervisor, nor those of libmilter."""
    for pid in wait_for_workers(make_milter()):
        threads = [int(each.name) for each in Path(f"/proc/{pid}/task").iterdir()]
        assert len(threads) > 1
        assert {os.sched_getscheduler(each) for each in threads} == {os.SCHED_BATCH}


def test_there_is_a_worker_for_each_usable_processor(make_milter):
    first = min(os.sched_getaffinity(0))
    patch = changed(f"import os; os.sched_setaffinity(0, [{first}])")
    wait_for_workers(make_milter(config(milter="workers: auto"), command=patch), 1)
    wait_for_workers(
        make_milter(config(milter="workers: auto")), min(4, len(os.sched_getaffinity(0)))
    )


# systemd


class Systemd:
    """The socket that a service tells its state to."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        self.socket.settimeout(10)

    def next(self):
        """The next message, as a dict; messages of the watchdog are left out."""
        while (message := self.any()) == {"WATCHDOG": "1"}:
            pass
        return message

    def any(self):
        """The next message."""
        lines = self.socket.recv(4096).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def is_silent(self):
        """Whether nothing comes for a while."""
        try:
            self.any()
        except TimeoutError:
            return True
        return False


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path):
    address = f"{'' if request.param == 'path' else '@'}{tmp_path}/notify"
    fake = Systemd(address.replace("@", "\0"))
    fake.address = address
    with fake.socket:
        yield fake


def test_systemd_is_told(systemd, make_milter, dial):
    milter = make_milter(command=environment(NOTIFY_SOCKET=systemd.address))
    assert systemd.next() == {"READY": "1", "STATUS": "serving 1 rule with 2 workers"}
    open_session = dial(milter)
    before = time.monotonic_ns() // 1000
    milter.signal(signal.SIGHUP)
    reloading = systemd.next()
    assert reloading.pop("RELOADING") == "1"
    assert before <= int(reloading.pop("MONOTONIC_USEC")) <= time.monotonic_ns() // 1000
    assert reloading == {}
    assert systemd.next() == {"READY": "1", "STATUS": "serving 1 rule with 2 workers"}
    milter.configure("rules: nonsense\n")
    milter.signal(signal.SIGHUP)
    assert systemd.next()["RELOADING"] == "1"
    failed = systemd.next()
    assert failed["READY"] == "1"
    assert failed["STATUS"] == "serving 1 rule with 2 workers, the last reload failed"
    milter.signal(signal.SIGTERM)
    assert systemd.next()["STOPPING"] == "1"
    open_session.quit()
    milter.wait_log("^stopped$")


def test_ready_is_said_once_workers_accept(systemd, dial):
    milter = Milter(config(), command=environment(NOTIFY_SOCKET=systemd.address))
    with milter:
        assert systemd.next()["READY"] == "1"
        assert len(workers(milter.pid)) == 2
        assert dial(milter).message([HELP], HAM).of("delete")


def test_the_watchdog_is_fed(systemd, make_milter):
    start = time.monotonic()
    milter = make_milter(command=environment(NOTIFY_SOCKET=systemd.address, WATCHDOG_USEC="200000"))
    fed = 0
    while fed < 5:
        fed += systemd.any() == {"WATCHDOG": "1"}
    assert time.monotonic() - start > 0.3
    os.kill(milter.pid, signal.SIGSTOP)
    systemd.socket.settimeout(1)
    assert wait_for("silence", systemd.is_silent)
    os.kill(milter.pid, signal.SIGCONT)


def test_the_watchdog_is_fed_before_a_reload(systemd, make_milter):
    """Reading a long file takes seconds, in which it could bark."""
    variables = {"NOTIFY_SOCKET": systemd.address, "WATCHDOG_USEC": "60000000"}
    milter = make_milter(command=environment(**variables))
    assert systemd.any()["READY"] == "1"
    milter.signal(signal.SIGHUP)
    assert systemd.any() == {"WATCHDOG": "1"}
    assert systemd.any()["RELOADING"] == "1"


def test_the_watchdog_of_another_process_is_not_fed(systemd, make_milter):
    variables = {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}
    milter = make_milter(command=environment(NOTIFY_SOCKET=systemd.address, **variables))
    milter.signal(signal.SIGHUP)
    milter.wait_log("reloaded")
    messages = [systemd.any() for _ in range(3)]
    assert {"WATCHDOG": "1"} not in messages


def test_a_socket_of_systemd_that_is_gone_hurts_nothing(make_milter, dial, tmp_path):
    milter = make_milter(command=environment(NOTIFY_SOCKET=f"{tmp_path}/gone"))
    assert dial(milter).message([HELP], HAM).of("delete")


# The log


def journal(config_path, *, is_journal=True):
    """A milter whose stderr is a socket, which JOURNAL_STREAM names or does not."""
    ours, theirs = socket.socketpair()
    status = os.fstat(theirs.fileno())
    stream = f"{status.st_dev}:{status.st_ino + (not is_journal)}"
    process = subprocess.Popen(
        [*environment(JOURNAL_STREAM=stream), "serve", "--config", config_path], stderr=theirs
    )
    theirs.close()
    with ours:
        return process, ours.makefile("r")


@pytest.mark.parametrize("is_journal", [True, False])
def test_the_journal_gets_priorities(tmp_path, is_journal):
    path = tmp_path / "config"
    # Without others' access to the socket, which is worth a warning of its own.
    path.write_text(config().replace("LISTEN", f"unix:{tmp_path}/socket").replace("0666", "0660"))
    process, log = journal(path, is_journal=is_journal)
    with process, log, contextlib.ExitStack() as ending:
        ending.callback(process.kill)  # a failed test would wait for it
        info, warning, error = ("<6>", "<4>", "<3>") if is_journal else ("", "", "")
        assert log.readline() == f"{info}serving 1 rule with 2 workers\n"
        path.write_text(path.read_text().replace("spam: amavis\n", ""))
        process.send_signal(signal.SIGHUP)
        assert log.readline().startswith(f"{warning}warning: {path}:")
        assert log.readline() == f"{info}reloaded, serving 1 rule with 2 workers\n"
        path.write_text(path.read_text() + "unheard-of: 1\n")
        process.send_signal(signal.SIGHUP)
        assert log.readline().startswith(f"{error}error: {path}:")
        assert log.readline() == f"{error}error: reload failed, keeping the previous rules\n"
        process.send_signal(signal.SIGTERM)
        assert log.readline() == f"{info}stopping, waiting up to 60 seconds for open sessions\n"
        assert log.readline() == f"{info}stopped\n"
        assert process.wait(10) == 0


def test_lines_of_many_processes_do_not_mix(make_milter, dial):
    milter = make_milter(config(milter="workers: 4"))
    sessions = [dial(milter) for _ in range(16)]
    recipients = [HELP, "<HELP@solarmora.com>", "<Help@solarmora.com>"]
    for _ in range(20):
        for mta in sessions:
            mta.mail()
            for recipient in recipients:
                mta.rcpt(recipient)
            mta.data()
            mta.field("Subject", "x")
        for mta in sessions:
            mta.end()
            mta.abort()
    lines = wait_for("all lines", lambda: len(found := milter.lines("rerouted")) == 960 and found)
    shape = r"\w+: rerouted: to=<\S+> new=<\S+> rule=support copies=1 verdict=none"
    assert [line for line in lines if not re.fullmatch(shape, line)] == []


def test_a_full_disk_under_the_log_hurts_no_mail(tmp_path, make_milter, dial):
    milter = Milter(config())
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(
            [*program(), "serve", "--config", milter.config], stderr=full, stdout=full
        )
    with process:
        wait_for("two workers", lambda: len(workers(process.pid)) == 2)
        wait_for("the socket", milter.socket.exists)
        mta = dial(milter)
        assert mta.message([HELP], HAM).of("delete")
        mta.quit()
        process.terminate()
        assert process.wait(10) == 0
