"""The journal followed by journalctl, as a real journald writes it in a namespace of its own."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from crm_milter.trace.deliveries import Ours, OwnAddresses, Tracker
from crm_milter.trace.file import LogError
from crm_milter.trace.journal_tail import JournalTail, is_place
from lab.base import LabError, scratch, wait_for

JOURNALD = Path("/lib/systemd/systemd-journald")
# An entry of each line of standard input: facility, program, text.
SCRIPT = """
mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal /run/log/journal || exit
mount --bind "$1" /run/log/journal || exit
{ exec "$2" 2>/dev/null; } &
until [ -S /run/systemd/journal/socket ]; do sleep 0.05; done
while IFS='|' read -r facility program text; do
    printf 'SYSLOG_FACILITY=%s\\nSYSLOG_IDENTIFIER=%s\\nSYSLOG_PID=77\\nMESSAGE=%b\\n' \
        "$facility" "$program" "$text" | logger --journald
done
kill $!
wait
"""
CRM = "4bXq1Z0abc: to=<support@crm.example>, relay=x[192.0.2.1]:25, delay=0.4, delays=0/0/0/0,"
MESSAGE = (
    "2|postfix-out/smtpd|4bXq1Z0abc: client=x[192.0.2.1]",
    "3|crm-milter|4bXq1Z0abc: rerouted: to=<help@x.example> new=<support@crm.example>"
    " rule=support copies=0 verdict=ham",
    f"2|postfix/smtp|{CRM} dsn=2.0.0, status=sent (250 \\0377\\0376 taken)",
)


class Journal:
    """A journal that is written to."""

    def __init__(self) -> None:
        self.folder = scratch()
        self._writer = subprocess.Popen(
            ["unshare", "--mount", "sh", "-c", SCRIPT, "sh", str(self.folder), str(JOURNALD)],
            stdin=subprocess.PIPE,
            text=True,
        )
        self.write("1|other|nothing of mail")
        wait_for("the first entry", lambda: "nothing of mail" in self._read())

    def _read(self) -> str:
        command = ["journalctl", "--directory", str(self.folder), "--output", "cat"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout

    def write(self, *entries: str) -> None:
        assert self._writer.stdin
        self._writer.stdin.write("".join(f"{each}\n" for each in entries))
        self._writer.stdin.flush()

    def tail(self, position: dict[str, object] | None = None, **which: bool) -> JournalTail:
        return JournalTail(position or {"since": 0.0}, directory=str(self.folder), **which)

    def stop(self) -> None:
        self._writer.communicate(timeout=20)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def journal() -> Iterator[Journal]:
    programs = ("journalctl", "unshare", "logger")
    if not JOURNALD.exists() or not all(map(shutil.which, programs)) or os.geteuid():
        pytest.skip("there is no journald here, or this is not root")
    made = Journal()
    yield made
    made.stop()


def read(tail: JournalTail, count: int) -> list[bytes]:
    found: list[bytes] = []
    try:
        wait_for(f"{count} entries", lambda: found.extend(tail.lines()) or len(found) >= count, 40)
    except LabError:
        tail.close()  # journalctl would run on
        raise
    return found


def test_entries_are_lines_that_count_and_are_read_once(journal: Journal) -> None:
    tracker = Tracker(OwnAddresses({"support": Ours()}), (1.0,))
    tail = journal.tail()
    journal.write(*MESSAGE[:2])
    for line in read(tail, 2):
        tracker.take(line)
    position = tail.position
    tail.close()
    journal.write(MESSAGE[2], "1|other|nothing of mail", "2|postfix/qmgr|4bXq1Z0abc: removed")
    tail = journal.tail(position)
    for line in read(tail, 2):
        tracker.take(line)
    assert tail.lines() == []
    tail.close()
    assert dict(tracker.counts) == {("support", "target", "sent"): 1}
    assert tracker.state()["messages"] == []


def test_next_to_a_file_only_lines_of_crm_milter_are_wanted(journal: Journal) -> None:
    journal.write(*MESSAGE)
    tail = journal.tail(ours_alone=True)
    assert all(b" crm-milter[77]: 4bXq1Z0abc: rerouted: " in line for line in read(tail, 1))
    tail.close()


def test_a_journalctl_that_ends_is_trouble_and_is_started_again(journal: Journal) -> None:
    tail = journal.tail()
    read(tail, 1)
    assert tail._process
    tail._process.send_signal(signal.SIGKILL)
    with pytest.raises(LogError, match="journalctl"):
        wait_for("the end", tail.lines)
    journal.write("2|postfix/qmgr|4bXq1Z0abd: removed")
    assert b"4bXq1Z0abd: removed" in read(tail, 1)[-1]
    tail.close()


@pytest.mark.parametrize("cursor", ["x", "s=1;i=zz", "s=" + "0" * 31, ";;"])
def test_a_cursor_that_journalctl_refuses_is_forgotten(journal: Journal, cursor: str) -> None:
    tail = journal.tail({"cursor": cursor})
    with pytest.raises(LogError, match="it is read from now on"):
        wait_for("the end", tail.lines)
    journal.write("2|postfix/qmgr|4bXq1Z0abe: removed")
    assert b"4bXq1Z0abe: removed" in read(tail, 1)[-1]
    tail.close()


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ({"cursor": "s=1"}, True),
        ({"cursor": "a\0b"}, False),
        ({"cursor": 5}, False),
        ({"cursor": None}, False),
        ({"since": 1.5}, True),
        ({"since": "1"}, False),
        ({"since": float("nan")}, False),
        ({"since": float("inf")}, False),
        ({"since": -1}, False),
        ([], False),
        ("x", False),
        (None, True),
        ({}, True),
    ],
)
def test_places_that_can_be_gone_on_from(place: object, expected: bool) -> None:
    assert is_place(place) is expected


def test_a_directory_without_a_journal_has_no_lines(tmp_path: Path) -> None:
    if not shutil.which("journalctl"):
        pytest.skip("there is no journalctl here")
    tail = JournalTail(directory=str(tmp_path / "none"))
    with pytest.raises(LogError, match="journalctl"):
        wait_for("trouble", tail.lines)
