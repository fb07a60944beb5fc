"""A CRM whose server does not answer delays neither the copies nor other mail."""

import socket

import pytest

CONFIG = """
unrouted_to: it@solarmora.com
spam: rspamd
rules:
  - name: support
    match: help@solarmora.com
    replace_with: case@crm.example
    also_deliver_to: team@solarmora.com
"""
HAM = b"From: Anna <anna@customer.example>\r\nSubject: broken\r\n\r\nhello\r\n"


@pytest.fixture
def silent():
    """The port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_slow_crm_does_not_delay_the_copies(make_lab, silent):
    lab = make_lab(
        CONFIG,
        virtual_alias_maps={"help@solarmora.com": "it@solarmora.com"},
        transport_maps={"crm.example": f"smtp:[127.0.0.1]:{silent}"},
    )
    recipients = ["<help@solarmora.com>", "<other@x.example>"]
    sent = lab.send("<anna@customer.example>", recipients, HAM, wait=False)
    lab.postfix.wait_log(f"{sent.queue_id}: to=<team@solarmora.com>.* status=sent")
    lab.postfix.wait_log(f"{sent.queue_id}: to=<other@x.example>.* status=sent")
    assert "to=<case@crm.example>" not in lab.postfix.log()
    assert sorted(lab.sink.recipients) == ["other@x.example", "team@solarmora.com"]
