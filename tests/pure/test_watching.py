"""A watch sees what has changed, whatever else lies in the directories."""

import os
import socket
from contextlib import contextmanager, suppress

import pytest

from crm_milter.config.sources import Disk
from crm_milter.daemon.watching import Watch


def test_a_file_beside_that_always_changes(tmp_path):
    rules, other = tmp_path / "rules.yaml", tmp_path / "table.db"
    rules.write_text("rules: []\n")
    other.write_text("")
    disk, watch = Disk(), Watch()
    disk.names(tmp_path)
    disk.open(rules).close()
    watch.begin(disk.seen, disk.folders)
    looks = []
    for number in range(4):
        other.write_text("x" * number)
        looks.append(watch.has_changed())
        if number == 1:
            rules.write_text("rules:\n")
    assert looks == [False, False, False, True]


@contextmanager
def nobody():
    """As a user who may not read everything, as the service is."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(before)


def watching(path):
    disk, watch = Disk(), Watch()
    with suppress(OSError):
        disk.open(path).close()
    watch.begin(disk.seen, disk.folders)
    return watch


def test_a_file_that_may_not_be_read_is_taken_up_when_it_may(tmp_path):
    for each in (tmp_path, *tmp_path.parents):
        if str(each).startswith("/tmp/"):
            each.chmod(0o755)
    rules = tmp_path / "rules.yaml"
    rules.write_text("rules: []\n")
    rules.chmod(0o000)
    with nobody():
        watch = watching(rules)
        assert not any(watch.has_changed() for _ in range(4))  # said once
    rules.chmod(0o644)
    with nobody():
        assert [watch.has_changed() for _ in range(3)] == [False, True, True]
        watch = watching(rules)
        assert not any(watch.has_changed() for _ in range(4))
    rules.chmod(0o000)
    with nobody():
        assert [watch.has_changed() for _ in range(2)] == [False, True]


@pytest.mark.parametrize("kind", ["socket", "fifo", "directory", "dangling", "loop", "missing"])
def test_what_is_not_a_file_is_taken_up_once(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind in ("dangling", "loop"):
        path.symlink_to(path if kind == "loop" else tmp_path / "nowhere")
    watch = watching(path)
    assert not any(watch.has_changed() for _ in range(4))
    (tmp_path / "new").write_text("rules: []\n")
    (tmp_path / "new").rename(tmp_path / "y")
    if kind == "directory":
        path.rmdir()
    (tmp_path / "y").rename(path)
    assert [watch.has_changed() for _ in range(2)] == [False, True]
