"""SIGTERM and SIGINT: open sessions have their time; in any order with other signals."""

import os
import signal
import time
from collections import Counter

import pytest
from configs import HASTY, config, routed
from crowd import Crowd, delivered, message, new_id
from mta import WireError
from procs import group, wait_for_workers, workers

from lab import smtp
from lab.base import wait_for

HELP = "<help@solarmora.com>"
HAM = [("Subject", "kaputt"), ("X-Spam-Flag", "NO")]


@pytest.mark.timeout(120)
def test_restarts_under_load(routing_lab, record_property):
    """What is refused meanwhile is sent again by the sender, and then comes once."""
    lab = routing_lab()
    with Crowd(lab, retry=True) as crowd:
        for _ in range(5):
            crowd.wait_for_more(20)
            assert lab.milter.stop() == 0
            lab.milter.start()
    assert crowd.broken == []
    assert crowd.refused, "none met the restart"
    assert delivered(lab) == {each: Counter(routed()) for each in crowd.accepted}
    assert len({*crowd.accepted}) == len(crowd.accepted)
    record_property("accepted, refused", (len(crowd.accepted), len(crowd.refused)))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_open_session_is_served_to_its_end(routing_lab, number):
    lab = routing_lab()
    session = smtp.Session(lab.postfix.port)
    session.cmd("MAIL FROM:<a@c.example>")
    session.cmd(f"RCPT TO:{HELP}")
    lab.milter.signal(number)
    lab.milter.wait_log("stopping, waiting up to 60 seconds for open sessions")
    assert not lab.milter.socket.exists()
    late = smtp.send(lab.postfix.port, "<a@c.example>", [HELP], message(new_id()))
    assert late.reply.code // 100 == 4
    first, second = new_id(), new_id()
    assert session.data(message(first)).code == 250
    assert session.transaction("<a@c.example>", [HELP], message(second)).reply.code == 250
    assert lab.milter.running()
    session.quit()
    assert delivered(lab) == {each: Counter(routed()) for each in (first, second)}
    lab.milter.wait_log("^stopped$")
    assert lab.milter.stop(number=0) == 0


def test_the_drain_has_an_end(make_milter, dial):
    milter = make_milter(config(milter="drain_timeout: 1"))
    dial(milter)
    start = time.monotonic()
    assert milter.stop() == 0
    assert 0.9 < time.monotonic() - start < 5
    assert milter.lines("closing the open sessions") == [
        "warning: closing the open sessions of 1 worker: drain_timeout (1 second) exceeded"
    ]


def test_a_second_signal_ends_it_at_once(make_milter, dial):
    milter = make_milter()
    mta = dial(milter)
    milter.signal(signal.SIGTERM)
    milter.wait_log("stopping")
    assert mta.message([HELP], HAM).of("delete")
    pid = milter.pid
    assert milter.stop() == 0
    assert group(pid) == []
    milter.wait_log("warning: closing the open sessions of . workers?: second stop signal received")
    with pytest.raises((WireError, OSError)):
        mta.message([HELP], HAM)


def test_signals_during_the_drain_change_nothing(make_milter, dial):
    milter = make_milter(command=HASTY)
    mta = dial(milter)
    milter.configure("rules: nonsense\n")
    milter.signal(signal.SIGTERM)
    milter.wait_log("stopping")
    for _ in range(100):
        milter.signal(signal.SIGHUP)
    assert mta.message([HELP], HAM).of("add")[0][0] == "<support-1@crm.example>"
    wait_for("the end of the idle one", lambda: len(workers(milter.pid)) == 1)
    os.kill(*workers(milter.pid), signal.SIGKILL)
    milter.wait_log("^stopped$")
    assert milter.stop(number=0) == 0
    assert milter.lines("reload") == milter.lines("starting a new one") == []


def test_a_stop_in_the_middle_of_a_reload(make_milter, dial):
    """Sessions of three generations are open, a fourth is about to begin."""
    milter = make_milter()
    sessions = [dial(milter)]
    for version in (2, 3):
        milter.configure(config(version))
        milter.signal(signal.SIGHUP)
        milter.wait_log("reloaded")
        milter.logfile.mark()
        sessions.append(dial(milter))
    milter.signal(signal.SIGHUP)
    milter.signal(signal.SIGTERM)
    milter.wait_log("stopping")
    for version, mta in enumerate(sessions, 1):
        assert mta.message([HELP], HAM).of("add")[0][0] == f"<support-{version}@crm.example>"
        mta.quit()
    milter.wait_log("^stopped$")
    assert milter.stop(number=0) == 0


def test_signals_to_the_whole_group_are_as_one(make_milter, dial):
    """^C and systemd (KillMode=control-group) do not leave out the workers."""
    milter = make_milter()
    mta = dial(milter)
    for number in (signal.SIGHUP, signal.SIGINT):
        os.killpg(milter.pid, number)
    milter.wait_log("stopping")
    assert mta.message([HELP], HAM).of("delete")
    mta.quit()
    milter.wait_log("^stopped$")
    assert milter.stop(number=0) == 0
    assert [line for line in milter.lines("warning") if "socket_mode" not in line] == []
    assert milter.lines("error") == []


def test_workers_take_no_signals_but_kill(make_milter, dial):
    milter = make_milter()
    before = wait_for_workers(milter)
    mta = dial(milter)
    for worker in before * 20:
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            os.kill(worker, number)
    assert mta.message([HELP], HAM).of("delete")
    for _ in range(10):
        assert dial(milter).message([HELP], HAM).of("delete")
    assert wait_for_workers(milter) == before
