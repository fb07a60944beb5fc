"""Rules for some of the mail to an address: told by its header, by To and Cc, by the time.

RFC 2047 (encoded words), RFC 5322 section 3.6.6 (Resent fields), cleanup(8), header_size_limit.
"""

import base64
from datetime import UTC, datetime, timedelta

import pytest
from letter import HAM, JOE, SPAM, letter

from lab import smtp

IT = "it@solarmora.com"
CRM, BILLS, OLD = "support@crm.example", "bills@crm.example", "old@desk.example"
CONFIG = """
unrouted_to: it@solarmora.com
spam: amavis
recipient_delimiter: "+"
rules:
  - name: old-desk
    match: help@solarmora.com
    replace_with: old@desk.example
    headers: {References: "*@solarmora.zendesk.com>*"}
  - name: trial
    match: help@solarmora.com
    replace_with: trial@crm.example
    headers: {Subject: "*rechnung*"}
    mode: test
  - name: bills
    match: help@solarmora.com
    replace_with: bills@crm.example
    headers: {X-Topic: ["*rechnung für*", '/invoice \\d+/']}
    except_headers: {X-Paid: "*"}
    also_deliver_to: [team@solarmora.com]
    on_spam: reject
  - name: vip
    match: help@solarmora.com
    replace_with: vip@crm.example
    senders: "@vip.example"
    addressed: to_or_cc
  - {name: support, match: help@solarmora.com, replace_with: support@crm.example}
  - name: some
    match: some@solarmora.com
    replace_with: some@crm.example
    headers: {X-Topic: "*invoice*"}
  - name: named
    match: case-*@solarmora.com
    replace_with: case.\\1@crm.example
    addressed: to
  - {name: over, match: dated@solarmora.com, replace_with: over@crm.example, until: PAST}
  - {name: soon, match: dated@solarmora.com, replace_with: soon@crm.example, from: FUTURE}
  - name: now
    match: dated@solarmora.com
    replace_with: now@crm.example
    from: PAST
    until: FUTURE
"""


def moment(hours):
    """A time so many hours from now, as a person in another zone writes it."""
    return (datetime.now(UTC) + timedelta(hours=hours + 5)).strftime("%Y-%m-%d %H:%M:%S +05:00")


@pytest.fixture(scope="module")
def lab(make_module_lab):
    text = CONFIG.replace("PAST", moment(-1)).replace("FUTURE", moment(1))
    names = ("help", "some", "dated")
    return make_module_lab(
        text,
        virtual_alias_maps={f"{name}@solarmora.com": IT for name in names},
        main={"myorigin": "solarmora.com", "recipient_delimiter": "+"},
    )


@pytest.fixture(autouse=True)
def _fresh(lab):
    lab.fresh()


HELP = "<help@solarmora.com>"


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ([], CRM),
        (["References: <1@x.example>\r\n <2@solarmora.zendesk.com> <3@y.example>"], OLD),
        (["References: <1@x.example>", "References: <2@SolarMora.Zendesk.com>"], OLD),
        (["References: <1@solarmora.zendesk.com.example>"], CRM),
        (["X-Topic: Your invoice 77"], BILLS),
        (["X-Topic: =?utf-8?q?Ihre_?=\r\n =?UTF-8?B?UmVjaG51bmcgZsO8ciBKdW5p?="], BILLS),
        (["X-Topic: =?iso-8859-1?q?Rechnung_f=FCr?="], BILLS),
        (["X-Topic: Rechnung f\udcfcr Juni"], BILLS),  # 8 bits, and no charset
        (["X-Topic: RECHNUNG FÜR JUNI"], BILLS),
        (["x-topic :invoice 7"], BILLS),
        (["X-Topic: invoice 7", "X-Paid:"], CRM),
        (["X-Topic: =?utf-8?b?!!!?= =?x?q?=?= =?=?= =?utf-8?q?=ff=?="], CRM),
        (["X-Topic:" + "".join(f"\r\n =?utf-8?q?{n}_{'x' * 50}?=" for n in range(800))], CRM),
        (["X-Topic: " + "\r\n\t".join(["y" * 900] * 60) + "\r\n invoice 7"], BILLS),
        (["X-Topic: " + "\r\n\t".join(["y" * 900] * 70) + "\r\n invoice 7"], CRM),  # cut
    ],
)
def test_the_header_decides_which_rule_applies(lab, fields, target):
    expected = {target, "team@solarmora.com"} if target == BILLS else {target}
    assert set(lab.send(JOE, [HELP], letter(HAM, *fields)).recipients) == expected


def test_a_rule_that_is_only_for_some_mail_leaves_the_rest_to_its_mailbox(lab):
    outcome = lab.send(JOE, ["<some@solarmora.com>"], letter(HAM))
    assert (outcome.recipients, outcome.log) == ([IT], [])
    outcome = lab.send(JOE, ["<some@solarmora.com>"], letter(HAM, "X-Topic: invoice"))
    assert outcome.recipients == ["some@crm.example"]


