"""Whole automatic messages through Postfix: a rule that leaves their class leaves them."""

import re

import pytest
from automatic_mail import BOUNCE, BOUNCES, BULK, LIST, LISTS, MASS, PEOPLE, REPLIES, REPLY, C

from lab import smtp

CLASSES = {REPLY: REPLIES, BOUNCE: BOUNCES, BULK: MASS, LIST: LISTS}
CONFIG = "unrouted_to: it@solarmora.com\nspam: rspamd\nrules:\n" + "".join(
    f"  - {{name: {kind.value}, match: {kind.value}@solarmora.com, replace_with: case@crm.example,"
    f" automatic: {{{kind.value}: leave}}}}\n"
    for kind in CLASSES
)
HEAD = """\
Received: from mail.b.example (mail.b.example [192.0.2.7])
\tby mx.b.example (Postfix) with ESMTP id 4bXq1Z;
\tSat, 28 Nov 2026 10:00:00 +0100 (CET)
Date: Sat, 28 Nov 2026 10:00:00 +0100
From: Joe Doe <joe@customer.example>
To: {to}
Subject: Re: your message
Message-ID: <{number}.b@customer.example>
MIME-Version: 1.0
"""
REPORT = """\
--{boundary}
Content-Type: text/plain; charset=us-ascii

The address does not exist.

--{boundary}
Content-Type: message/delivery-status

Reporting-MTA: dns; mail.b.example

Final-Recipient: rfc822; gone@b.example
Action: failed
Status: 5.1.1

--{boundary}--
"""
BOUNDARY = re.compile(r'boundary="?([^";\s]+)', re.IGNORECASE)


def message(number, to, fields):
    """The octets of a message with these fields, and a report where they announce one."""
    head = HEAD.format(number=number, to=to)
    head += "".join(f"{name}:{value if value[:1] in ' ' else f' {value}'}\n"
                    for name, value in fields if name)  # fmt: skip
    found = BOUNDARY.search(dict(fields).get(C, ""))
    text = REPORT.format(boundary=found[1]) if found else "I am back on Monday.\n"
    lines = f"{head}\n{text}".replace("\r\n", "\n").replace("\n", "\r\n")
    return lines.encode()


@pytest.fixture(scope="module")
def lab(make_module_lab):
    names = [f"{kind.value}@solarmora.com" for kind in CLASSES]
    return make_module_lab(
        CONFIG,
        virtual_alias_maps=dict.fromkeys(names, "it@solarmora.com"),
        main={"smtpd_client_message_rate_limit": "0"},
    )


def outcomes(lab, mails):
    """What the log says was done to each (sender, recipient, fields), in order."""
    ids = []
    for number, (sender, to, fields) in enumerate(mails):
        sent = smtp.send(lab.postfix.port, f"<{sender}>", [f"<{to}>"], message(number, to, fields))
        ids.append(sent.queue_id)
    lab.postfix.wait_empty_queue(60)
    return ["".join(lab.milter.lines(f"{each}: ")).removeprefix(f"{each}: ") for each in ids]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.value)
def test_each_message_of_a_class_is_left(lab, kind):
    lab.fresh()
    to, sender = f"{kind.value}@solarmora.com", "" if kind is BOUNCE else "joe@customer.example"
    mails = {program: (sender, to, fields) for program, fields in CLASSES[kind].items()}
    done = dict(zip(mails, outcomes(lab, mails.values()), strict=True))
    left = f"left: to=<{to}> rule={kind.value} reason=automatic"
    assert done == dict.fromkeys(mails, left)
    assert lab.sink.recipients == ["it@solarmora.com"] * len(mails)


def test_what_people_write_is_routed(lab):
    lab.fresh()
    mails = [
        ("joe@customer.example", f"{kind.value}@solarmora.com", (field,))
        for kind in CLASSES
        for field in PEOPLE
    ]
    done = outcomes(lab, mails)
    assert [each.partition(":")[0] for each in done] == ["rerouted"] * len(mails)
    assert lab.sink.recipients == ["case@crm.example"] * len(mails)
