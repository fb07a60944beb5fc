"""What a host does to processes: limits, frozen workers, a socket that is gone, a bad file."""

import contextlib
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from configs import changed, config, environment, routed
from procs import descriptors, group, memory_of_all, wait_for_workers, workers

from lab.base import free_port, wait_for
from lab.milter import Milter, program

HELP = "<help@solarmora.com>"
HAM = [("Subject", "kaputt"), ("X-Spam-Flag", "NO")]
FAILED = r"error: reload failed, keeping the previous rules: "


def target(result):
    """Where a message went."""
    return result.of("add")[0][0].strip("<>")


MANY_RULES = "".join(
    f"  - {{name: r{number}, match: a{number}@solarmora.com, replace_with: b@crm.example}}\n"
    for number in range(1000)
)


@contextlib.contextmanager
def sampling(take):
    """Take a sample again and again, in a thread, while the block lasts."""
    ended = threading.Event()

    def run():
        while not ended.wait(0.05):
            take()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def reload(milter, version=2, settings="", rules=""):
    """Write the configuration of this version and return when it is served."""
    before = len(milter.lines("reloaded"))
    milter.configure(config(version, settings, rules))
    milter.signal(signal.SIGHUP)
    wait_for("the reload", lambda: len(milter.lines("reloaded")) > before, 60)


# A reload whose workers cannot start

REFUSING = changed(
    "import os, errno, builtins; fork = os.fork; first = [0];"
    "exec('def limited():\\n"
    "    first[0] += 1\\n"
    "    if first[0] > 2: raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))\\n"
    "    return fork()'); os.fork = limited"
)


def test_a_reload_that_cannot_fork_keeps_the_old_workers(make_milter, dial):
    milter = make_milter(command=REFUSING)
    before = wait_for_workers(milter)
    session = dial(milter)
    milter.configure(config(2))
    milter.signal(signal.SIGHUP)
    milter.wait_log(f"{FAILED}cannot start a worker: resource temporarily unavailable")
    assert len(milter.lines("error")) == 1
    assert wait_for_workers(milter) == before
    assert target(dial(milter).message([HELP], HAM)) == routed(1)[0]
    assert target(session.message([HELP], HAM)) == routed(1)[0]


@pytest.mark.parametrize("limit", [resource.RLIMIT_AS, resource.RLIMIT_NOFILE])
def test_a_reload_under_a_limit_keeps_the_old_workers_and_comes_later(make_milter, dial, limit):
    """The new workers have no memory, or no descriptors."""
    milter = make_milter()
    before = wait_for_workers(milter)
    old = resource.prlimit(milter.pid, limit)
    tight = {resource.RLIMIT_AS: 1 << 20, resource.RLIMIT_NOFILE: 8}[limit]
    resource.prlimit(milter.pid, limit, (tight, old[1]))
    milter.configure(config(2))
    milter.signal(signal.SIGHUP)
    milter.wait_log("error: reload failed, keeping the previous rules")
    assert wait_for_workers(milter) == before
    assert target(dial(milter).message([HELP], HAM)) == routed(1)[0]
    resource.prlimit(milter.pid, limit, old)
    reload(milter, 3)
    assert target(dial(milter).message([HELP], HAM)) == routed(3)[0]
    assert milter.running()


SPOILT = """
import os, sys, time
from crm_milter.cli import main as cli
from crm_milter.daemon import worker
from crm_milter.daemon import workers

begin = workers.Workers.begin

def bad(*_):
    {how}

def begin_badly(*arguments):
    worker.run = bad
    return begin(*arguments)

workers.Workers.begin, workers._START = begin_badly, 3.0
sys.exit(cli.main())
"""


@pytest.mark.parametrize(
    "how", ["raise MemoryError", "os._exit(3)", "os.kill(os.getpid(), 9)", "time.sleep(60)"]
)
def test_workers_of_a_reload_that_die_or_hang(make_milter, dial, how, tmp_path):
    program = tmp_path / "spoilt.py"
    program.write_text(SPOILT.format(how=how))
    milter = make_milter(command=(sys.executable, str(program)))
    before = wait_for_workers(milter)
    milter.configure(config(2))
    milter.signal(signal.SIGHUP)
    milter.wait_log(FAILED, 15)
    assert target(dial(milter).message([HELP], HAM)) == routed(1)[0]
    assert milter.lines("giving up") == []
    wait_for("the old ones alone", lambda: sorted(workers(milter.pid)) == before, 20)


# Frozen workers


