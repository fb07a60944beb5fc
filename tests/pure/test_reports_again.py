"""Reports and messages as they really come, taken apart for ``crm-milter resend``."""

import base64
from pathlib import Path

import pytest

from crm_milter.config.load import parse
from crm_milter.resend.letter import Letters
from crm_milter.resend.report import NotOursError
from crm_milter.routing.marker import marker

CONFIG = """\
unrouted_to: it@solarmora.com
dead_letters: rejected@solarmora.com
spam: rspamd
rules:
  - {name: support, match: help@solarmora.com, replace_with: support@crm.example}
  - {name: spaces, match: '*-team@solarmora.com', replace_with: team@crm.example}
"""
MESSAGE = b"From: Joe <joe@customer.example>\nTo: help@solarmora.com\n\nPlease help.\n"
REPORT = b"""\
Content-Type: multipart/report; report-type=delivery-status; boundary="4bXq1Z"

--4bXq1Z
Content-Type: message/delivery-status

X-Postfix-Queue-ID: 4bXq1Z

Original-Recipient: rfc822;help@solarmora.com
Action: failed

--4bXq1Z
Content-Type: message/rfc822

%b
--4bXq1Z--
"""
HELP = ("help@solarmora.com",)


@pytest.fixture(scope="module")
def letters():
    return Letters(parse(CONFIG, Path("/c.yaml")).policy)


def refused(letters, octets):
    with pytest.raises(NotOursError) as caught:
        letters.letter(octets)
    return str(caught.value)


def report(*change, message=MESSAGE):
    return (REPORT % message).replace(*change) if change else REPORT % message


@pytest.mark.parametrize("name", ["J\u00f6".encode(), b"J\xe9", b"\xed\xa0\x80"])
def test_names_beyond_ascii_as_they_are(letters, name):
    message = MESSAGE.replace(b"Joe", name).replace(b"To: ", b"To: %b <" % name)
    message = message.replace(b"help@solarmora.com", b"help@solarmora.com>")
    for octets in (message, report(b"Original-Recipient: ", b"X: ", message=message)):
        found = letters.letter(octets)
        assert (found.sender, found.recipients) == ("joe@customer.example", HELP)


@pytest.mark.parametrize(
    "to",
    [
        b"help@solarmora.com <help@solarmora.com>",
        b'42" TV <help@solarmora.com>',
        b"'help@solarmora.com'",
        b"Desk: joe@x.example, help@solarmora.com;",
        b"joe@x.example; help@solarmora.com",
        b"Smith, Joe <joe@x.example>, Help, Desk <help@solarmora.com>",
        b"ann@x.example\n\t, <help@solarmora.com>",
        b"=?utf-8?q?a=2Cb?= <help@solarmora.com>",
        b"(a (b) help) help@solarmora.com",
    ],
)
def test_the_recipient_is_found_however_to_is_written(letters, to):
    message = MESSAGE.replace(b"To: help@solarmora.com", b"To: " + to)
    quoted = message.replace(b"Joe <joe@customer.example>", b"Joe O\" <'joe@customer.example'>")
    for octets in (message, report(b"Original-Recipient: ", b"X: ", message=quoted)):
        found = letters.letter(octets)
        assert (found.sender, found.recipients) == ("joe@customer.example", HELP)


def test_half_a_character_is_none(letters):
    octets = report(b"rfc822;help@", b"utf-8;\\x{D800}-team@")
    assert letters.letter(octets).recipients == ("\\x{D800}-team@solarmora.com",)


def test_a_recipient_without_a_type(letters):
    assert letters.letter(report(b"rfc822;help@", b"help@")).recipients == HELP


@pytest.mark.parametrize("boundary", [b'="\xe9"', b'="\xc3\xa9"', b"*=utf-8''%C3%A9"])
def test_a_boundary_beyond_ascii_is_no_trouble(letters, boundary):
    octets = report().replace(b'="4bXq1Z"', boundary)
    assert refused(letters, octets) == "it reports nothing, and no failure"


def test_damaged_base64_is_refused(letters):
    encoded = b"rfc822\nContent-Transfer-Encoding: base64\n\n"
    octets = report(b"rfc822\n\n", encoded, message=b"abcde")
    assert refused(letters, octets) == "it is damaged: the content is not valid base64"


@pytest.mark.parametrize("message", [MESSAGE, REPORT % MESSAGE])
def test_a_mailbox_of_several_messages_is_not_taken_for_one(letters, message):
    line = b"From joe@customer.example Sat Nov 28 12:00:00 2026\n"
    said = "it is a mailbox (mbox) with several messages: hand in each of them as a file"
    assert refused(letters, line + message + b"\n" + line + message) == said
    quoted = line + message + b"\n>" + line + message
    for one in (line + message + b"\n", quoted, message + b"\n" + line + message):
        assert letters.letter(one).recipients == HELP


