"""attach and detach write over nobody's edit, and whatever ends them can be finished or undone."""

import contextlib
import io
import json
import os
import pty
import re
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest
from attaching import CRM, Site, attach, attachable, main_cf
from planted import HELP

from crm_milter.cli import main as cli
from crm_milter.postfix.attach import apply
from crm_milter.postfix.attach import proof as probe
from crm_milter.postfix.postconf import Postconf

EDIT = "\n# a colleague was here\nmyorigin = colleague.example\n"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with attachable() as site:
        yield site


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(probe, "PATIENCE", 0.5)


def edit(site: Site, name: str = "main.cf") -> None:
    path = site.postfix.config / name
    path.write_text(path.read_text() + (EDIT if name == "main.cf" else "# a colleague\n"))


class Answer(io.StringIO):
    """A prompt that is answered with yes, after something has happened."""

    def __init__(self, meanwhile: Callable[[], None]) -> None:
        super().__init__()
        self._meanwhile = meanwhile

    def readline(self, *_: object) -> str:
        self._meanwhile()
        return "y\n"


@pytest.mark.parametrize("name", ["main.cf", "master.cf"])
@pytest.mark.parametrize("command", ["attach", "detach"])
def test_what_is_saved_while_the_prompt_waits_stays(site, monkeypatch, command, name):
    site.restore()
    if command == "detach":
        attach(site)
    saved: dict[str, bytes] = {}

    def meanwhile() -> None:
        edit(site, name)
        saved.update(site.texts())

    monkeypatch.setattr("sys.stdin", Answer(meanwhile))
    done = site.run(command)
    assert done.returncode == 1
    assert "changed in the meantime" in done.stdout + done.stderr
    assert {key: site.texts()[key] for key in ("main.cf", "master.cf")} == {
        key: saved[key] for key in ("main.cf", "master.cf")
    }


def test_what_is_saved_during_the_proof_stays_and_ours_goes(site, monkeypatch):
    site.restore()
    proved = probe.prove

    def prove(*arguments, **options):
        edit(site)
        edit(site, "master.cf")
        return proved(*arguments, **options)

    monkeypatch.setattr(probe, "prove", prove)
    site.milter.socket.chmod(0o600)
    done = attach(site)
    site.milter.socket.chmod(0o666)
    assert done.returncode == 1
    assert "rolled back: no session reaches the milter" in done.stdout
    assert EDIT in main_cf(site)
    assert str(site.milter.socket) not in main_cf(site)
    assert site.texts()["master.cf"].endswith(b"# a colleague\n")
    assert not (site.postfix.config / "crm-milter-attached").exists()


def test_a_draft_that_postconf_has_locked_is_waited_for(site):
    site.restore()
    config = site.postfix.config
    before = main_cf(site)
    # A line of the file's own that is written while the draft is locked.
    threads = [
        threading.Thread(
            target=site.postfix.run, args=("postconf", "-e", f"delay_warning_time={number}h")
        )
        for number in range(1, 4)
    ]
    for each in threads:
        each.start()
    done = attach(site)
    for each in threads:
        each.join()
    text = main_cf(site)
    assert "delay_warning_time" in text
    assert ("smtpd_milters = {" in text) == (done.returncode == 0)
    assert before.splitlines()[0] in text
    assert not list(config.glob("*.tmp"))


def test_only_one_attach_works_at_a_time(site, monkeypatch):
    site.restore()
    seen = []
    monkeypatch.setattr("sys.stdin", Answer(lambda: seen.append(site.run("detach", "--yes"))))
    assert site.run("attach").returncode == 0
    assert seen[0].returncode == 1
    assert "another attach or detach is working" in seen[0].stderr
    assert site.run("detach", "--yes").returncode == 0


def snapshot(site: Site) -> dict[str, bytes]:
    """All files below the directory with main.cf; drafts without the numbers in their names."""
    config = site.postfix.config
    return {
        re.sub(r"[0-9]{2,}", "N", str(path.relative_to(config))): path.read_bytes()
        for path in sorted(config.rglob("*"))
        if path.is_file()
    }


STEPS = ("os.rename", "os.remove", "os.mkdir", "subprocess.Popen")