def test_a_frozen_worker_delays_no_reload_and_is_killed(make_milter, dial):
    milter = make_milter()
    frozen, _ = wait_for_workers(milter)
    os.kill(frozen, signal.SIGSTOP)
    for version in (2, 3, 4):
        start = time.monotonic()
        reload(milter, version)
        assert time.monotonic() - start < 5
        assert target(dial(milter).message([HELP], HAM)) == routed(version)[0]
    milter.wait_log(rf"warning: worker w\d \(pid {frozen}\) does not respond, killing it", 20)
    wait_for("its end", lambda: frozen not in workers(milter.pid))


def test_a_worker_that_freezes_while_it_serves_is_replaced(make_milter, dial):
    milter = make_milter(command=changed("supervisor._PING = 0.2"))
    frozen, _ = wait_for_workers(milter)
    os.kill(frozen, signal.SIGSTOP)
    milter.wait_log("does not respond, killing it")
    wait_for("its successor", lambda: frozen not in wait_for_workers(milter))
    assert len(milter.lines("starting a new one")) == 1


@pytest.mark.timeout(300)
def test_old_generations_have_a_limit(make_milter, dial, record_property):
    """In 50 reloads with a session each that stays, memory is never twice what it is after one."""
    milter = make_milter(config(milter="drain_timeout: 2", rules=MANY_RULES))
    held = []

    def again(version):
        held.append(dial(milter))
        reload(milter, version, "drain_timeout: 2", MANY_RULES)
        return memory_of_all(milter)

    first = again(2)
    sizes = []
    with sampling(lambda: sizes.append(memory_of_all(milter))):
        for version in range(3, 53):
            again(version)
    milter.wait_log(r"drain_timeout \(2 seconds\) exceeded")
    wait_for("the end of the old ones", lambda: len(group(milter.pid)) == 3, 20)
    last = memory_of_all(milter)
    record_property("kB after one reload, at most, after 50", (first, max(sizes), last))
    assert len(sizes) > 50
    assert max(sizes) < 2 * first


@pytest.mark.timeout(120)
def test_old_generations_are_few(make_milter, dial):
    """With many of them a reload waits until one has ended; it cuts off no session."""
    milter = make_milter(command=changed("workers._MANY, workers._ROOM = 4, 0.1"))
    held = [dial(milter)]
    for version in range(2, 6):
        reload(milter, version)
        held.append(dial(milter))
    milter.configure(config(6))
    milter.signal(signal.SIGHUP)
    time.sleep(2)
    assert len(milter.lines("reloaded")) == 4
    results = [target(mta.message([HELP], HAM)) for mta in held]
    assert results == [routed(version)[0] for version in range(1, 6)]
    held.pop(0).quit()
    wait_for("the reload", lambda: len(milter.lines("reloaded")) == 5)
    assert target(dial(milter).message([HELP], HAM)) == routed(6)[0]


# The socket


@pytest.mark.parametrize("how", ["unlink", "move", "replace by a file", "all of the directory"])
def test_a_socket_that_is_gone_is_bound_again(dial, make_milter, how, tmp_path):
    port = free_port()
    milter = make_milter(config() + f"metrics:\n  listen: 127.0.0.1:{port}\n")
    session = dial(milter)
    wait_for("health", lambda: health(port)[0] == 200)
    if how == "unlink":
        milter.socket.unlink()
    elif how == "move":
        milter.socket.rename(f"{milter.socket}.old")
    elif how == "replace by a file":
        milter.socket.rename(f"{milter.socket}.old")
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(milter.socket))
    else:
        milter.socket.unlink()
        Path(f"{milter.socket}.lock").unlink()
    if how != "replace by a file":
        assert health(port) == (503, f"the milter socket is gone: {milter.socket}\n")
    milter.wait_log("error: .* is no longer this socket, listening again")
    milter.wait_log("reloaded, serving")
    assert target(dial(milter).message([HELP], HAM)) == routed()[0]
    assert target(session.message([HELP], HAM)) == routed()[0]
    wait_for("health", lambda: health(port)[0] == 200)


@pytest.mark.parametrize("how", ["a file", "another program", "no directory"])
def test_a_socket_that_cannot_be_had_again_ends_it(make_milter, how, tmp_path):
    folder = tmp_path / "place"
    folder.mkdir()
    path = folder / "socket"
    milter = Milter(config().replace("LISTEN", f"unix:{path}"))
    milter.start = lambda: None
    process = subprocess.Popen(
        [*program(), "serve", "--config", milter.config], stderr=subprocess.PIPE, text=True
    )
    with process, socket.socket(socket.AF_UNIX) as other:
        assert any(line.startswith("serving") for line in process.stderr)
        path.unlink()
        if how == "a file":
            path.write_text("")
        elif how == "another program":
            other.bind(str(path))
            other.listen()
        else:
            Path(f"{path}.lock").unlink()
            folder.rmdir()
        assert process.wait(20) == 1
        lines = process.stderr.read()
    words = {"a file": "is not a socket", "another program": "another process is listening"}
    assert words.get(how, "does not exist") in lines
    assert how != "a file" or path.read_text() == ""


