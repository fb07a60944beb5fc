"""Whatever happens to the processes, in any order: accepted is delivered, little is refused."""

import contextlib
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from configs import LONG, PATIENT, config, routed
from crowd import Crowd, delivered, message, new_id
from procs import descriptors, group, workers

from lab import smtp
from lab.base import LabError, wait_for

MANAGER = (sys.executable, str(Path(__file__).parents[1] / "helpers/manager.py"))
HELP = "<help@solarmora.com>"
STEPS = 300 if LONG else 40
RESTART = signal.SIGUSR1
PATIENCE = "drain_timeout: 600"
BAD = ("rules: nonsense\n", "rules: {}\n", "unrouted_to: [\n", "\0")


class Fate:
    """Does something to the processes of a managed milter.

    ``cut`` counts the sessions that killed workers had, at most.
    """

    def __init__(self, lab, seed):
        self._lab = lab
        self._random = random.Random(seed)
        self._version = 1
        self.done = Counter()
        self.cut = 0

    def step(self):
        """Do one thing, and wait a little, or not at all."""
        deeds = {
            self.kill_worker: 2,
            self.kill_supervisor: 2,
            self.reload: 6,
            self.reload_bad: 3,
            self.restart: 3,
            self.restart_bad: 2,
            self.replace: 2,
        }
        (deed,) = self._random.choices([*deeds], [*deeds.values()])
        self.done[deed.__name__] += 1
        deed()
        time.sleep(self._random.choice((0, 0, 0.05, 0.3, 1)))

    def _family(self):
        """The supervisor, if there is one, and all that it or one before it has started."""
        leader = self._lab.milter.pid
        supervisors = workers(leader)
        return supervisors, [*{*group(leader)} - {leader, *supervisors}]

    def kill_worker(self):
        """Kill one that may be serving."""
        _, found = self._family()
        if found:
            victim = self._random.choice(found)
            kill(victim, signal.SIGSTOP)  # so that it takes no more
            self.cut += sum(each.startswith("socket:") for each in descriptors(victim))
            kill(victim)

    def kill_supervisor(self):
        """Kill the one that is there, wherever it is in its life."""
        for pid in self._family()[0]:
            kill(pid)

    def reload(self):
        """A good file."""
        self._version += 1
        self._lab.milter.configure(config(self._version, PATIENCE))
        self._lab.milter.signal(signal.SIGHUP)

    def reload_bad(self):
        """A file that cannot be served."""
        self._lab.milter.configure(self._random.choice(BAD))
        self._lab.milter.signal(signal.SIGHUP)

    def restart(self):
        """As after an upgrade."""
        self._lab.milter.signal(RESTART)

    def restart_bad(self):
        """A start that finds a bad file."""
        self._lab.milter.configure(self._random.choice(BAD))
        self._lab.milter.signal(RESTART)

    def replace(self):
        """The program becomes itself."""
        self._lab.milter.signal(signal.SIGUSR2)

    def settle(self):
        """Return when all is as it should be again, with the last version in force."""
        self._version += 1
        self._lab.milter.configure(config(self._version, PATIENCE))
        time.sleep(5)
        before = len(self._lab.milter.lines("serving 1 rule"))
        self._lab.milter.signal(RESTART)
        wait_for(
            "the last start", lambda: len(self._lab.milter.lines("serving 1 rule")) > before, 30
        )
        return self._version


def kill(pid, number=signal.SIGKILL):
    """Send a signal to a process that may have ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def said(session, identity):
    """The reply to a message in a session that was idle, 0 if Postfix has hung up."""
    with session:
        try:
            return session.transaction("<b@c.example>", [HELP], message(identity)).reply.code
        except (LabError, OSError):
            return 0


@pytest.mark.timeout(1800 if LONG else 300)
def test_anything_in_any_order(routing_lab, tmp_path, record_property):
    state = tmp_path / "state"
    state.mkdir()
    command = ("env", f"STATE_DIRECTORY={state}", *MANAGER, *PATIENT)
    lab = routing_lab(config(milter=PATIENCE), milter_command=command)
    seed = int(os.environ.get("CRM_MILTER_SEED", "") or random.randrange(1 << 30))
    record_property("seed", seed)
    fate = Fate(lab, seed)
    idle = []
    with Crowd(lab, retry=True) as crowd:
        for number in range(STEPS):
            fate.step()
            if number % 4 == 0 and len(idle) < 10:
                idle.append(smtp.Session(lab.postfix.port))
                idle[-1].cmd("EHLO idle.example")
            if number % 20 == 0:
                crowd.wait_for_more(2)
                for session in idle:
                    session.cmd("NOOP")
        last = fate.settle()
        crowd.wait_for_more(50)
        newest = set(crowd.accepted[-10:])
    replies = {new_id(): session for session in idle}
    late = [identity for identity, session in replies.items() if said(session, identity) == 250]
    expected = {*crowd.accepted, *late}
    lab.postfix.wait_empty_queue(120)
    mail = delivered(lab)
    assert {*mail} == expected, seed
    versions = [Counter(routed(version)) for version in range(1, last + 1)]
    assert [each for each in mail.values() if each not in versions] == [], seed
    assert [mail[each] for each in newest] == [versions[-1]] * len(newest), seed
    record_property("done", dict(fate.done))
    gone = len(crowd.refused) + len(idle) - len(late)
    record_property("accepted, refused, at most", (len(mail), gone, fate.cut))
    assert crowd.broken == []
    # A killed worker takes its sessions with it; nothing else refuses one.
    assert gone <= fate.cut, seed
