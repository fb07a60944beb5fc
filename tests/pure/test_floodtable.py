"""The table of the flood guard: what it counts, what it forgets, and that it cannot grow."""

import os
import random
import time
from collections.abc import Iterator

import pytest
from rows import CRM, rule

from crm_milter.daemon import floodtable
from crm_milter.daemon.floodtable import SIZE, FloodTable, create, is_table
from crm_milter.rules.flood import Flood, Limit
from crm_milter.rules.rule import Rule


class Clock:
    """A time that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def descriptor() -> Iterator[int]:
    made = create()
    yield made
    os.close(made)


@pytest.fixture
def table(descriptor: int, clock: Clock) -> FloodTable:
    return FloodTable(descriptor, clock)


def limited(count: int = 10, seconds: float = 60, name: str = "r") -> Rule:
    made: Rule = rule(name, "help@solarmora.com", CRM, flood=Flood(Limit(count, seconds)))
    return made


def passed(table: FloodTable, which: Rule, times: int, sender: str = "a@x.example") -> int:
    """How many of so many messages are within the limit."""
    return sum(not table.exceeds(which, sender, "") for _ in range(times))


@pytest.mark.parametrize(("count", "seconds"), [(1, 1), (10, 60), (3, 7), (33, 3600), (7, 0.1)])
def test_so_many_at_once_then_evenly_spaced(table, clock, count, seconds):
    which = limited(count, seconds)
    assert passed(table, which, count * 3) == count
    for _ in range(20):
        clock.now += seconds / count * 1.000001
        assert passed(table, which, 3) == 1
    clock.now += seconds * 10
    assert passed(table, which, count * 3) == count


def test_never_more_than_twice_the_count_in_the_time_and_evenly_spaced_mail_passes(table, clock):
    which, times = limited(10, 60), []
    for _ in range(5000):
        clock.now += random.Random(_).expovariate(1)
        if not table.exceeds(which, "a", ""):
            times.append(clock.now)
    assert max(sum(at <= each < at + 60 for each in times) for at in times) < 20
    clock.now += 1000
    spaced = 0
    for _ in range(100):
        clock.now += 6.0001
        spaced += not table.exceeds(which, "b", "")
    assert spaced == 100


def test_senders_subjects_and_rules_are_counted_each_on_its_own(table):
    which = limited(2)
    for sender, subject in (("a", ""), ("b", ""), ("a", "x"), ("a", "y"), ("", "")):
        assert [table.exceeds(which, sender, subject) for _ in range(3)] == [False, False, True]
    assert passed(table, limited(2, name="s"), 3, "a") == 2


def test_other_processes_and_their_successors_see_the_same(descriptor, clock):
    tables = [FloodTable(descriptor, clock) for _ in range(3)]
    assert sum(passed(each, limited(), 5) for each in tables) == 10


def test_what_is_too_far_ahead_is_cut(table, clock):
    assert passed(table, limited(2, 86400), 5) == 2
    # A reload with a shorter limit; or a clock that has begun anew.
    assert passed(table, limited(2, 10), 5) == 0
    clock.now += 5.1
    assert passed(table, limited(2, 10), 5) == 1
    clock.now = 3.0
    assert passed(table, limited(2, 10), 5) == 0
    clock.now = 13.1
    assert passed(table, limited(2, 10), 5) == 2


def test_ten_thousand_random_senders_displace_no_busy_one(table, descriptor):
    which = limited(10, 60)
    busy = [f"busy{n}@customer.example" for n in range(500)]
    assert all(passed(table, which, 12, each) == 10 for each in busy)
    before = os.fstat(descriptor)
    for n in range(10_000):
        assert not table.exceeds(which, f"{n}@random.example", "")
    assert all(passed(table, which, 1, each) == 0 for each in busy)
    after = os.fstat(descriptor)
    assert before.st_size == after.st_size == SIZE <= 1 << 20
    assert after.st_blocks * 512 <= SIZE


def test_a_million_random_senders_displace_each_other_only(table):
    which = limited(10, 86400)
    busy = [f"busy{n}@customer.example" for n in range(50)]
    assert all(passed(table, which, 2, each) == 2 for each in busy)
    for n in range(300_000):
        assert not table.exceeds(which, f"{n}@random.example", "")
    assert all(passed(table, which, 20, each) == 8 for each in busy)


def test_if_all_places_are_busy_the_new_sender_is_not_counted_and_that_is_told(descriptor, clock):
    told = []
    table = FloodTable(descriptor, clock, lambda: told.append(1))
    which = limited(3, 86400)
    for n in range(120_000):
        table.exceeds(which, f"{n}", "")
        table.exceeds(which, f"{n}", "")
    told.clear()
    counted = [passed(table, which, 5, f"new{n}") for n in range(200)]
    assert set(counted) <= {3, 5}
    assert len(told) == 5 * counted.count(5) > 0


def test_a_reload_with_a_higher_limit_leaves_the_busy_ones_busy(table, clock, monkeypatch):
    monkeypatch.setattr(floodtable, "_SETS", 1)
    assert passed(table, limited(1, 60), 1) == 1
    clock.now += 60
    assert passed(table, limited(600, 600), 50) == 50
    for n in range(20):
        table.exceeds(limited(1, 600), f"{n}@random.example", "")
    assert passed(table, limited(600, 600), 600) == 550


def test_only_a_table_of_this_version_is_taken_over(descriptor, tmp_path):
    assert is_table(descriptor)
    other = os.memfd_create("other")
    os.ftruncate(other, SIZE)
    assert not is_table(other)
    os.close(other)
    assert not is_table(other)


def test_one_look_takes_microseconds(descriptor):
    table, which = FloodTable(descriptor), limited(10, 60)
    began = time.process_time()
    for n in range(10_000):
        table.exceeds(which, f"{n % 100}@x.example", "")
    assert (time.process_time() - began) / 10_000 < 0.0002


def test_a_process_that_dies_in_the_middle_leaves_the_table_usable(table, descriptor):
    for _ in range(2):
        child = os.fork()
        if child == 0:
            other = FloodTable(descriptor)
            held = [floodtable._hold(mutex) for mutex in other._mutexes]
            os._exit(0 if all(held) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert floodtable._hold(table._mutexes[0])  # it was told of the death, and mends it
        floodtable._libc.pthread_mutex_unlock(table._mutexes[0])
    assert passed(table, limited(), 12) == 10


def test_a_process_that_is_stopped_in_the_middle_holds_nobody_up(table, descriptor):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        other = FloodTable(descriptor)
        for mutex in other._mutexes:
            floodtable._hold(mutex)
        os.write(writer, b"x")
        time.sleep(60)
        os._exit(0)
    os.read(reader, 1)
    began = time.monotonic()
    assert passed(table, limited(), 12) == 10
    assert time.monotonic() - began < 5
    os.kill(child, 9)
    os.waitpid(child, 0)
    os.close(reader)
    os.close(writer)
