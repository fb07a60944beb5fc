"""Whatever is wrong with the state directory, mail is served, and never by the rules of another."""

import json
import os
import subprocess
from contextlib import ExitStack, contextmanager

import pytest
from configs import config, environment, routed

from lab.base import wait_for
from lab.milter import Milter, program

HELP = "<help@solarmora.com>"
HAM = [("Subject", "kaputt"), ("X-Spam-Flag", "NO")]
BAD = "rules: nonsense\n"


@pytest.fixture
def state(tmp_path):
    """A state directory."""
    folder = tmp_path / "state"
    folder.mkdir()
    return folder


@pytest.fixture
def milter(state):
    """A milter that has kept its configuration there, and was stopped."""
    with Milter(config(), command=environment(STATE_DIRECTORY=str(state))) as milter:
        milter.wait_log("serving 1 rule")
        assert milter.stop() == 0
        yield milter


def serves(milter, dial, version=1):
    """Start it, and see that it routes by this version of the rules."""
    milter.logfile.mark()
    milter.start()
    milter.wait_log("serving 1 rule")
    mta = dial(milter)
    assert mta.message([HELP], HAM).of("add")[0][0].strip("<>") == routed(version)[0]
    mta.quit()


def refuses(milter, state):
    """Start it with a bad file: it ends with what is wrong there."""
    milter.config.write_text(BAD)
    done = subprocess.run(
        [*program(), "serve", "--config", milter.config],
        env={**os.environ, "STATE_DIRECTORY": str(state)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 78
    assert "expected a list" in done.stderr
    assert "Traceback" not in done.stderr


def changed(**values):
    return lambda whole: json.dumps({**whole, **values}).encode()


def without(name):
    return lambda whole: json.dumps({k: v for k, v in whole.items() if k != name}).encode()


DAMAGED = {
    "empty": lambda _: b"",
    "half": lambda whole: json.dumps(whole).encode()[:-40],
    "zeros": lambda whole: bytes(len(json.dumps(whole))),
    "a list": lambda _: b"[]",
    "null": lambda _: b"null",
    "a text": lambda _: b'"last-good"',
    "not UTF-8": lambda _: b'{"path": "\xff"}',
    "nested without end": lambda _: b"[" * 200_000,
    "no time": without("accepted"),
    "a time that is none": changed(accepted="yesterday"),
    "a time beyond all calendars": changed(accepted=1e300),
    "no digest": without("digest"),
    "a digest that is none": changed(digest=7),
    "no files": without("files"),
    "files that are none": changed(files=[1, 2]),
    "a file without a digest": lambda whole: json.dumps(
        {**whole, "files": dict.fromkeys(whole["files"])}
    ).encode(),
    "no folders": without("folders"),
    "folders that are none": changed(folders={"/etc": None}),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_manifest_counts_as_none(state, milter, dial, name):
    place = state / "last-good.json"
    damaged = DAMAGED[name](json.loads(place.read_text()))
    place.write_bytes(damaged)
    serves(milter, dial)
    wait_for("the next", lambda: place.read_bytes() != damaged)
    assert milter.stop() == 0
    place.write_bytes(damaged)
    refuses(milter, state)


@pytest.mark.parametrize("kind", ["directory", "fifo", "socket", "a link to nowhere"])
def test_something_else_in_place_of_the_manifest(state, milter, dial, kind):
    place = state / "last-good.json"
    place.unlink()
    if kind == "directory":
        (place / "x").mkdir(parents=True)
    elif kind == "fifo":
        os.mkfifo(place)
    elif kind == "socket":
        subprocess.run(["python3", "-c", f"import socket as s; s.socket(1).bind({str(place)!r})"])
    else:
        place.symlink_to(state / "nowhere")
    serves(milter, dial)
    assert milter.stop() == 0


@pytest.mark.parametrize("data", [b"", b"rules: []\n", b"\0" * 4096])
def test_a_damaged_copy_is_mended_by_the_next_start(state, milter, dial, data):
    copies = [*(state / "last-good").iterdir()]
    for each in copies:
        each.write_bytes(data)
    serves(milter, dial)
    wait_for("the copy", lambda: all(each.read_bytes() != data for each in copies))
    assert milter.stop() == 0
    milter.config.write_text(BAD)
    serves(milter, dial)
    assert milter.lines("the last good configuration")
    assert milter.stop() == 0


@contextmanager
def mounted(folder, options):
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def fill(folder):
    with (folder / "big").open("wb", 0) as stream:
        try:
            while True:
                stream.write(bytes(4096))
        except OSError:
            pass


@pytest.mark.parametrize("how", ["full", "read-only", "no inodes", "a file", "gone"])
def test_a_directory_that_takes_nothing_hurts_no_mail(tmp_path, dial, how):
    state = tmp_path / "state"
    if how == "a file":
        state.write_text("")
    elif how != "gone":
        state.mkdir()
    options = {"read-only": "ro", "full": "size=64k", "no inodes": "nr_inodes=1"}.get(how)
    with ExitStack() as stack:
        if options:
            stack.enter_context(mounted(state, options))
        if how == "full":
            fill(state)
        made = Milter(config(), command=environment(STATE_DIRECTORY=str(state)))
        milter = stack.enter_context(made)
        milter.wait_log("serving 1 rule")
        milter.wait_log("warning: cannot keep the last good configuration: ")
        mta = dial(milter)
        assert mta.message([HELP], HAM).of("add")[0][0].strip("<>") == routed()[0]
        mta.quit()
        assert milter.stop() == 0
        assert "Traceback" not in milter.log()


def test_two_services_with_one_directory_never_serve_each_others_rules(state, milter, dial):
    other = Milter(config(2), command=environment(STATE_DIRECTORY=str(state)))
    with other:
        other.wait_log("serving 1 rule")
        serves(milter, dial)
        assert milter.stop() == 0
        assert other.stop() == 0
    # The first one kept its own last.
    other.config.parent.mkdir(exist_ok=True)
    refuses(other, state)
    milter.config.write_text(BAD)
    serves(milter, dial)
    assert milter.stop() == 0
