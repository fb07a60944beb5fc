"""Nothing of one message is left for the next, however it ended, in one session or in several.

doc/postfix-milter.md: 1.11 (what gives ABORT), 1.1 (recipients that Postfix refuses), 4.2.
"""

import pytest
from letter import HAM, JOE, SPAM, letter, looping

from lab.smtp import Session

CONFIG = """
unrouted_to: it@solarmora.com
spam: {filter: amavis, no_verdict: tempfail}
rules:
  - name: help
    match: help@solarmora.com
    replace_with: help@crm.example
    also_deliver_to: [team@solarmora.com]
  - {name: sales, match: sales@solarmora.com, replace_with: sales@crm.example}
  - {name: reject, match: reject@solarmora.com, replace_with: reject@crm.example, on_spam: reject}
  - {name: hold, match: hold@solarmora.com, replace_with: hold@crm.example, on_spam: quarantine}
  - {name: drop, match: drop@solarmora.com, replace_with: drop@crm.example, on_spam: discard}
"""
LOOP = looping("help")
HELP = "help@crm.example team@solarmora.com"


@pytest.fixture(scope="module")
def lab(make_module_lab):
    return make_module_lab(
        CONFIG,
        virtual_alias_maps={"help@solarmora.com": "it@solarmora.com"},
        services={"tiny": {"message_size_limit": "1000"}},
        main={
            "smtpd_recipient_restrictions": "check_recipient_access inline:{{gone@x.org=REJECT}}"
        },
    )


@pytest.fixture(autouse=True)
def _fresh(lab):
    lab.fresh()


@pytest.fixture
def session(lab):
    with Session(lab.postfix.port) as session:
        yield session


def _try(lab, session, names, fields, sender=JOE):
    """One message by the session: the code of the reply and who got it."""
    lab.sink.clear()
    rcpts = [f"<{name if '@' in name else f'{name}@solarmora.com'}>" for name in names.split()]
    sent = session.transaction(sender, rcpts, letter(*fields))
    if all(reply.code != 250 for reply in sent.rcpt_replies):
        _rset(session)
    lab.postfix.wait_empty_queue()
    return sent.reply.code, " ".join(lab.sink.recipients)


MESSAGES = [
    ("help", [HAM], 250, HELP),
    ("alice@x.org", [HAM], 250, "alice@x.org"),
    ("help", [SPAM], 250, "it@solarmora.com"),
    ("sales", [HAM], 250, "sales@crm.example"),
    ("reject", [SPAM], 550, ""),
    ("alice@x.org", [SPAM], 250, "alice@x.org"),
    ("reject", [HAM], 250, "reject@crm.example"),
    ("help", [], 451, ""),
    ("help alice@x.org", [HAM], 250, f"alice@x.org {HELP}"),
    ("drop", [SPAM], 250, ""),
    ("drop", [HAM], 250, "drop@crm.example"),
    ("hold", [SPAM], 250, ""),
    ("hold", [HAM], 250, "hold@crm.example"),
    ("help", [HAM, LOOP], 250, "it@solarmora.com"),
    ("sales help", [HAM], 250, f"help@crm.example sales@crm.example {HELP.split()[1]}"),
    ("gone@x.org", [HAM], 554, ""),
    ("gone@x.org sales", [HAM], 250, "sales@crm.example"),
    ("alice@x.org", [], 250, "alice@x.org"),
]


@pytest.mark.parametrize("step", [1, -1, 5, 7])
def test_many_messages_in_one_session(lab, session, step):
    """Forwards, backwards, and with each message after one it does not follow in the list."""
    for number in range(len(MESSAGES)):
        names, fields, code, expected = MESSAGES[number * step % len(MESSAGES)]
        assert _try(lab, session, names, fields) == (code, expected), (number, names, fields)


def test_senders_do_not_leak(lab, session):
    for sender, expected in (
        ("<help@crm.example>", "it@solarmora.com"),
        (JOE, HELP),
        ("<>", HELP),
        ("<help@crm.example>", "it@solarmora.com"),
    ):
        assert _try(lab, session, "help", [HAM], sender) == (250, expected)


