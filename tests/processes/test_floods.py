"""The flood guard's limit holds over all workers, generations and supervisors."""

import os
import signal
import threading
from collections import Counter

import pytest
from configs import config
from mta import Mta
from procs import wait_for_workers
from test_handover import HAM, HELP, MANAGED, REPLACE, RESTART, handed_over

from lab.base import wait_for

LIMIT, WORKERS, CLIENTS = 60, 2, 6
FLOOD = f'    flood: {{limit: "{LIMIT} in 2h", then: THEN}}\n'


def text(then="leave", version=1):
    lines = config(version).splitlines(keepends=True)
    return "".join(lines).rstrip("\n") + "\n" + FLOOD.replace("THEN", then)


def reload(milter, new):
    """Have another configuration read and return when it is in force."""
    before = len(milter.lines("reloaded"))
    milter.configure(new)
    milter.signal(signal.SIGHUP)
    wait_for("the reload", lambda: len(milter.lines("reloaded")) > before, 30)


class Burst:
    """Clients that send from one address as fast as they can, in sessions of three messages."""

    def __init__(self, milter, sender="<flood@customer.example>"):
        self.counts, self.broken = Counter(), []
        self._milter, self._sender = milter, sender
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def __enter__(self):
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_):
        self._stopping.set()
        for each in self._threads:
            each.join(30)

    def _run(self):
        try:
            while not self._stopping.is_set():
                with Mta(self._milter.address) as mta:
                    mta.connect()
                    for _ in range(3):
                        result = mta.message([HELP], HAM, sender=self._sender)
                        self.counts["routed" if result.of("add") else "left"] += 1
        except Exception as error:  # a thread cannot fail otherwise
            self.broken.append(repr(error))

    def wait(self, more):
        goal = self.counts.total() + more
        wait_for("more mail", lambda: self.counts.total() >= goal or self.broken, 30)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "number", [signal.SIGHUP, REPLACE, RESTART], ids=["reload", "replace", "restart"]
)
def test_the_limit_holds_in_the_middle_of_a_burst(make_milter, record_property, number):
    """Three times in it the rules are read again, or the service is replaced or restarted."""
    managed = {"command": MANAGED} if number == RESTART else {}
    milter = make_milter(text(), **managed)
    with Burst(milter) as burst:
        for version in (2, 3, 4):
            burst.wait(10)
            if number == signal.SIGHUP:
                reload(milter, text(version=version))
            else:
                handed_over(milter, number)
        burst.wait(LIMIT)
    assert burst.broken == []
    assert burst.counts["left"] > 0
    assert LIMIT <= burst.counts["routed"] <= LIMIT + WORKERS
    record_property("routed, left", (burst.counts["routed"], burst.counts["left"]))


def test_other_senders_are_not_touched_by_a_flood(make_milter):
    milter = make_milter(text())
    with Burst(milter) as burst:
        burst.wait(LIMIT * 2)
        with Mta(milter.address) as mta:
            mta.connect()
            for number in range(20):
                result = mta.message([HELP], HAM, sender=f"<{number}@other.example>")
                assert result.of("add")
    assert burst.counts["routed"] <= LIMIT + WORKERS


def test_a_worker_that_is_killed_holds_up_nobody(make_milter):
    milter = make_milter(text())
    first, _ = wait_for_workers(milter, 2)
    with Burst(milter) as burst:
        burst.wait(10)
        os.kill(first, signal.SIGKILL)
        wait_for_workers(milter, 2)
        burst.broken.clear()
    with Burst(milter) as later:
        later.wait(LIMIT)
    assert later.broken == []
    assert burst.counts["routed"] + later.counts["routed"] <= LIMIT + WORKERS


def test_a_limit_that_is_reloaded_shorter_counts_at_once(make_milter, dial):
    milter = make_milter(text())
    session = dial(milter)
    for _ in range(LIMIT):
        assert session.message([HELP], HAM).of("add")
    assert not session.message([HELP], HAM).of("add")
    reload(milter, text().replace(f"{LIMIT} in 2h", "1 in 1s"))
    wait_for("a message", lambda: dial(milter).message([HELP], HAM).of("add"), 10)