@pytest.mark.parametrize("message", [b"", b"\n", b"\r\n\r\n"])
def test_a_report_with_nothing_in_it_is_refused(letters, message):
    assert refused(letters, report(message=message)) == "it does not hold the message"


def test_a_report_that_came_to_the_rule_is_handed_in_itself(letters):
    """It was a bounce of what the team had written, and a copy of it came to dead_letters."""
    bounce = b"Message-ID: <1@customer.example>\nTo: help@solarmora.com\n" + report()
    policy = parse(CONFIG, Path("/c.yaml")).policy
    (identity,) = policy.facts([("message-id", "<1@customer.example>")]).identities
    mark = marker(policy.marker_key, "support", identity).encode()
    found = letters.letter(
        b"Return-Path: <>\nX-Original-To: rejected@solarmora.com\nX-CRM-Milter: %b\n" % mark
        + bounce
    )
    assert (found.message.replace(b"\r\n", b"\n"), found.sender) == (bounce, "")
    assert found.recipients == HELP


def test_a_report_without_its_end_is_refused(letters):
    """The mailbox was full, or the disk."""
    said = "its end is missing, and with it perhaps some of the message"
    assert refused(letters, report(b"--4bXq1Z--", b"")) == said
    assert refused(letters, report(b"help.\n\n--4bXq1Z--\n", b"he")) == said


@pytest.mark.parametrize(
    "action",
    [
        b"failed (permanent)",
        b"(a (nested) comment) Failed",
        b"failed(no space)",
        b"FAILED (a)(b)",
        b"failed\n (on a line of its own)",
    ],
)
def test_an_action_with_a_comment(letters, action):
    assert letters.letter(report(b"Action: failed", b"Action: " + action)).recipients == HELP


@pytest.mark.parametrize(
    "action", [b"delayed (failed)", b"(failed)", b"relayed (not failed)", b"failed ("]
)
def test_a_comment_is_no_action(letters, action):
    assert "and no failure" in refused(letters, report(b"Action: failed", b"Action: " + action))


@pytest.mark.parametrize(
    "address",
    [
        b"rfc822; help@solarmora.com (Help Desk)",
        b"rfc822;<help@solarmora.com> (a) (b)",
        b"RFC822 ; help@solarmora.com",
        b"utf-8; help@solarmora.com",
        b"help@solarmora.com",
        b"rfc822;\n help@solarmora.com",
    ],
)
def test_an_address_however_it_is_written(letters, address):
    assert letters.letter(report(b"rfc822;help@solarmora.com", address)).recipients == HELP


@pytest.mark.parametrize(
    "value",
    [
        b'report-type="Delivery-Status"',
        b"report-type=global-delivery-status",
        b"report-type = delivery-status",
    ],
)
def test_the_type_of_a_report_however_it_is_written(letters, value):
    octets = report(b"report-type=delivery-status", value)
    assert letters.letter(octets).message == MESSAGE.replace(b"\n", b"\r\n")


def test_a_report_that_does_not_say_of_what(letters):
    octets = report(b" report-type=delivery-status;", b"")
    assert letters.letter(octets).recipients == HELP


@pytest.mark.parametrize(
    "encoding", [b"base64 (x)", b"BASE64;", b'"base64"', b"(a) base64", b"\n Base64"]
)
def test_an_encoding_however_it_is_written(letters, encoding):
    head = b"message/rfc822\nContent-Transfer-Encoding: " + encoding
    octets = report(b"message/rfc822", head, message=base64.encodebytes(MESSAGE))
    assert letters.letter(octets).message == MESSAGE.replace(b"\n", b"\r\n")


@pytest.mark.parametrize("encoding", [b"x-uuencode", b"base-64", b"gzip", b"x-token (y)"])
def test_a_message_in_an_encoding_that_is_not_known_is_not_handed_in_as_it_is(letters, encoding):
    head = b"message/rfc822\nContent-Transfer-Encoding: " + encoding
    assert "which is not read" in refused(letters, report(b"message/rfc822", head))


