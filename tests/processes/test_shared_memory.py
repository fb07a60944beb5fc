"""What the processes have in common is there once: rules cost little in each that forks."""

import signal
import time
import urllib.request

import pytest
from configs import changed, config
from procs import memory, workers

from lab.base import free_port, wait_for

ROOM = 1000  # kB that a process may take more with many rules: it writes to some of their pages


def rules(number: int) -> str:
    return "".join(
        f"  - {{name: more{n}, match: more{n}@solarmora.com, replace_with: case{n}@crm.example,"
        f" also_deliver_to: team{n}@solarmora.com}}\n"
        for n in range(number)
    )


def serving(make_milter, tmp_path, number, **more):
    """A milter with so many rules more, an exporter and a follower of a log; and its port."""
    port, log = free_port(), tmp_path / "mail.log"
    log.touch(mode=0o644)
    settings = f"metrics: {{listen: '127.0.0.1:{port}', deliveries: '{log}'}}\n"
    milter = make_milter(settings + config(rules=rules(number)), **more)
    wait_for("four children", lambda: len(workers(milter.pid)) == 4)
    return milter, port


def own(milter) -> list[int]:
    """The private memory of each child in kB, in the order of their start."""
    time.sleep(1.5)  # each has looked around once
    return [memory(pid, "Private_Dirty") for pid in sorted(workers(milter.pid))]


@pytest.mark.timeout(120)
def test_nobody_copies_rules_that_are_not_used(make_milter, tmp_path, record_property):
    few, many = (own(serving(make_milter, tmp_path, n)[0]) for n in (5, 5000))
    record_property("kB with 6 rules, with 5,001", (few, many))
    assert all(more < less + ROOM for less, more in zip(few, many, strict=True))


# What the exporter does when it hears of a reload, and then how many rules it has left.
COUNTING = changed(
    "import gc; was = supervisor.Beside._hear;"
    "rules = lambda: sum(type(each).__name__ == 'Rule' for each in gc.get_objects());"
    "supervisor.Beside._hear = lambda self, channel: ("
    "was(self, channel), gc.unfreeze(), self._log(f'rules kept: {rules()}'))[0]"
)


def test_the_exporter_lets_go_of_rules_at_a_reload(make_milter, tmp_path):
    """It is the one child that outlives them; what it serves goes on."""
    milter, port = serving(make_milter, tmp_path, 5, command=COUNTING)
    exporter = sorted(workers(milter.pid))[2]
    for times in (1, 2):
        milter.signal(signal.SIGHUP)
        wait_for("it to hear", lambda times=times: len(milter.lines("rules kept: 0")) == times)
    assert milter.lines("rules kept: ") == milter.lines("rules kept: 0")
    assert exporter in workers(milter.pid)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        assert b"crm_milter_sessions" in page.read()
