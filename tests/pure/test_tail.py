"""A log file followed: rotated either way, truncated, compressed, damaged, across restarts."""

import gzip
import json
import os
import random
import shutil
import time

import pytest

from crm_milter.trace import live
from crm_milter.trace.file import LogError
from crm_milter.trace.journal_tail import JournalTail
from crm_milter.trace.tail import Tail


def everything(tail):
    found = []
    while lines := tail.lines():
        found += lines
    return found


class Log:
    """A log with its writer; the tail is stopped and started by way of JSON."""

    def __init__(self, folder):
        self.path = folder / "mail.log"
        self.path.write_bytes(b"an old line\n")
        self.stream = self.path.open("ab", buffering=0)
        self.written = []
        self.seen = []
        self.tail = Tail(self.path)
        assert self.tail.lines() == []

    def write(self, *lines, end=b"\n"):
        for each in lines:
            self.stream.write(each + end)
            self.written.append(each)

    def rename(self, told=True):
        """Rotate as logrotate does without copytruncate; ``told``: the writer reopens."""
        self._shift()
        self.path.rename(self.path.with_name("mail.log.1"))
        if told:
            self._age()
            self.reopen()

    def reopen(self):
        self.stream.close()
        self.stream = self.path.open("ab", buffering=0)

    def copy_and_truncate(self):
        self._shift()
        shutil.copyfile(self.path, self.path.with_name("mail.log.1"))
        os.truncate(self.path, 0)
        self._age()

    def _age(self):
        """Let a minute have passed since each rotation: a day, in life."""
        for old in self.path.parent.glob("mail.log.*"):
            written = time.time() - 60 * _number(old)
            os.utime(old, (written, written))

    def _shift(self):
        for old in sorted(self.path.parent.glob("mail.log.*"), key=_number, reverse=True):
            name = old.name.replace(f".{_number(old)}", f".{_number(old) + 1}")
            old.rename(old.with_name(name))

    def compress(self):
        for old in self.path.parent.glob("mail.log.[2-9]"):
            packed = old.with_name(f"{old.name}.gz")
            with gzip.open(packed, "wb") as stream:
                stream.write(old.read_bytes())
            os.utime(packed, (old.stat().st_mtime, old.stat().st_mtime))
            old.unlink()

    def restart(self, position=None):
        position = json.loads(json.dumps(position or self.tail.position))
        self.tail.close()
        self.tail = Tail(self.path, position)

    def read(self):
        self.seen += everything(self.tail)


def _number(old):
    return int(old.name.split(".")[2])


@pytest.fixture
def log(tmp_path):
    log = Log(tmp_path)
    yield log
    log.stream.close()
    log.tail.close()


def test_lines_from_now_on_and_only_whole_ones(log):
    log.write(b"one", b"two")
    log.stream.write(b"thr")
    log.read()
    assert log.seen == [b"one", b"two"]
    log.stream.write(b"ee\n")
    log.read()
    assert log.seen[2:] == [b"three"]


@pytest.mark.parametrize("seed", range(60))
def test_each_line_is_seen_once_whatever_happens_to_the_file(log, seed):
    chance = random.Random(seed)
    number = 0
    for _ in range(60):
        what = chance.choice(["write", "write", "write", "read", "restart", "rotate", "compress"])
        if what == "write":
            for _ in range(chance.randrange(1, 5)):
                number += 1
                log.write(b"line %d " % number + b"x" * chance.randrange(300))
        elif what == "read":
            log.read()
        elif what == "restart":
            log.restart()
        elif what == "compress":
            log.compress()
        elif log.path.stat().st_size:  # logrotate's notifempty
            # One unread rotation at a time, as with a reader that is down for less than a day.
            chance.choice([log.rename, log.copy_and_truncate])()
            number += 1
            log.write(b"after %d" % number)
            log.read()
    log.read()
    assert log.seen == log.written


def test_what_is_written_while_nothing_reads_is_found_in_the_rotated_files(log):
    log.write(b"one")
    log.read()
    position = log.tail.position
    log.write(b"two")
    log.rename()
    log.write(b"three")
    log.rename()
    log.compress()
    log.write(b"four")
    log.restart(position)
    log.read()
    assert log.seen == log.written