def health(port):
    """The status and the text of /healthz."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_one_run_as_root_leaves_a_lock_that_the_service_can_take(tmp_path):
    folder = tmp_path / "place"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    (tmp_path / "config").write_text(config().replace("LISTEN", f"unix:{folder}/socket"))
    command = [*program(), "serve", "--config", tmp_path / "config"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert any(line.startswith("serving") for line in process.stderr)
        process.terminate()
    assert Path(f"{folder}/socket.lock").stat().st_uid == 65534


# The last good configuration


def test_a_bad_file_at_the_start_is_served_by_the_last_good_one(tmp_path, dial):
    state, run, port = tmp_path / "state", tmp_path / "run", free_port()
    state.mkdir()
    run.mkdir()
    command = environment(STATE_DIRECTORY=str(state), RUNTIME_DIRECTORY=str(run))
    (tmp_path / "more").mkdir()
    (tmp_path / "more/a.yaml").write_text(
        "rules:\n  - {name: more, match: 'file:list', replace_with: more@crm.example}\n"
    )
    (tmp_path / "more/list").write_text("sales@solarmora.com\n")
    text = config() + f"include: {tmp_path}/more/*.yaml\nmetrics: {{listen: '127.0.0.1:{port}'}}\n"
    milter = Milter(text, command=command)
    with milter:
        milter.wait_log("serving 2 rules")
        assert milter.stop() == 0
        milter.configure("rules: nonsense\n")
        (tmp_path / "more/list").unlink()
        milter.logfile.mark()
        milter.start()
        milter.wait_log("serving 2 rules with 2 workers, the last good configuration")
        assert milter.lines("expected a list")
        mta = dial(milter)
        assert target(mta.message([HELP], HAM)) == routed()[0]
        assert target(mta.message(["<sales@solarmora.com>"], HAM)) == "more@crm.example"
        page = wait_for("the metrics", lambda: metrics(port))
        assert "crm_milter_config_last_good 1.0" in page
        assert "crm_milter_config_last_reload_successful 0.0" in page
        assert json.loads((run / "in-force.json").read_text())["is_last_good"]
        reload(milter, 3)
        assert "crm_milter_config_last_good 0.0" in wait_for(
            "the metrics", lambda: "last_good 0" in metrics(port) and metrics(port)
        )
        mta.quit()


def metrics(port):
    """The page of the metrics, "" while there is none."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return answer.read().decode()
    except OSError:
        return ""


@pytest.mark.parametrize("how", ["no manifest", "damaged", "another file"])
def test_what_cannot_be_served_again_ends_the_start(tmp_path, how):
    state = tmp_path / "state"
    state.mkdir()
    milter = Milter(config(), command=environment(STATE_DIRECTORY=str(state)))
    with milter:
        milter.wait_log("serving 1 rule")
        assert milter.stop() == 0
        milter.config.write_text("rules: nonsense\n")
        if how == "no manifest":
            (state / "last-good.json").unlink()
        elif how == "damaged":
            for each in (state / "last-good").iterdir():
                each.write_text("rules: []\n")
        else:
            milter.config.rename(tmp_path / "other")
        path = tmp_path / "other" if how == "another file" else milter.config
        ended = subprocess.run(
            [*program(), "serve", "--config", path],
            env={**os.environ, "STATE_DIRECTORY": str(state)},
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert ended.returncode == 78
        assert "expected a list" in ended.stderr


# The log, descriptors, the exporter


def test_a_log_that_is_not_read_stalls_no_mail(tmp_path, dial):
    """Its pipe fills up; what was lost is said once it is read again."""
    port = free_port()
    exporter = f"metrics:\n  listen: 127.0.0.1:{port}\n  deliveries: none\n"
    milter = Milter(config() + exporter)
    command = [*program(), "serve", "--config", milter.config]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process, ended(process):
        wait_for("two workers and the exporter", lambda: len(workers(process.pid)) == 3)
        wait_for("the socket", milter.socket.exists)
        mta = dial(milter)
        start = time.monotonic()
        for _ in range(1500):
            mta.message([HELP], HAM)
            mta.abort()
        assert time.monotonic() - start < 30
        lost = re.compile(r"(?m)^crm_milter_lost_log_lines_total ([1-9]\d*)")
        wait_for("the count", lambda: lost.search(metrics(port)), 30)
        os.set_blocking(process.stderr.fileno(), False)
        assert len(process.stderr.read()) >= 60_000
        mta.message([HELP], HAM)
        wait_for("the word on it", lambda: b"of the log lost" in (process.stderr.read() or b""))
        mta.quit()


@contextlib.contextmanager
def ended(process):
    """End a process also when the block fails."""
    try:
        yield
    finally:
        process.terminate()


def test_a_worker_without_descriptors_says_so_and_comes_back(make_milter, dial):
    port = free_port()
    exporter = f"metrics:\n  listen: 127.0.0.1:{port}\n  deliveries: none\n"
    milter = make_milter(config(milter="workers: 1") + exporter)
    counted = "crm_milter_descriptor_shortages_total"
    wait_for("the metrics", lambda: f"{counted} 0" in metrics(port))
    children = wait_for_workers(milter, 2)
    worker = min(children, key=lambda pid: listens(pid, port))
    used = len(os.listdir(f"/proc/{worker}/fd"))  # noqa: PTH208 - of a process
    hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (used + 12, hard))
    sessions = [dial_quietly(milter) for _ in range(20)]
    milter.wait_log(r"error: worker \(pid \d+\) is out of file descriptors")
    before = seconds(worker)
    time.sleep(2)
    assert seconds(worker) - before < 0.5, "it spins"
    wait_for("the count", lambda: f"{counted} 1" in metrics(port))
    assert sorted(workers(milter.pid)) == children
    for session in sessions:
        session.close()
    wait_for("room", lambda: len(os.listdir(f"/proc/{worker}/fd")) < used + 6)  # noqa: PTH208
    time.sleep(1)
    assert target(dial(milter).message([HELP], HAM)) == routed()[0]


