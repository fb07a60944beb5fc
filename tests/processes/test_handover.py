"""A restart hands the socket and the sessions over: nobody is refused."""

import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import manager
import pytest
from configs import LONG, config, routed
from crowd import Crowd, delivered, message, new_id
from procs import descriptors, group, wait_for_workers, workers

from lab import smtp
from lab.base import wait_for
from lab.milter import program

HELP = "<help@solarmora.com>"
HAM = [("Subject", "kaputt"), ("X-Spam-Flag", "NO")]
TIMES = 100 if LONG else 8
# The milter under something that keeps descriptors as systemd does.
MANAGED = (sys.executable, manager.__file__, *program())
RESTART, REPLACE = signal.SIGUSR1, signal.SIGUSR2


def supervisor(milter):
    """The process id of the supervisor below the manager."""
    (pid,) = wait_for("the supervisor", lambda: workers(milter.pid))
    return pid


def handed_over(milter, number):
    """Have the process replaced and return when the new one serves."""
    before = len(milter.lines("serving 1 rule"))
    milter.signal(number)
    wait_for("the new one", lambda: len(milter.lines("serving 1 rule")) > before, 30)


def refuses(milter, dial):
    """Whether a connection is refused; True also for a socket that is not there."""
    try:
        dial(milter)
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except OSError:
        return False
    return False


def sockets(pid):
    """The sockets that a process has open."""
    return [each for each in descriptors(pid) if each.startswith("socket:")]


def target(result):
    """Where a message went."""
    return result.of("add")[0][0].strip("<>")


def idle(lab):
    """An SMTP session, and with it a session of the milter, that does nothing."""
    session = smtp.Session(lab.postfix.port)
    session.cmd("EHLO idle.example")
    return session


@pytest.mark.timeout(900 if LONG else 200)
@pytest.mark.parametrize("number", [RESTART, REPLACE], ids=["restart", "replace"])
def test_nobody_is_refused(routing_lab, record_property, number):
    """Not even while sessions are idle, or in the middle of a message, over all of it."""
    lab = routing_lab(milter_command=MANAGED if number == RESTART else None)
    sessions = [idle(lab)]
    middle = smtp.Session(lab.postfix.port)
    middle.cmd("MAIL FROM:<anna@customer.example>")
    middle.cmd(f"RCPT TO:{HELP}")
    took = []
    with Crowd(lab) as crowd:
        for _ in range(TIMES):
            crowd.wait_for_more(5)
            start = time.monotonic()
            handed_over(lab.milter, number)
            took.append(time.monotonic() - start)
            if len(sessions) < 10:
                sessions.append(idle(lab))
        crowd.wait_for_more(5)
    late = [new_id() for _ in sessions]
    for message_id, session in zip(late, sessions, strict=True):
        sent = session.transaction("<b@c.example>", [HELP], message(message_id))
        assert sent.reply.code == 250
    last = new_id()
    assert middle.data(message(last)).code == 250
    for session in (*sessions, middle):
        session.quit()
    assert (crowd.refused, crowd.broken) == ([], [])
    expected = [*crowd.accepted, *late, last]
    assert delivered(lab) == {each: Counter(routed()) for each in expected}
    record_property("restarts, messages, longest", (TIMES, len(expected), round(max(took), 2)))


def test_it_reads_the_file_again(make_milter, dial):
    milter = make_milter()
    early = dial(milter)
    milter.configure(config(2))
    handed_over(milter, REPLACE)
    assert target(dial(milter).message([HELP], HAM)) == routed(2)[0]
    assert target(early.message([HELP], HAM)) == routed(1)[0]
    early.quit()
    wait_for_workers(milter)


def test_process_1_of_a_container_replaces_itself(make_milter, dial):
    own = ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child")
    milter = make_milter(command=(*own, *program()))
    first = supervisor(milter)
    assert f"NSpid:\t{first}\t1\n" in Path(f"/proc/{first}/status").read_text()
    session = dial(milter)
    milter.configure(config(2))
    os.kill(first, REPLACE)
    wait_for("the new rules", lambda: len(milter.lines("serving 1 rule")) == 2, 30)
    assert supervisor(milter) == first
    for each, version in ((dial(milter), 2), (session, 1)):
        assert target(each.message([HELP], HAM)) == routed(version)[0]
        each.quit()
    os.kill(first, signal.SIGTERM)
    milter.wait_log("stopped")


