"""The lab itself, without our milter: what the other tests rest on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import config, smtp
from lab.base import LabError
from lab.postfix import Postfix
from lab.sink import Sink

MESSAGE = (
    b"From: Anna <anna@customer.example>\r\n"
    b"To: help@solarmora.com\r\n"
    b"Subject: kaputt\r\n"
    b"X-Folded: one\r\n\ttwo  \r\n"
    b"\r\n"
    b".leading dot\r\n..two dots\r\n.\r\ntrailing blank \r\n\r\n8-bit \xe4\xff\r\nlast line\r\n"
)


def test_message_arrives_byte_for_byte(plain_lab):
    outcome = plain_lab.send("<anna@customer.example>", ["<help@solarmora.com>"], MESSAGE)
    assert outcome.recipients == ["help@solarmora.com"]
    delivery = outcome.of("help@solarmora.com").delivery
    assert delivery.message == MESSAGE
    assert delivery.sender == "anna@customer.example"
    assert delivery.port == plain_lab.sink.port


def test_every_class_of_domain_reaches_the_sink(make_lab):
    lab = make_lab(
        main={
            "mydestination": "local.example",
            "relay_domains": "relay.example",
            "virtual_mailbox_domains": "virtual.example",
            "virtual_alias_domains": "alias.example",
        },
        virtual_alias_maps={"a@alias.example": "b@elsewhere.example"},
    )
    rcpts = ["<a@local.example>", "<a@relay.example>", "<a@virtual.example>", "<a@alias.example>"]
    outcome = lab.send("<>", [*rcpts, "<a@other.example>"], MESSAGE)
    assert outcome.recipients == [
        "a@local.example",
        "a@other.example",
        "a@relay.example",
        "a@virtual.example",
        "b@elsewhere.example",
    ]


def test_arguments_are_raw_on_both_sides(plain_lab):
    rcpt = "<a+b@x.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+2Bb@y.example"
    outcome = plain_lab.send("<anna@customer.example> RET=HDRS ENVID=e1", [rcpt], MESSAGE)
    received = outcome.of("a+b@x.example")
    assert received.rcpt.notify == "SUCCESS,FAILURE"
    assert received.rcpt.orcpt == "rfc822;a+2Bb@y.example"
    assert {"RET=HDRS", "ENVID=e1"} <= {*received.delivery.mail_from.split()}


def test_sink_without_dsn_gets_no_dsn_arguments(make_lab):
    lab = make_lab(sink_options={"dsn": False})
    outcome = lab.send("<a@a.example>", ["<b@b.example> NOTIFY=FAILURE"], MESSAGE)
    assert outcome.of("b@b.example").rcpt.raw == "<b@b.example>"


def test_refused_recipient_bounces_to_the_sender(plain_lab):
    plain_lab.sink.refuse("Gone@x.example", "550 5.1.1 it is gone")
    outcome = plain_lab.send("<anna@a.example>", ["<gone@x.example>", "<b@x.example>"], MESSAGE)
    assert outcome.recipients == ["anna@a.example", "b@x.example"]
    bounce = outcome.of("anna@a.example")
    assert bounce.sender == ""
    assert b"it is gone" in bounce.data
    assert [rcpt.address for rcpt in plain_lab.sink.refused] == ["gone@x.example"]


def test_deferred_recipient_stays_until_the_sink_accepts(plain_lab):
    plain_lab.sink.defer("slow@x.example")
    plain_lab.send("<a@a.example>", ["<slow@x.example>"], MESSAGE, wait=False)
    plain_lab.postfix.wait_log(r"to=<slow@x.example>.*status=deferred")
    assert [mail["recipients"][0]["address"] for mail in plain_lab.postfix.queue()] == [
        "slow@x.example"
    ]
    plain_lab.sink.accept()
    plain_lab.postfix.flush()
    assert [entry.recipient for entry in plain_lab.sink.wait(1)] == ["slow@x.example"]
    plain_lab.postfix.wait_empty_queue()


def test_transports_services_and_settings(make_lab, make_sink):
    crm = make_sink()
    lab = make_lab(
        transport_maps={"crm.example": crm, "dead.example": "discard:"},
        services={"tiny": {"message_size_limit": "100"}},
        main={"smtp_destination_recipient_limit": "1"},
    )
    rcpts = ["<a@crm.example>", "<b@crm.example>", "<c@dead.example>", "<d@d.example>"]
    outcome = lab.send("<a@a.example>", rcpts, MESSAGE)
    assert outcome.recipients == ["d@d.example"]
    assert [len(delivery.rcpts) for delivery in crm.deliveries] == [1, 1]
    assert crm.recipients == ["a@crm.example", "b@crm.example"]
    assert lab.send("<a@a.example>", rcpts, MESSAGE, service="tiny").sent.reply.code == 552
    assert lab.postfix.postconf("-h", "smtp_destination_recipient_limit") == "1"


def test_reload_takes_a_changed_map(make_lab):
    aliases = {"a@x.example": "b@x.example"}
    lab = make_lab(virtual_alias_maps=aliases)
    assert lab.send("<>", ["<a@x.example>"], MESSAGE).recipients == ["b@x.example"]
    aliases["a@x.example"] = "c@x.example"
    lab.postfix.reload()
    assert lab.send("<>", ["<a@x.example>"], MESSAGE).recipients == ["c@x.example"]


@pytest.mark.parametrize("arguments", [("-t",), ("-i", "b@x.example")])
def test_sendmail(plain_lab, arguments):
    plain_lab.postfix.sendmail("-f", "a@a.example", *arguments, stdin=b"To: b@x.example\n\nhi\n")
    (received,) = plain_lab.sink.wait(1)
    assert (received.recipient, received.sender) == ("b@x.example", "a@a.example")


def test_sendmail_bs(plain_lab):
    lines = ["EHLO me", "MAIL FROM:<a@a.example>", "RCPT TO:<b@x.example>", "DATA", "", "hi", "."]
    talk = "\r\n".join([*lines, "QUIT", ""]).encode()
    assert b"queued as" in plain_lab.postfix.sendmail("-bs", stdin=talk).stdout
    assert plain_lab.sink.wait(1)[0].recipient == "b@x.example"


def test_held_mail_is_released(make_lab):
    lab = make_lab(main={"smtpd_data_restrictions": "check_client_access static:HOLD"})
    outcome = lab.send("<a@a.example>", ["<b@x.example>"], MESSAGE)
    assert outcome.recipients == []
    assert [mail["queue_name"] for mail in lab.postfix.queue()] == ["hold"]
    lab.postfix.postsuper("-H", outcome.queue_id)
    lab.postfix.flush()
    assert lab.sink.wait(1)[0].recipient == "b@x.example"


def test_an_abandoned_message_leaves_nothing(plain_lab):
    session = smtp.Session(plain_lab.postfix.port)
    assert session.cmd(b"MAIL FROM:<a@a.example>").code == 250
    assert session.cmd(b"RCPT TO:<b@x.example>").code == 250
    assert session.cmd(b"DATA").code == 354
    session.send_raw(b"Subject: never")
    session.close()
    plain_lab.postfix.wait_log("lost connection after DATA")
    plain_lab.postfix.wait_empty_queue()
    assert plain_lab.sink.received == []


def test_two_labs_at_once_keep_their_mail_apart(plain_lab, make_lab):
    other = make_lab()
    assert other.postfix.port != plain_lab.postfix.port
    here = plain_lab.send("<>", ["<here@x.example>"], MESSAGE)
    there = other.send("<>", ["<there@x.example>"], MESSAGE)
    assert here.recipients == plain_lab.sink.recipients == ["here@x.example"]
    assert there.recipients == other.sink.recipients == ["there@x.example"]


def test_stop_leaves_no_process_and_no_file():
    with Sink() as sink, Postfix(sink) as postfix:
        smtp.send(postfix.port, "<>", ["<a@x.example>"], MESSAGE)
        postfix.wait_empty_queue()
        processes = postfix.processes()
        assert len(processes) > 4
    assert not any(map(_alive, processes))
    assert not postfix.folder.exists()
    with pytest.raises(OSError, match="refused"):
        smtp.Session(postfix.port)


def test_failed_start_says_why_and_leaves_nothing():
    with Sink() as sink:
        postfix = Postfix(sink, main={"default_process_limit": "many"})
        with pytest.raises(LabError, match=r"default_process_limit.*many"):
            postfix.start()
    assert postfix.processes() == []
    postfix.stop()


def test_nothing_outlives_a_killed_interpreter():
    script = """
from lab.whole import Lab
lab = Lab().start()
print(lab.postfix.folder, *lab.postfix.processes(), flush=True)
input()
"""
    root = Path(__file__).parents[2]
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=root / "postfix",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with child:
        folder, *words = child.stdout.readline().decode().split()
        processes = [int(word) for word in words]
        assert processes
        child.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while Path(folder).exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(folder).exists()
    assert not any(map(_alive, processes))


def test_milter_setting():
    assert config.milter("unix:/x", default_action="accept", command_timeout="1s") == (
        "{ unix:/x, default_action=accept, command_timeout=1s }"
    )


def _alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status != "Z" and os.getpid() != pid
