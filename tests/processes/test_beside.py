"""The exporter and the follower of the log have no part in the mail, whatever becomes of them."""

import signal
import sys

import pytest
from configs import changed, config, routed
from procs import workers

from lab.base import free_port, wait_for

HELP = "<help@solarmora.com>"
HAM = [("Subject", "kaputt"), ("X-Spam-Flag", "NO")]

# Workers of the first reload end at once.
SPOILT = """
import os, sys
from crm_milter.cli import main as cli
from crm_milter.daemon import worker, workers
begin, run = workers.Workers.begin, worker.run
times = []
def begin_badly(*arguments):
    times.append(1)
    worker.run = run if len(times) > 1 else lambda *_: os._exit(3)
    return begin(*arguments)
workers.Workers.begin, workers._START = begin_badly, 3.0
sys.exit(cli.main())
"""


def settings(deliveries, version=1):
    listen = f"127.0.0.1:{free_port()}"
    return f"metrics: {{listen: '{listen}', deliveries: '{deliveries}'}}\n{config(version)}"


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "mail.log"
    path.touch(mode=0o644)
    return path


def without(module):
    return changed(f"sys.modules['{module}'] = None")


def test_an_exporter_that_cannot_be_loaded_stops_no_start(make_milter, dial):
    milter = make_milter(settings("none"), command=without("prometheus_client"))
    milter.wait_log("warning: metrics exporter exited with status 70, restarting it")
    assert dial(milter).message([HELP], HAM).of("delete")


def test_a_follower_that_cannot_be_loaded_stops_no_reload(make_milter, dial, log):
    milter = make_milter(settings("none"), command=without("crm_milter.trace.live"))
    milter.configure(settings(log, 2))
    milter.signal(signal.SIGHUP)
    milter.wait_log("reloaded, serving")
    milter.wait_log("warning: follower of the mail log exited with status 70, restarting it")
    [(first, *_), *_] = dial(milter).message([HELP], HAM).of("add")
    assert first.strip("<>") in routed(2)


def test_a_refused_configuration_is_not_followed_later(make_milter, log, tmp_path):
    """Not even when a lost socket makes the one in force begin again."""
    (program := tmp_path / "spoilt.py").write_text(SPOILT)
    milter = make_milter(settings(log), command=(sys.executable, str(program)))
    wait_for("four children", lambda: len(workers(milter.pid)) == 4)
    milter.configure(settings("none", 2))
    milter.signal(signal.SIGHUP)
    milter.wait_log("error: reload failed, keeping the previous rules: ")
    milter.socket.unlink()
    milter.wait_log("listening again")
    milter.wait_log("reloaded, serving")
    wait_for("the follower", lambda: len(workers(milter.pid)) == 4)