def test_a_program_that_cannot_start_replaces_nothing(make_milter, dial):
    milter = make_milter()
    milter.configure("rules: nonsense\n")
    milter.signal(REPLACE)
    milter.wait_log("error: the program cannot replace itself, it exited with status 78")
    assert target(dial(milter).message([HELP], HAM)) == routed()[0]
    milter.configure(config(2))
    handed_over(milter, REPLACE)
    assert target(dial(milter).message([HELP], HAM)) == routed(2)[0]


def test_signals_while_it_replaces_itself_are_not_lost(make_milter, dial):
    milter = make_milter()
    for version in (2, 3):
        milter.configure(config(version))
        for number in (REPLACE, signal.SIGHUP, REPLACE):
            milter.signal(number)

    def served():
        mta = dial(milter)
        result = mta.message([HELP], HAM)
        mta.quit()
        return target(result)

    wait_for("the new rules", lambda: served() == routed(3)[0])
    assert milter.stop() == 0


@pytest.mark.timeout(200)
def test_a_killed_supervisor_stops_no_mail(routing_lab):
    """Its workers accept mail until the next one has its own."""
    lab = routing_lab(milter_command=MANAGED)
    session = idle(lab)
    with Crowd(lab) as crowd:
        for _ in range(TIMES):
            before = supervisor(lab.milter)
            os.kill(before, signal.SIGKILL)
            wait_for("the next", lambda old=before: workers(lab.milter.pid) not in ([], [old]))
            crowd.wait_for_more(5)
        wait_for("two workers", lambda: len(workers(supervisor(lab.milter))) >= 2)
    last = new_id()
    assert session.transaction("<b@c.example>", [HELP], message(last)).reply.code == 250
    session.quit()
    assert (crowd.refused, crowd.broken) == ([], [])
    assert delivered(lab) == {each: Counter(routed()) for each in [*crowd.accepted, last]}


def test_a_stop_lets_go_of_socket_and_workers(make_milter, dial):
    milter = make_milter(config(milter="drain_timeout: 2"), command=MANAGED)
    mta = dial(milter)
    leader = milter.pid
    milter.signal(signal.SIGTERM)
    milter.wait_log("^stopped$")
    wait_for("the end of the manager", lambda: not milter.running())
    assert target(mta.message([HELP], HAM)) == routed()[0]
    # While the last worker ends, a connection may still be made, and is closed without an answer.
    wait_for("a closed port", lambda: refuses(milter, dial))
    wait_for("the end of all", lambda: not group(leader))


def test_a_socket_that_moves_leaves_nothing_behind(make_milter, dial):
    milter = make_milter(command=MANAGED)
    before = milter.socket
    milter.config.write_text(milter.config.read_text().replace(str(before), f"{before}-2"))
    handed_over(milter, RESTART)
    assert not before.exists()
    assert Path(f"{before}-2").is_socket()


@pytest.mark.parametrize("number", [RESTART, REPLACE], ids=["restart", "replace"])
def test_nothing_piles_up(make_milter, number):
    milter = make_milter(command=MANAGED)
    for _ in range(5):
        handed_over(milter, number)
        wait_for("two workers", lambda: len(workers(supervisor(milter))) == 2)
    # The manager has its link, the listener and two channels.
    wait_for("four sockets", lambda: len(sockets(milter.pid)) == 1 + 1 + 2)
    wait_for("three sockets", lambda: len(sockets(supervisor(milter))) == 1 + 2)
    wait_for("four processes", lambda: len(group(milter.pid)) == 4)


def test_workers_that_die_while_it_restarts_are_not_missed(make_milter, dial):
    milter = make_milter(command=MANAGED)
    for _ in range(5):
        before = supervisor(milter)
        victim = random.choice(wait_for("two", lambda: workers(supervisor(milter))))
        milter.signal(RESTART)
        os.kill(victim, signal.SIGKILL)
        # Told to stop twice, as systemd does not tell it, it would close the open sessions.
        wait_for("the next", lambda old=before: workers(milter.pid) not in ([], [old]), 30)
        wait_for("two workers", lambda: len(workers(supervisor(milter))) == 2)
        assert target(dial(milter).message([HELP], HAM)) == routed()[0]