def _rset(session):
    assert session.cmd("RSET").code == 250


def _ehlo(session):
    assert session.cmd("EHLO again.example").code == 250


def _helo(session):
    assert session.cmd("HELO again.example").code == 250


@pytest.mark.parametrize("end", [_rset, _ehlo, _helo])
@pytest.mark.parametrize("begun", [(), ("help",), ("sales", "help")])
@pytest.mark.parametrize(
    ("names", "field", "expected"),
    [("alice@x.org", HAM, "alice@x.org"), ("sales", HAM, "sales@crm.example")],
)
def test_a_transaction_that_was_given_up(lab, session, end, begun, names, field, expected):
    assert session.cmd(f"MAIL FROM:{JOE}").code == 250
    for name in begun:
        assert session.cmd(f"RCPT TO:<{name}@solarmora.com>").code == 250
    end(session)
    assert _try(lab, session, names, [field]) == (250, expected)
    assert not any("help" in line for line in lab.milter.log().splitlines())


def test_no_valid_recipient_at_data(lab, session):
    assert session.cmd(f"MAIL FROM:{JOE}").code == 250
    assert session.cmd("RCPT TO:<gone@x.org>").code == 554
    assert session.cmd("DATA").code == 554
    assert session.cmd("RCPT TO:<help@solarmora.com>").code == 250
    assert session.data(letter(HAM)).code == 250
    assert [each.recipient for each in lab.sink.wait(2)] == HELP.split()


def test_a_message_that_postfix_refuses_after_its_data(lab):
    with Session(lab.postfix.ports["tiny"]) as session:
        for _ in range(2):
            assert session.cmd(f"MAIL FROM:{JOE}").code == 250
            assert session.cmd("RCPT TO:<help@solarmora.com>").code == 250
            assert session.data(letter(SPAM, body="x" * 500 + "\r\n" + "x" * 900)).code == 552
            assert _try(lab, session, "alice@x.org", [HAM]) == (250, "alice@x.org")
            assert _try(lab, session, "help", [HAM]) == (250, HELP)


@pytest.mark.parametrize(
    "part", [b"", b"X-Spam-Flag: NO\r\nSub", b"X-Spam-Flag: NO\r\n\r\n", letter(HAM) + b"\r\n."]
)
def test_an_abandoned_data(lab, part):
    session = Session(lab.postfix.port)
    assert session.cmd(f"MAIL FROM:{JOE}").code == 250
    assert session.cmd("RCPT TO:<help@solarmora.com>").code == 250
    assert session.cmd("DATA").code == 354
    session.send_raw(part)
    session.close()
    lab.postfix.wait_log("lost connection after DATA")
    lab.postfix.wait_empty_queue()
    assert (lab.sink.recipients, lab.milter.lines(": ")) == ([], [])
    assert lab.send(JOE, ["<alice@x.org>"], letter(SPAM)).recipients == ["alice@x.org"]
    assert lab.send(JOE, ["<help@solarmora.com>"], letter(HAM)).recipients == HELP.split()


def test_two_sessions_at_once(lab, session):
    """Step by step in turn, so that whatever they shared would be the other's."""
    with Session(lab.postfix.port) as other:
        for _ in range(3):
            lab.sink.clear()
            for each, line in (
                (session, f"MAIL FROM:{JOE}"),
                (other, "MAIL FROM:<>"),
                (session, "RCPT TO:<help@solarmora.com>"),
                (other, "RCPT TO:<alice@x.org>"),
                (other, "RCPT TO:<sales@solarmora.com>"),
            ):
                assert each.cmd(line).code == 250
            assert (session.cmd("DATA").code, other.cmd("DATA").code) == (354, 354)
            assert other.content(letter(SPAM)).code == 250
            assert session.content(letter(HAM)).code == 250
            lab.postfix.wait_empty_queue()
            found = {each.recipient: each.sender for each in lab.sink.received}
            assert found == {
                "help@crm.example": "joe@customer.example",
                "team@solarmora.com": "joe@customer.example",
                "alice@x.org": "",
                "sales@solarmora.com": "",
            }
