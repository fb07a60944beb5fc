"""The exporter as a process: clients that do no good, its own death, a port that is taken."""

import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path

import pytest
from scraping import exporters_of, with_metrics

from crm_milter.metrics.catalogue import RECIPIENTS
from lab.base import free_port, is_free, wait_for
from lab.milter import Milter

CONFIG = """
unrouted_to: it@solarmora.com
spam: amavis
rules:
  - name: support
    match: help@solarmora.com
    replace_with: support@crm.example
"""


def connect(port: int, text: bytes = b"") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), 10)
    connection.sendall(text)
    return connection


def is_cut(connection: socket.socket, wait: float = 0.2) -> bool:
    """Whether the other side has hung up, or does so within so many seconds."""
    connection.settimeout(wait)
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def test_pages_and_methods(serving):
    _, exporter = serving(CONFIG)
    assert exporter.get("/")[0] == 200
    assert exporter.get("/healthz")[0] == 200
    assert exporter.get("/metrics?x=y")[0] == 200
    assert exporter.get("/nowhere")[0] == 404
    assert exporter.get("/metrics", method="POST")[0] == 400
    assert exporter.get("/metrics", method="HEAD")[2] == b""
    _, kind, body = exporter.get("/metrics", "application/openmetrics-text;version=1.0.0")
    assert kind.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")
    assert exporter.get("/metrics", "application/openmetrics-text; version=x; q=\0")[0] == 200


@pytest.mark.parametrize(
    "text",
    [
        b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 70_000 + b"\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"X: y\r\n" * 5_000 + b"\r\n",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/1.1\r\n" + b"x" * 9_000,
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"PUT /metrics HTTP/1.1\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000,
    ],
)
def test_what_is_no_request_of_ours_is_refused(serving, text):
    _, exporter = serving(CONFIG)
    with connect(exporter.port, text) as connection:
        assert connection.makefile("rb").read().startswith(b"HTTP/1.0 400 ")


def test_slow_and_half_open_clients_keep_nobody_waiting(serving):
    _, exporter = serving(CONFIG)
    silent = [connect(exporter.port) for _ in range(50)]
    slow = [connect(exporter.port, b"GET /metrics HTTP/1.1\r\nX: ") for _ in range(50)]
    for _ in range(20):
        began = time.monotonic()
        assert exporter.get("/metrics")[0] == 200
        assert time.monotonic() - began < 1
    assert all(map(is_cut, silent + slow[:30]))
    for connection in silent + slow:
        connection.close()


def test_clients_that_never_read_keep_nobody_waiting(serving):
    rule = "  - {{name: rule{0}, match: help{0}@x.example, replace_with: a@crm.example}}\n"
    _, exporter = serving("rules:\n" + "".join(map(rule.format, range(1000))))
    asking = b"GET /metrics HTTP/1.1\r\n\r\n"
    deaf = [connect(exporter.port, asking) for _ in range(40)]
    for _ in range(5):
        _, _, body = exporter.get("/metrics")
        assert body.count(b"\ncrm_milter_recipients_total{") == 1000 * len(RECIPIENTS.values)
    for connection in deaf:
        connection.close()


def test_a_client_that_dribbles_is_cut_off_in_time(serving):
    _, exporter = serving(CONFIG)
    began = time.monotonic()
    with connect(exporter.port, b"GET /metrics HTTP/1.1\r\n") as dribbling:
        while not is_cut(dribbling):
            with suppress(ConnectionError):
                dribbling.sendall(b"X")
    assert 4 < time.monotonic() - began < 8


def test_rubbish_and_hang_ups_are_not_worth_a_word(serving):
    milter, exporter = serving(CONFIG)
    milter.wait_log("serving")
    milter.logfile.mark()
    for text in (b"\r\n", b"\0" * 70_000, b"GET " + b"/" * 70_000, b"GET / HTTP/9\r\n\r\n"):
        connect(exporter.port, text).close()
        connect(exporter.port, text + b"\r\n\r\n").close()
    assert exporter.get("/metrics")[0] == 200
    assert milter.log() == ""


def test_a_dead_exporter_is_replaced_and_has_lost_nothing(serving):
    milter, exporter = serving(CONFIG)
    wait_for("the workers", lambda: exporter.value("workers") == 2)
    before = exporter.value("config_last_reload_success_timestamp_seconds")
    for _ in range(3):
        os.kill(exporters_of(milter)[0], signal.SIGKILL)
        milter.wait_log("warning: metrics exporter was killed by signal 9, restarting it")
        milter.logfile.mark()
        exporter.wait()
        assert exporter.value("config_last_reload_success_timestamp_seconds") == before
        assert exporter.value("workers") == 2
        assert exporter.value("worker_restarts_total") == 0


def test_a_taken_port_hurts_no_mail():
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        text, _ = with_metrics(CONFIG, port=port)
        with Milter(text) as milter:
            milter.wait_log("serving 1 rule")
            milter.wait_log(f"error: cannot listen for metrics on 127.0.0.1 port {port}: address")
            milter.wait_log("restarting it")
            assert milter.running()
            assert milter.stop() == 0


def test_no_exporter_no_port():
    with Milter(CONFIG) as milter:
        milter.wait_log("serving 1 rule")
        assert exporters_of(milter) == []


def test_while_open_sessions_end_it_says_that_no_mail_is_accepted(serving):
    milter, exporter = serving(CONFIG)
    with socket.socket(socket.AF_UNIX) as held:
        held.connect(str(milter.socket))
        time.sleep(0.3)  # until it is accepted, which nothing tells
        milter.signal(signal.SIGTERM)
        wait_for("a 503", lambda: exporter.get("/healthz")[0] == 503)
        assert exporter.value("workers") == 0
    assert milter.stop() == 0


def test_it_ends_with_the_service(serving):
    milter, exporter = serving(CONFIG)
    pid = exporters_of(milter)[0]
    assert milter.stop() == 0
    assert not Path(f"/proc/{pid}").exists()
    with pytest.raises(OSError, match="refused"):
        exporter.get("/metrics")


def test_it_ends_with_a_supervisor_that_is_killed(serving):
    milter, exporter = serving(CONFIG)
    pid = exporters_of(milter)[0]
    os.kill(milter.pid, signal.SIGKILL)
    wait_for("the end of the exporter", lambda: not is_running(pid))
    wait_for("the end of its socket", lambda: is_free(exporter.port))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
