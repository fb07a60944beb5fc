"""CRMs that reject mail in every way, and what arrives in the mailbox for dead letters."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from lab import smtp
from lab.sink import Sink
from lab.whole import Lab

LOST = "Lost@solarmora.com"
# How the server of each target rejects mail; "later" and "silent" accept it and bounce it then,
# "silent" without offering DSN.
WAYS = ("refuse", "data", "slow", "later", "silent")
CONFIG = f"""
unrouted_to: it@solarmora.com
dead_letters: {LOST}
spam: amavis
rules:
  - name: team
    match: help@solarmora.com
    replace_with: secret-team@refuse.example
    also_deliver_to: team@solarmora.com
"""
CONFIG += "".join(
    f"  - {{name: {way}, match: {way}@solarmora.com, replace_with: secret@{way}.example}}\n"
    for way in (*WAYS, "good")
)
LIFETIME = "3s"


@contextmanager
def world(make_lab) -> Iterator[tuple[Lab, dict[str, Sink]]]:
    """A lab, and the servers of the targets."""
    with ExitStack() as stack:
        sinks = {
            f"{way}.example": stack.enter_context(Sink(dsn=way != "silent"))
            for way in (*WAYS, "good")
        }
        names = (*WAYS, "good", "help")
        lab = make_lab(
            CONFIG,
            virtual_alias_maps={f"{name}@solarmora.com": "it@solarmora.com" for name in names},
            transport_maps=sinks,
            main={
                "bounce_size_limit": "51200000",
                "message_size_limit": "51200000",
                "notify_classes": "bounce",
                "maximal_queue_lifetime": LIFETIME,
                "bounce_queue_lifetime": LIFETIME,
                "smtpd_client_message_rate_limit": "0",
            },
        )
        yield lab, sinks


@pytest.fixture(scope="module")
def both(make_module_lab) -> Iterator[tuple[Lab, dict[str, Sink]]]:
    """A lab and the servers of its targets, one for all tests of a module."""
    with world(make_module_lab) as made:
        yield made


@pytest.fixture
def lab(both: tuple[Lab, dict[str, Sink]]) -> Lab:
    """The lab, with servers that reject mail."""
    lab, sinks = both
    lab.fresh()
    reject(sinks)
    return lab


def reject(sinks: dict[str, Sink]) -> None:
    """Let each server reject mail in its way."""
    for sink in sinks.values():
        sink.accept()
        sink.data_reply = "250 2.0.0 taken"
        sink.clear()
    sinks["refuse.example"].refuse("*", "551 5.1.6 the address was created again")
    sinks["data.example"].data_reply = "554 5.7.0 not this"
    sinks["slow.example"].defer("*", "451 4.3.0 try again later")


def accept(sinks: dict[str, Sink]) -> None:
    """Let all of them work again."""
    for sink in sinks.values():
        sink.accept()
        sink.data_reply = "250 2.0.0 taken"
        sink.clear()


BOUNCE = """\
From: MAILER-DAEMON@{domain}
To: {sender}
Subject: failure notice
MIME-Version: 1.0
Content-Type: multipart/report; report-type="delivery-status";
 boundary="=_8f3a"

--=_8f3a
Content-Type: text/plain

Sorry.

--=_8f3a
Content-Type: message/delivery-status

Reporting-MTA: dns; {domain}
{envelope_id}

{original}Final-Recipient: rfc822; {target}
Action: failed
Status: 5.2.1

--=_8f3a
Content-Type: message/rfc822

"""


def bounce_later(lab: Lab, sinks: dict[str, Sink]) -> int:
    """Have the servers that accepted mail bounce it to its sender, unless NOTIFY says never."""
    sent = 0
    for way in ("later", "silent"):
        sink = sinks[f"{way}.example"]
        for entry in sink.received:
            if not entry.sender or (entry.rcpt.notify == "NEVER" and sink.options.dsn):
                continue
            envelope_id = re.search(r"ENVID=(\S+)", entry.delivery.mail_from)
            orcpt = entry.rcpt.orcpt
            head = BOUNCE.format(
                domain=f"{way}.example",
                sender=entry.sender,
                envelope_id=f"Original-Envelope-Id: {_plain(envelope_id[1])}"
                if envelope_id
                else "Arrival-Date: Sat, 28 Nov 2026 12:00:00 +0000",
                original=f"Original-Recipient: {_plain(orcpt)}\n" if orcpt else "",
                target=entry.recipient,
            )
            text = head.encode() + entry.data + b"\r\n--=_8f3a--\r\n"
            reply = smtp.send(lab.postfix.port, "<>", [f"<{entry.sender}>"], text).reply
            assert reply.code == 250, reply
            sent += 1
        sink.clear()
    return sent


def _plain(xtext: str) -> str:
    return re.sub(r"\+([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), xtext)


def deliver(lab: Lab, folder: Path, box: str = LOST) -> list[Path]:
    """Put what came to a mailbox into a Maildir, as the delivery of Postfix does."""
    for name in ("cur", "new", "tmp"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    paths = []
    found = [each for each in lab.sink.received if each.recipient.lower() == box.lower()]
    for number, entry in enumerate(found):
        path = folder / "new" / f"{number:06}.M1P1.host"
        head = f"Return-Path: <{entry.sender}>\nX-Original-To: {box}\nDelivered-To: {box}\n"
        path.write_bytes(head.encode() + entry.data.replace(b"\r\n", b"\n"))
        paths.append(path)
    return paths


def resend(lab: Lab, state: Path, *arguments: object, stdin: bytes = b"") -> tuple[int, str, str]:
    """Run the command; status, standard output and diagnostics."""
    done = subprocess.run(
        [sys.executable, "-m", "crm_milter.cli.main", "resend", *map(str, arguments),
         "--config", str(lab.milter.config), "--via", f"127.0.0.1:{lab.postfix.port}"],
        input=stdin, capture_output=True, timeout=300, check=False,
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "STATE_DIRECTORY": str(state)},
    )  # fmt: skip
    lines = done.stderr.decode().splitlines(keepends=True)
    said = [line for line in lines if "socket_mode" not in line]  # that of the lab
    return done.returncode, done.stdout.decode(), "".join(said)


def body(message: bytes) -> bytes:
    """The message after its header, lines ending with LF."""
    return message.replace(b"\r\n", b"\n").partition(b"\n\n")[2]