def test_a_writer_that_goes_on_with_the_renamed_file(log):
    log.write(b"one")
    log.rename(told=False)
    log.read()
    log.path.touch()  # logrotate's create
    log.read()
    log.write(b"two")
    log.read()
    with log.path.open("ab", buffering=0) as new:  # two processes of the writer, for a moment
        new.write(b"three\n")
        log.read()
        log.write(b"two and a half")
    log.written.append(b"three")
    log.read()
    log._age()
    log.read()
    assert log.seen == log.written


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize("part", [0.0, 0.5, 0.9, 1.0])
def test_a_file_that_is_compressed_at_once_is_not_read_again(log, part, restarted):
    log.write(*[b"line %d" % number for number in range(20_000)])
    log.read()
    log.rename()
    old, packed = (log.path.with_name(f"mail.log.1{each}") for each in ("", ".gz"))
    octets = gzip.compress(old.read_bytes())
    packed.write_bytes(octets[: int(part * len(octets))])  # so far
    log.write(b"new")
    if restarted:
        log.restart()
    log.read()
    packed.write_bytes(octets)
    os.utime(packed, (old.stat().st_mtime, old.stat().st_mtime))
    old.unlink()
    log.write(b"newer")
    log.read()
    assert log.seen == log.written


def test_what_was_written_between_the_last_look_and_a_truncation_is_in_the_copy(log):
    log.write(b"one")
    log.read()
    log.write(b"two")
    log.copy_and_truncate()
    log.read()
    log.write(b"three")
    log.read()
    assert log.seen == log.written


def test_a_file_that_has_grown_beyond_the_place_since_it_was_truncated(log):
    log.write(b"one")
    log.read()
    os.truncate(log.path, 0)
    log.write(*[b"new %d" % number for number in range(100)])
    log.read()
    assert log.seen == log.written


def test_a_hole_that_a_writer_leaves_which_does_not_append(log):
    log.write(b"x" * 100_000)
    log.read()
    with log.path.open("r+b") as stream:
        stream.seek(0, os.SEEK_END)
        os.truncate(log.path, 0)
        stream.write(b"after the hole\n")
    log.read()
    assert log.seen[1:] == [b"after the hole"]


def test_rubbish_is_lines_and_one_without_an_end_is_skipped(log):
    rubbish = random.Random(1).randbytes(300_000)
    log.stream.write(rubbish + b"\n" + b"y" * 5_000_000 + b"\n")
    log.write(b"good")
    log.read()
    assert log.seen[-1] == b"good"
    assert max(map(len, log.seen)) <= 1 << 19


def test_a_file_that_is_made_later_is_new_from_its_beginning(tmp_path):
    path = tmp_path / "mail.log"
    tail = Tail(path)
    with pytest.raises(LogError, match="no such file"):
        tail.lines()
    path.write_bytes(b"first\n")
    assert tail.lines() == [b"first"]
    tail.close()


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_what_is_no_file_is_an_error_and_is_not_waited_for(tmp_path, kind):
    path = tmp_path / "mail.log"
    path.mkdir() if kind == "directory" else os.mkfifo(path)
    with pytest.raises(LogError, match="not a regular file"):
        Tail(path).lines()


def test_a_file_that_comes_back_is_read_on(log):
    log.write(b"one")
    log.read()
    gone = log.path.with_name("away")
    log.path.rename(gone)
    log.restart()
    with pytest.raises(LogError):
        log.tail.lines()
    gone.rename(log.path)
    log.write(b"two")
    log.read()
    assert log.seen == log.written


def test_a_place_that_is_nowhere_any_more_means_that_all_is_new(log):
    log.write(b"one")
    log.read()
    position = log.tail.position
    log.path.unlink()
    log.reopen()
    log.write(b"two")
    log.restart(position)
    log.read()
    assert log.seen == log.written


def test_a_file_that_is_named_several_times_is_followed_once(log):
    link = log.path.with_name("link")
    link.symlink_to(log.path)
    names = (str(log.path), f"{log.path.parent}/./mail.log", str(link), "journal")
    found = live.sources(names, {})
    assert [type(each) for each in found] == [Tail, JournalTail]