def test_mail_for_which_no_rule_applies_is_not_touched(lab):
    text = letter(HAM, "X-Topic: hello", "X-CRM-Milter: 0123456789abcdef")
    outcome = lab.send(JOE, ["<some@solarmora.com>", "<alice@solarmora.com>"], text)
    assert sorted(outcome.recipients) == ["alice@solarmora.com", IT]
    for each in lab.sink.received:
        assert each.data.count(b"X-CRM-Milter") == 1


def test_several_recipients_each_have_their_own_rule(lab):
    rcpts = [HELP, "<some@solarmora.com>", "<case-Ab@solarmora.com>", "<alice@solarmora.com>"]
    text = letter(HAM, "X-Topic: invoice 7", "To: case-ab@solarmora.com")
    outcome = lab.send(JOE, rcpts, text)
    assert sorted(outcome.recipients) == sorted(
        [BILLS, "team@solarmora.com", "some@crm.example", "case.Ab@crm.example",
         "alice@solarmora.com"]
    )  # fmt: skip
    outcome = lab.send(JOE, rcpts, letter(HAM, "To: help@solarmora.com"))
    assert sorted(outcome.recipients) == sorted(
        [CRM, IT, "case-Ab@solarmora.com", "alice@solarmora.com"]
    )


@pytest.mark.parametrize(
    ("sender", "fields", "target"),
    [
        ("<a@vip.example>", ["To: Help <help+x@solarmora.com>"], "vip@crm.example"),
        ("<a@vip.example>", ["To: b@x.example", "Cc: HELP@solarmora.com"], "vip@crm.example"),
        (
            "<a@vip.example>",
            ["To: b@x.example", "Resent-To: help@solarmora.com"],
            "vip@crm.example",
        ),
        ("<a@vip.example>", ["To: b@x.example"], CRM),  # a Bcc
        ("<a@vip.example>", ["To: undisclosed-recipients:;"], CRM),
        ("<a@vip.example>", ['To: "help@solarmora.com" <b@x.example>'], CRM),
        ("<a@other.example>", ["To: help@solarmora.com"], CRM),
    ],
)
def test_addressed(lab, sender, fields, target):
    assert lab.send(sender, [HELP], letter(HAM, *fields)).recipients == [target]


def test_the_time_decides(lab):
    outcome = lab.send(JOE, ["<dated@solarmora.com>"], letter(HAM))
    assert outcome.recipients == ["now@crm.example"]


def test_spam_is_what_the_rule_that_applies_makes_of_it(lab):
    refused = lab.send(JOE, [HELP], letter(SPAM, "X-Topic: invoice 7"))
    assert refused.sent.reply.code == 550
    outcome = lab.send(JOE, [HELP], letter(SPAM))
    assert outcome.recipients == [IT]
    assert [line.partition(": ")[2] for line in outcome.log] == [
        "left: to=<help@solarmora.com> rule=support reason=spam"
    ]


def test_a_test_rule_says_what_it_would_do_and_changes_nothing(lab):
    text = letter(HAM).replace(b"Subject: help", b"Subject: =?utf-8?b?UmVjaG51bmc=?=")
    outcome = lab.send(JOE, [HELP], text)
    assert outcome.recipients == [CRM]
    assert [line.partition(": ")[2].partition(":")[0] for line in outcome.log] == [
        "would_reroute", "rerouted"
    ]  # fmt: skip


def test_mail_that_comes_round_is_known(lab):
    first = lab.send(JOE, [HELP], letter(HAM, "X-Topic: invoice 7", "Message-ID: <7@x.example>"))
    assert BILLS in first.recipients
    again = next(each.data for each in lab.sink.received if each.recipient == BILLS)
    assert lab.send(JOE, [HELP], again).recipients == [IT]


def test_mail_from_sendmail(lab):
    def hand_in(*fields):
        lab.sink.clear()
        message = letter(HAM, *fields).replace(b"\r\n", b"\n")
        lab.postfix.sendmail("-f", "joe@customer.example", "some", "case-7", stdin=message)
        lab.postfix.wait_empty_queue()
        return sorted(lab.sink.recipients)

    assert hand_in("X-Topic: invoice", "To: x@y.example") == [
        "case-7@solarmora.com", "some@crm.example"
    ]  # fmt: skip
    assert hand_in("To: case-7") == ["case.7@crm.example", IT]


def test_a_session_that_gives_up_leaves_nothing_behind(lab):
    """What a candidate of one message was decided by is gone with it."""
    with smtp.Session(lab.postfix.port) as session:
        for text in (letter(HAM, "X-Topic: invoice 7"), letter(HAM)):
            session.cmd(f"MAIL FROM:{JOE}")
            session.cmd(f"RCPT TO:{HELP}")
            session.cmd("RSET")
            session.cmd(f"MAIL FROM:{JOE}")
            session.cmd("RCPT TO:<some@solarmora.com>")
            session.cmd("DATA")
            assert session.content(text).code == 250
    lab.postfix.wait_empty_queue()
    assert sorted(lab.sink.recipients) == [IT, "some@crm.example"]


def test_an_encoded_word_may_hide_anything(lab):
    nasty = base64.b64encode(b"invoice 7\r\nBcc: a@b.example\0").decode()
    outcome = lab.send(JOE, [HELP], letter(HAM, f"X-Topic: =?utf-8?b?{nasty}?="))
    assert BILLS in outcome.recipients