def dial_quietly(milter):
    """A connection that says nothing."""
    link = socket.socket(socket.AF_UNIX)
    link.settimeout(10)
    link.connect(str(milter.socket))
    return link


def seconds(pid):
    """The CPU time of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_an_exporter_that_dies_during_a_drain_comes_back(make_milter, dial):
    port = free_port()
    milter = make_milter(config() + f"metrics:\n  listen: 127.0.0.1:{port}\n")
    wait_for("the exporter", lambda: metrics(port))
    mta = dial(milter)
    exporter = max(workers(milter.pid), key=lambda pid: listens(pid, port))
    milter.signal(signal.SIGTERM)
    milter.wait_log("stopping")
    os.kill(exporter, signal.SIGKILL)
    milter.wait_log("metrics exporter was killed by signal 9")
    wait_for("the next", lambda: "crm_milter_sessions" in metrics(port))
    assert milter.lines("error") == []
    mta.quit()


def test_processes_beside_the_workers_that_freeze_hold_up_nothing(make_milter, dial, tmp_path):
    port, log = free_port(), tmp_path / "mail.log"
    log.touch(mode=0o644)
    settings = f"metrics:\n  listen: 127.0.0.1:{port}\n  deliveries: {log}\n"
    milter = make_milter(config() + settings)
    wait_for("the exporter", lambda: metrics(port))
    beside = set(wait_for("four children", lambda: of_four(milter))) - set(serving(milter))
    for pid in beside:
        os.kill(pid, signal.SIGSTOP)
    milter.configure(config(2) + settings)
    milter.signal(signal.SIGHUP)
    milter.wait_log("reloaded")
    session = dial(milter)
    assert target(session.message([HELP], HAM)) == routed(2)[0]
    session.quit()
    milter.wait_log("warning: follower of the mail log does not end, killing it")
    wait_for("the next follower", lambda: set(of_four(milter)) - beside - set(serving(milter)))
    began = time.monotonic()
    milter.stop()
    assert time.monotonic() - began < 5


def of_four(milter):
    """The children of the supervisor, once there are four: two work, two stand beside."""
    found = workers(milter.pid)
    return found if len(found) == 4 else []


def serving(milter):
    """The children that have the milter's socket, or a session of it."""
    path = str(milter.socket)
    lines = Path("/proc/net/unix").read_text().splitlines()
    inodes = {f"socket:[{line.split()[6]}]" for line in lines if line.endswith(f" {path}")}
    return [pid for pid in workers(milter.pid) if inodes & set(descriptors(pid))]


def listens(pid, port):
    """Whether a process has the listening socket of a port."""
    inodes = {
        fields[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if (fields := line.split())[3] == "0A" and fields[1].endswith(f":{port:04X}")
    }
    return any(f"socket:[{inode}]" in descriptors(pid) for inode in inodes)


# Libraries


def test_without_libmilter_it_ends_with_one_line(tmp_path):
    (tmp_path / "milter.py").write_text("raise ImportError('no such library', name='milter')")
    (tmp_path / "config").write_text(config().replace("LISTEN", f"unix:{tmp_path}/s"))
    command = environment(PYTHONPATH=str(tmp_path))
    ended = subprocess.run(
        [*command, "serve", "--config", tmp_path / "config"],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 78
    assert ended.stderr.count("\n") == 1
    assert "install python3-milter" in ended.stderr
