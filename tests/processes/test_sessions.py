"""Many sessions and many messages: what they cost in memory and time."""

import signal
import statistics
import threading
import time

import pytest
from configs import LONG, config
from mta import Mta
from procs import group, memory, memory_of_all, wait_for_workers

from lab.base import wait_for

HELP = "<help@solarmora.com>"
HAM = [("Subject", "kaputt"), ("X-Spam-Flag", "NO")]
IDLE = 1000
MESSAGES = 200_000 if LONG else 4_000


def latencies(sessions, count):
    """Seconds of so many messages, sent in turn."""
    found = []
    for number in range(count):
        start = time.perf_counter()
        assert sessions[number % len(sessions)].message([HELP], HAM).of("delete")
        found.append(time.perf_counter() - start)
    return found


@pytest.mark.timeout(120)
def test_a_thousand_idle_sessions(make_milter, dial, record_property):
    milter = make_milter()
    wait_for_workers(milter)
    ten = [dial(milter) for _ in range(10)]
    quiet = statistics.median(latencies(ten, 500))
    before = memory_of_all(milter)
    idle = [dial(milter) for _ in range(IDLE)]
    crowded = statistics.median(latencies(ten, 500))
    after = memory_of_all(milter)
    record_property("memory in kB before and with 1,000 sessions", (before, after))
    record_property("median latency in s before and with them", (quiet, crowded))
    assert after - before < 16 * IDLE, "more than 16 kB a session"
    assert crowded < 5 * quiet + 0.001
    assert latencies(idle, IDLE)


@pytest.mark.timeout(1200)
def test_many_messages_leave_the_memory_flat(make_milter, record_property):
    milter = make_milter()
    wait_for_workers(milter)
    send(milter, MESSAGES // 4)
    looks = [{pid: memory(pid, "Rss") for pid in group(milter.pid)}]
    for _ in range(2):  # caches may fill once more; a leak grows both times
        send(milter, MESSAGES)
        looks.append({pid: memory(pid, "Rss") for pid in group(milter.pid)})
        assert {*looks[0]} == {*looks[-1]}, "one has died"
    record_property(f"Rss in kB before and after {MESSAGES} messages, twice", looks)
    sums = [sum(look.values()) for look in looks]
    assert min(sums[1] - sums[0], sums[2] - sums[1]) < 1024


@pytest.mark.timeout(120)
def test_reloads_leave_the_memory_flat(make_milter, record_property):
    rules = "".join(
        f"  - {{name: r{number}, match: a{number}@solarmora.com, replace_with: b@crm.example}}\n"
        for number in range(1000)
    )
    milter = make_milter(config(rules=rules))
    wait_for_workers(milter)
    at_start = memory_of_all(milter)
    sizes = []
    for _ in range(20):
        reload(milter)
        sizes.append(memory(milter.pid, "Rss"))
    record_property("PSS in kB of all with 1,000 rules at the start", at_start)
    record_property("Rss in kB of the supervisor after each of 20 reloads", sizes)
    assert at_start < 40_000
    assert sizes[-1] - sizes[4] < 1024


def send(milter, count):
    """Messages over sessions of 100 each, four at a time."""

    def run():
        for _ in range(count // 400):
            with Mta(milter.address) as mta:
                mta.connect()
                for _ in range(100):
                    assert mta.message([HELP], HAM).of("delete")
        done.append(True)

    done = []
    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 4


def reload(milter):
    """Return when it is done and the old workers have ended."""
    before = len(milter.lines("reloaded"))
    milter.signal(signal.SIGHUP)
    wait_for("the reload", lambda: len(milter.lines("reloaded")) > before)
    wait_for_workers(milter)
