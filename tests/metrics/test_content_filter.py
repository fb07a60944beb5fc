"""Deliveries behind an after-queue content filter: one message, two queue ids, counted once."""

import re
import socket
import threading
from collections import Counter
from contextlib import ExitStack, closing, suppress

import pytest
from scraping import Exporter, with_metrics

from lab.base import free_port, wait_for

RULES = """
unrouted_to: it@solarmora.com
rules:
  - name: support
    match: help@solarmora.com
    replace_with: support@crm.example
    also_deliver_to: team@solarmora.com
  - {name: sales, match: sales@solarmora.com, replace_with: leads@crm.example}
"""
MESSAGE = b"From: anna@customer.example\r\nSubject: test\r\n\r\nhello\r\n"
# As FILTER_README has the second smtpd(8); its name keeps Postfix from seeing a loop.
BACK = {
    "content_filter": "",
    "smtpd_milters": "",
    "myhostname": "filtered.lab.example",
    "receive_override_options": "no_unknown_recipient_checks,no_milters,no_address_mappings",
}


class Filter:
    """A filter that hands each session on to where it is told to, octet by octet."""

    def __init__(self) -> None:
        self.port, self.to = free_port(), 0
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._session, args=[client], daemon=True).start()

    def _session(self, client: socket.socket) -> None:
        with client, socket.create_connection(("127.0.0.1", self.to)) as server:
            back = threading.Thread(target=_copy, args=(server, client))
            back.start()
            _copy(client, server)
            back.join()

    def close(self) -> None:
        self._listener.close()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while octets := source.recv(65536):
            sink.sendall(octets)
        sink.shutdown(socket.SHUT_WR)


@pytest.fixture
def filtered(make_lab, monkeypatch, tmp_path):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    with ExitStack() as stack:
        between = stack.enter_context(closing(Filter()))
        text, port = with_metrics(RULES, deliveries="LOGS")
        lab = make_lab(
            text.replace("LOGS", "none"),
            services={"back": BACK},
            main={
                "content_filter": f"smtp:[127.0.0.1]:{between.port}",
                "minimal_backoff_time": "1s",
                "maximal_backoff_time": "1s",
                "queue_run_delay": "1s",
            },
        )
        between.to = lab.postfix.ports["back"]
        logs = f"[{lab.postfix.maillog.path}, {lab.milter.logfile.path}]"
        lab.milter.configure(text.replace("LOGS", logs))
        lab.milter.signal(1)
        lab.milter.wait_log("reloaded, serving")
        exporter = Exporter(port).wait()
        wait_for("the follower", lambda: "delivery_log_readable" in exporter.text())
        yield lab, exporter


def test_each_message_counts_once_with_its_last_outcome(filtered):
    lab, exporter = filtered
    lab.sink.refuse("leads@crm.example", "551 5.1.6 created again")
    for _ in range(5):
        for name in ("help", "sales"):
            sent = lab.send(
                "<anna@customer.example>", [f"<{name}@solarmora.com>"], MESSAGE, wait=False
            )
            assert sent.sent.reply.code == 250
    expected = {
        ("support", "target", "sent"): 5,
        ("support", "copy", "sent"): 5,
        ("sales", "target", "bounced"): 5,
    }

    def counts():
        return Counter(exporter.counts("deliveries_total", "rule", "kind", "outcome"))

    wait_for("the counts", lambda: counts() == expected, 60)
    lab.postfix.wait_empty_queue(60)
    assert len(re.findall(rb"queued as", lab.postfix.maillog.path.read_bytes())) >= 10
    assert counts() == expected
    assert {each.recipient for each in lab.sink.received} >= {"support@crm.example"}


def test_what_is_deferred_behind_the_filter_is_counted_as_that_and_then_as_sent(filtered):
    lab, exporter = filtered
    lab.sink.defer("leads@crm.example", "451 4.3.0 later")
    lab.send("<anna@customer.example>", ["<sales@solarmora.com>"], MESSAGE, wait=False)

    def count(outcome):
        counts = exporter.counts("deliveries_total", "rule", "kind", "outcome")
        return counts.get(("sales", "target", outcome), 0)

    wait_for("an attempt", lambda: count("deferred"), 60)
    assert count("sent") == 0
    lab.sink.accept()

    def sent() -> bool:  # Postfix may have skipped it, "still being delivered"
        lab.postfix.flush()
        return count("sent") == 1

    wait_for("the delivery", sent, 60)
