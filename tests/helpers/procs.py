"""The processes of a milter, seen from outside: who they are, what they hold, what they cost."""

import re
from contextlib import suppress
from pathlib import Path

from lab.base import wait_for
from lab.milter import Milter


def workers(pid: int) -> list[int]:
    """The children of a supervisor."""
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def group(leader: int) -> list[int]:
    """All processes of the group that the supervisor leads: also those that it left behind."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(FileNotFoundError, ProcessLookupError):
            state, _, leads = stat.read_text(errors="replace").rpartition(")")[2].split()[:3]
            if state != "Z" and int(leads) == leader:
                found.append(int(stat.parent.name))
    return found


def wait_for_workers(milter: Milter, count: int = 2) -> list[int]:
    """The workers, once they are so many."""
    return wait_for(
        f"{count} workers",
        lambda: len(found := workers(milter.pid)) == count and sorted(found),
    )


def holders_of(port: int, pids: list[int]) -> dict[int, int]:
    """Which of the processes has the connection from each client port to this port of ours."""
    clients = {}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ours, theirs = (int(field.partition(":")[2], 16) for field in fields[1:3])
        if ours == port and theirs:
            clients[f"socket:[{fields[9]}]"] = theirs
    return {
        clients[target]: pid for pid in pids for target in descriptors(pid) if target in clients
    }


def memory(pid: int, kind: str = "Pss") -> int:
    """The memory of a process in kB; Pss is its share of what it has together with others."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(rf"(?m)^{kind}: +(\d+) kB", text)[1])


def memory_of_all(milter: Milter) -> int:
    """The memory of supervisor and workers together, in kB; who ends meanwhile has none."""
    total = 0
    for pid in group(milter.pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            total += memory(pid)
    return total


def descriptors(pid: int) -> list[str]:
    """What a process has open, as /proc shows it; nothing where it has ended."""
    found = []
    with suppress(FileNotFoundError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                found.append(str(entry.readlink()))
    return found
