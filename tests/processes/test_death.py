"""Processes that die: no message is lost, passes unrouted, or is edited by half."""

import fcntl
import os
import random
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from configs import PATIENT, SLOW, config, environment, routed
from crowd import Crowd, delivered, message, new_id
from mta import WireError
from procs import group, holders_of, wait_for_workers, workers

from lab import smtp
from lab.base import wait_for
from lab.milter import Milter, program

HAM = [("Subject", "kaputt"), ("X-Spam-Flag", "NO")]
HELP = "<help@solarmora.com>"
KILLS = 50


@pytest.mark.timeout(120)
def test_50_killed_workers_under_load(routing_lab, record_property):
    lab = routing_lab(milter_command=PATIENT)
    with Crowd(lab, size=8, retry=True) as crowd:
        for _ in range(KILLS):
            crowd.wait_for_more(3)
            victim = random.choice(wait_for_workers(lab.milter))
            os.kill(victim, signal.SIGKILL)
            wait_for("its end", lambda pid=victim: pid not in workers(lab.milter.pid))
    mail = delivered(lab)
    assert crowd.broken == []
    assert len(crowd.refused) >= KILLS / 5, "hardly any was in the middle of a message"
    assert mail == {each: Counter(routed()) for each in crowd.accepted}
    assert len(lab.milter.lines("was killed by signal 9, starting a new one")) == KILLS
    record_property("accepted, refused", (len(crowd.accepted), len(crowd.refused)))


def test_only_sessions_of_the_killed_worker_notice(make_milter, dial):
    milter = make_milter(inet=True)
    sessions, holders = {}, {}
    while len(sessions) < 20 or len({*holders.values()}) < 2:
        mta = dial(milter)
        mta.mail()
        mta.rcpt(HELP)
        sessions[mta.socket.getsockname()[1]] = mta
        holders = holders_of(milter.port, workers(milter.pid))
    assert {*holders} == {*sessions}
    victim = random.choice([*holders.values()])
    os.kill(victim, signal.SIGKILL)
    for port, mta in sessions.items():
        if holders[port] == victim:
            with pytest.raises((WireError, OSError)):
                mta.finish(HAM)
        else:
            assert mta.finish(HAM).of("delete") == [("help@solarmora.com",)]
    assert dial(milter).message([HELP], HAM).of("delete")


def test_a_death_while_the_supervisor_looks_at_signals_is_noticed(make_milter):
    milter = make_milter(command=SLOW)
    for _ in range(5):
        victim, _ = wait_for_workers(milter)
        milter.signal(signal.SIGCHLD)
        os.kill(victim, signal.SIGKILL)
        wait_for("its successor", lambda pid=victim: pid not in wait_for_workers(milter))


def test_five_deaths_in_ten_seconds_end_it(make_milter):
    milter = make_milter()
    for number in range(1, 6):
        victim, *_ = wait_for("a worker", lambda: workers(milter.pid))
        os.kill(victim, signal.SIGKILL)
        wait_for("the news", lambda n=number: len(milter.lines("was killed by signal 9")) == n)
    milter.wait_log("^error: 5 workers died within 10 seconds, giving up$")
    assert milter.stop(number=0) == 1
    assert not milter.socket.exists()


def test_workers_that_cannot_work_end_it_soon(tmp_path):
    """Python reads sitecustomize before the program starts; here libmilter ends at once."""
    (tmp_path / "sitecustomize.py").write_text("import milter; milter.main = lambda: None")
    path = ":".join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    (tmp_path / "config").write_text(config().replace("LISTEN", "unix:socket"))
    ended = subprocess.run(
        [*environment(PYTHONPATH=path), "serve", "--config", tmp_path / "config"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 1
    assert ended.stderr.count("error: libmilter stopped unexpectedly") >= 5
    assert "error: 5 workers died within 10 seconds, giving up\n" in ended.stderr


def test_a_worker_killed_while_it_drains_is_not_replaced(make_milter, dial):
    milter = make_milter()
    old = wait_for_workers(milter)
    mta = dial(milter)
    mta.mail()
    milter.signal(signal.SIGHUP)
    milter.wait_log("reloaded")
    wait_for("the end of the idle one", lambda: len(workers(milter.pid)) == 3)
    (draining,) = {*old} & {*workers(milter.pid)}
    os.kill(draining, signal.SIGKILL)
    milter.wait_log("was killed by signal 9 while finishing its sessions")
    assert not {*old} & {*wait_for_workers(milter)}
    assert milter.lines("starting a new one") == []
    assert dial(milter).message([HELP], HAM).of("delete")


def test_a_killed_supervisor_leaves_no_orphans_and_frees_the_socket(routing_lab):
    lab = routing_lab()
    orphans = wait_for_workers(lab.milter)
    first, second, third = new_id(), new_id(), new_id()
    session = smtp.Session(lab.postfix.port)
    session.cmd("MAIL FROM:<a@c.example>")
    session.cmd(f"RCPT TO:{HELP}")
    os.kill(lab.milter.pid, signal.SIGKILL)
    wait_for("the idle one's end", lambda: len({*orphans} & {*group(lab.milter.pid)}) == 1)
    refused = smtp.send(lab.postfix.port, "<a@c.example>", [HELP], message(second))
    assert refused.reply.code // 100 == 4
    # A new one starts, on the same socket, while the session is still open.
    with beside(lab.milter) as successor:
        sent = smtp.send(lab.postfix.port, "<a@c.example>", [HELP], message(third))
        assert sent.reply.code == 250
        assert session.data(message(first)).code == 250
        session.quit()
        wait_for("the orphan's end", lambda: not group(lab.milter.pid))
        assert delivered(lab) == {each: Counter(routed()) for each in [first, third]}
        assert len(wait_for_workers(successor)) == 2


def test_orphans_end_when_their_time_is_over(make_milter, dial):
    milter = make_milter(config(milter="drain_timeout: 1"))
    dial(milter)
    os.kill(milter.pid, signal.SIGKILL)
    milter.wait_log("warning: 1 session still open after 1 second, closing them")
    wait_for("the end", lambda: not group(milter.pid))


def test_a_new_start_waits_for_orphans_that_are_slow(make_milter, dial):
    milter = make_milter()
    orphans = wait_for_workers(milter)
    for pid in orphans:
        os.kill(pid, signal.SIGSTOP)
    os.kill(milter.pid, signal.SIGKILL)
    wait_for("a free lock", lambda: not is_locked(milter))
    with subprocess.Popen([*program(), "serve", "--config", milter.config]) as successor:
        wait_for("the successor", lambda: is_locked(milter))
        for pid in orphans:
            os.kill(pid, signal.SIGCONT)
        wait_for("its workers", lambda: len(workers(successor.pid)) == 2)
        mta = dial(milter)
        assert mta.message([HELP], HAM).of("delete")
        mta.quit()
        successor.terminate()
    assert successor.returncode == 0


def test_a_killed_supervisor_frees_the_port(make_milter, dial):
    first = make_milter(inet=True)
    open_session = dial(first)
    os.kill(first.pid, signal.SIGKILL)
    second = Milter(first.config.read_text(), inet=True)
    second.port = first.port
    with second:
        second.wait_log("serving")
        assert dial(second).message([HELP], HAM).of("delete")
        assert open_session.message([HELP], HAM).of("delete")


def is_locked(milter):
    """Whether an instance holds the lock of the socket."""
    with Path(f"{milter.socket}.lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def beside(milter):
    """Another milter with the same configuration, socket included; not started."""
    other = Milter(milter.config.read_text())
    other.folder = milter.folder  # where the lab looks for the socket
    return other