class Run(NamedTuple):
    """How a child ended, and at which of its steps the files were no longer as at the step before.

    Steps are counted from the first change of the directory with main.cf.
    """

    status: int
    said: str
    steps: list[int]
    changes: list[int]

    @property
    def tried(self) -> list[int]:
        """The steps to try: what a kill leaves differs where the files do."""
        return self.steps if os.environ.get("CRM_MILTER_LONG") else self.changes


def run_until(site: Site, step: int, number: int, *command: str) -> Run:
    """Run a command in a child that a signal meets at a step."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            _child(site, step, number, write, command)
        os._exit(99)
    os.close(write)
    with os.fdopen(read, "rb") as stream:
        said = stream.read().decode()
    _, status = os.waitpid(child, 0)
    told = re.search(r"steps=(.*)\n", said)
    changed = json.loads(told[1]) if told else []
    return Run(
        os.waitstatus_to_exitcode(status),
        re.sub(r"steps=.*\n", "", said),
        [*range(1, len(changed) + 1)],
        [number for number, is_other in enumerate(changed, 1) if is_other],
    )


def _child(site: Site, step: int, number: int, write: int, command: tuple[str, ...]) -> None:
    seen: list[object] = [None]
    home = str(site.postfix.config)

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        if event not in STEPS:
            return
        if len(seen) > 1 or any(str(each).startswith(home) for each in arguments[:2]):
            # Whether Postfix has taken the files up is part of what a kill leaves.
            taken_up = event == "subprocess.Popen" and "reload" in str(arguments[1])
            seen.append((snapshot(site), taken_up))
            if len(seen) == step + 1:
                os.kill(os.getpid(), number)

    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(write, 2)
    sys.stderr = os.fdopen(2, "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdout = os.fdopen(1, "w")
    which = ("--config", str(site.yaml), "--config-directory", home)
    sys.addaudithook(hook)
    status = cli.main([*command, "--yes", *which])
    changed = [before != now for before, now in pairwise(seen)]
    os.write(write, f"steps={json.dumps(changed)}\n".encode())
    os._exit(status)


def both(site: Site) -> dict[str, bytes]:
    return {name: site.texts()[name] for name in ("main.cf", "master.cf")}


def test_killed_at_every_step_the_next_command_finishes_or_undoes_it(site):
    before = site.restore()
    whole = run_until(site, 0, signal.SIGKILL, "attach")
    assert (whole.status, len(whole.changes) > 10) == (0, True)
    assert site.run("detach", "--yes").returncode == 0
    for step in whole.tried:
        site.age()
        killed = run_until(site, step, signal.SIGKILL, "attach")
        assert killed.status == -signal.SIGKILL, step
        site.age()
        if step % 3 == 0:
            done = attach(site)
            assert done.returncode == 0, (step, done)
            record = site.postfix.config / "crm-milter-attached" / "record.json"
            assert json.loads(record.read_text())["settled"]
        done = site.run("detach", "--yes")
        assert done.returncode == 0, (step, done)
        assert both(site) == {name: before[name] for name in both(site)}, step
        assert {*site.texts()} == {*before}, step


def test_killed_while_it_detaches_it_detaches_the_next_time(site):
    before = site.restore()
    attach(site)
    whole = run_until(site, 0, signal.SIGKILL, "detach")
    assert (whole.status, len(whole.changes) > 5) == (0, True)
    for step in whole.tried:
        attach(site)
        site.age()
        run_until(site, step, signal.SIGKILL, "detach")
        assert site.run("detach", "--yes").returncode == 0, step
        assert site.texts() == before, step


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_any_step_undoes_it_with_one_line(site, number):
    before = site.restore()
    whole = run_until(site, 0, number, "attach")
    site.run("detach", "--yes")
    for step in whole.tried[number % 3 :: 3]:
        site.age()
        met = run_until(site, step, number, "attach")
        if met.status == 0:  # it came when all was done
            assert step > len(whole.steps) - 10
            assert site.run("detach", "--yes").returncode == 0
        else:
            assert met.status == 1, (step, met.said)
            lines = [line for line in met.said.splitlines() if ": warning: " not in line]
            assert lines == [f"crm-milter: interrupted by {signal.Signals(number).name}"], step
        assert site.texts() == before, step


def test_an_attach_that_was_not_proved_is_proved_or_undone(site):
    before = site.restore()
    attach(site)
    path = site.postfix.config / "crm-milter-attached" / "record.json"
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "settled": False}))
    site.milter.socket.chmod(0o600)
    done = attach(site)
    site.milter.socket.chmod(0o666)
    assert done.returncode == 1
    assert "rolled back" in done.stdout
    assert site.texts() == before


def test_nothing_to_do_is_proved(site):
    site.restore()
    attach(site)
    site.milter.socket.chmod(0o600)
    done = attach(site)
    site.milter.socket.chmod(0o666)
    assert done.returncode == 1
    assert done.stdout.startswith("already attached, but no session reaches the milter: ")
    assert site.run("detach", "--yes").returncode == 0


def test_a_terminal_that_is_gone_stops_nothing(site):
    site.restore()
    out = os.open("/dev/full", os.O_WRONLY)
    program = Path(sys.executable).with_name("crm-milter")
    which = ("--config", str(site.yaml), "--config-directory", str(site.postfix.config))
    done = subprocess.run(
        [program, "attach", "--yes", *which],
        stdout=out,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    os.close(out)
    assert b"Traceback" not in done.stderr
    assert site.arrives() == [CRM]
    assert site.run("detach", "--yes").returncode == 0


def test_ctrl_c_at_the_prompt_changes_nothing(site):
    before = site.restore()
    ours, theirs = pty.openpty()
    program = Path(sys.executable).with_name("crm-milter")
    which = ("--config", str(site.yaml), "--config-directory", str(site.postfix.config))
    with subprocess.Popen(
        [program, "attach", *which],
        stdin=theirs,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as child:
        assert child.stderr
        while b"apply these changes?" not in (line := child.stderr.readline()):
            assert b"warning: " in line
        child.send_signal(signal.SIGINT)
        assert child.stderr.read() == b"crm-milter: interrupted by SIGINT\n"
        assert child.wait() == 1
    os.close(ours)
    os.close(theirs)
    assert site.texts() == before


def test_the_record_hides_what_the_files_hide(site):
    site.restore()
    main, master = (site.postfix.config / name for name in ("main.cf", "master.cf"))
    main.chmod(0o640)
    master.chmod(0o600)
    os.chown(main, 0, 12)
    assert attach(site).returncode == 0
    for name, mode in (("main.cf", 0o640), ("master.cf", 0o600)):
        kept = (site.postfix.config / "crm-milter-attached" / name).stat()
        assert stat.S_IMODE(kept.st_mode) == mode
        assert stat.S_IMODE((site.postfix.config / name).stat().st_mode) == mode
        assert kept.st_gid == (12 if name == "main.cf" else 0)
    record = (site.postfix.config / "crm-milter-attached" / "record.json").stat()
    assert stat.S_IMODE(record.st_mode) == 0o600
    assert site.run("detach", "--yes").returncode == 0
    assert (stat.S_IMODE(main.stat().st_mode), main.stat().st_gid) == (0o640, 12)
    os.chown(main, 0, 0)


def test_a_directory_that_cannot_be_written_to_is_one_line(site):
    before = site.restore()
    # A file is where the directory of the record would be.
    (site.postfix.config / "crm-milter-attached").write_text("")
    done = attach(site)
    (site.postfix.config / "crm-milter-attached").unlink()
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "cannot" in done.stdout + done.stderr
    assert both(site) == {name: before[name] for name in both(site)}


@pytest.mark.parametrize("lines", [40, 5000 if os.environ.get("CRM_MILTER_LONG") else 1500])
def test_however_much_postfix_check_says(site, lines):
    parameters = "".join(f"unused_{number} = {'x' * 80}\n" for number in range(lines))
    before = site.restore(main=parameters)
    done = attach(site)
    assert done.returncode == 0, done.stdout[-500:]
    assert site.run("detach", "--yes").returncode == 0
    assert site.texts() == before


def test_the_reason_is_found_in_what_postfix_check_says(site):
    site.restore(main="".join(f"unused_{number} = x\n" for number in range(900)))
    directory = site.postfix.folder / "queue" / "pid"
    main = site.postfix.config / "main.cf"
    main.write_text(main.read_text() + "inet_interfaces = 192.0.2.256\n")
    site.age()
    with pytest.raises(apply.PostfixError, match=r"postfix check. failed: .*fatal: .*192.0.2.256"):
        apply.check_and_reload(Postconf(site.postfix.config))
    assert directory.exists()
    site.restore()


def test_mail_comes_to_the_mailbox_again_after_all_that(site):
    site.restore()
    assert site.arrives() == [HELP]