@pytest.mark.parametrize("damage", [b"!!!!", b"\xff\xff", b"=", b"--"])
def test_a_message_in_base64_that_is_damaged_is_not_cut_silently(letters, damage):
    whole = base64.encodebytes(MESSAGE)
    head = b"message/rfc822\nContent-Transfer-Encoding: base64"
    octets = report(b"message/rfc822", head, message=whole)
    assert letters.letter(octets).message == MESSAGE.replace(b"\n", b"\r\n")
    for place in (4, 40, len(whole) // 2):
        broken = whole[:place] + damage + whole[place + len(damage) :]
        octets = report(b"message/rfc822", head, message=broken)
        assert "not valid base64" in refused(letters, octets)
        octets = report(b"message/rfc822", head, message=whole[:place] + b"A" + whole[place:])
        assert "not valid base64" in refused(letters, octets)


@pytest.mark.parametrize(
    "between", [b"\n", b"\nReporting-MTA: dns; mx.crm.example\n", b"\nX-Extra: 1\n"]
)
def test_a_report_without_a_block_on_the_whole_message(letters, between):
    octets = report(b"\nX-Postfix-Queue-ID: 4bXq1Z\n\n", between)
    found = letters.letter(octets)
    assert (found.recipients, found.queue_id) == (HELP, "")
    assert found.known_as != letters.letter(octets.replace(b"Please", b"Do")).known_as


def test_each_recipient_of_a_report_without_a_block_on_the_whole_message(letters):
    other = b"Original-Recipient: rfc822;a-team@solarmora.com\nAction: %b"
    for action, more in ((b"failed", ("a-team@solarmora.com",)), (b"delayed", ())):
        octets = report(b"X-Postfix-Queue-ID: 4bXq1Z", other % action)
        assert {*letters.letter(octets).recipients} == {*HELP, *more}


MAILER = b"From: MAILER-DAEMON@crm.example\nTo: rejected@solarmora.com\n"
QMAIL = b"""
Hi. This is the qmail-send program at crm.example.

<support@crm.example>:
no mailbox here by that name.

--- Below this line is a copy of the message.

"""
MIXED = b"""Content-Type: multipart/mixed; boundary="x"

--x
%b
--x--
"""
UNREAD = (
    "it is a bounce in a form that is not read: save the message that it returns to a file,"
    " and hand in that file"
)


@pytest.mark.parametrize(
    "body",
    [
        QMAIL + MESSAGE,
        b"X-Failed-Recipients: support@crm.example\n\n"
        b"------ This is a copy of the message, including all the headers. ------\n" + MESSAGE,
        b"\n|------------------------- Original message follows: ------|\n" + MESSAGE,
        b"X-Failed-Recipients: support@crm.example\n\n"
        b"------ Dies ist eine Kopie Ihrer Nachricht ------\n\n" + MESSAGE,
        "\n\u0412\u0430\u0448\u0435 \u043f\u0438\u0441\u044c\u043c\u043e:\n\n".encode()
        + b"Received: from mx (mx [192.0.2.1])\n"
        + MESSAGE,
        b"\nVotre message n'a pas \xe9t\xe9 remis.\n> Message-ID: <1@customer.example>\n> "
        + MESSAGE,
        MIXED % (b"Content-Type: text/plain\n\n\tReturn-Path: <joe@x.example>\n" + MESSAGE),
        MIXED % report(),
        MIXED % (b"Content-Type:\n message/rfc822\n\n" + MESSAGE),
        MIXED % (b"Content-Type: Message/RFC822; name=a.eml\n\n" + report()),
    ],
)
@pytest.mark.parametrize("before", [b"", b"Return-Path: <>\n"])
def test_a_bounce_in_another_form_is_not_to_be_sent_itself(letters, body, before):
    octets = before + MAILER + body
    assert refused(letters, octets) == UNREAD
    assert refused(letters, octets.replace(b"\n", b"\r\n")) == UNREAD
    if before:
        assert refused(letters, octets.replace(b"MAILER-DAEMON", b"bounces")) == UNREAD


def test_a_report_in_a_report_is_not_to_be_sent_itself(letters):
    outer = (REPORT % (MAILER + report())).replace(b"4bXq1Z", b"outer")
    outer = outer.replace(b"rfc822;help@solarmora.com", b"rfc822;rejected@solarmora.com", 1)
    assert refused(letters, outer) == UNREAD


@pytest.mark.parametrize("body", [b"\nhello\n", MIXED % b"Content-Type: text/plain\n\nhello"])
def test_other_mail_without_an_address_of_a_rule_needs_another(letters, body):
    said = "To and Cc name no address that a rule replaces: use --to ADDRESS"
    assert refused(letters, b"Return-Path: <>\n" + MAILER + body) == said
    forwarded = MIXED % (b"Content-Type: message/rfc822\n\n" + MESSAGE)
    assert refused(letters, MAILER.replace(b"MAILER-DAEMON", b"joe") + forwarded) == said


def test_a_bounce_that_a_rule_was_applied_to_needs_another_address(letters):
    policy = parse(CONFIG, Path("/c.yaml")).policy
    (identity,) = policy.facts([("message-id", "<1@customer.example>")]).identities
    mark = marker(policy.marker_key, "support", identity).encode()
    bounce = b"Message-ID: <1@customer.example>\nX-CRM-Milter: %b\n" % mark + MAILER
    said = "To and Cc name no address that a rule replaces: use --to ADDRESS"
    for body in (QMAIL + MESSAGE, report()):
        assert refused(letters, bounce + body) == said
