"""Mail that does not come by SMTP: handed in on this host with the sendmail command.

doc/postfix-milter.md: 1.7. The milter is shown a rewritten recipient, while delrcpt wants the one
that was typed; where that cannot be known the original gets the mail, too.
"""

import pytest
from letter import HAM, SPAM, letter

CRM = "support@crm.example"
IT = "it@solarmora.com"
CONFIG = """
unrouted_to: it@solarmora.com
spam: amavis
rules:
  - name: support
    match: [help@solarmora.com, "@wild.example"]
    replace_with: support@crm.example
    also_deliver_to: [team@solarmora.com]
    on_spam: reject
  - name: keep
    match: keep@solarmora.com
    replace_with: keep@crm.example
    also_deliver_to: [keep@solarmora.com]
  - {name: hold, match: hold@solarmora.com, replace_with: hold@crm.example, on_spam: quarantine}
  - {name: drop, match: drop@solarmora.com, replace_with: drop@crm.example, on_spam: discard}
"""
OURS = [CRM, "team@solarmora.com"]


@pytest.fixture(scope="module")
def lab(make_module_lab):
    return make_module_lab(
        CONFIG,
        virtual_alias_maps={"help@solarmora.com": IT},
        main={"myorigin": "solarmora.com"},
    )


@pytest.fixture(autouse=True)
def _fresh(lab):
    lab.fresh()


def _sendmail(lab, *arguments, stdin=None, sender="joe@customer.example"):
    """Hand in a message: who got it, and what the milter said."""
    lab.sink.clear()
    lab.mark_logs()
    message = (stdin or letter(HAM)).replace(b"\r\n", b"\n")
    lab.postfix.sendmail("-f", sender, *arguments, stdin=message)
    lab.postfix.wait_empty_queue()
    assert {each.sender for each in lab.sink.received} <= {sender.strip("<>"), ""}
    return lab.sink.recipients, lab.milter.lines(": ")


def _talk(lab, *rcpts, message=None):
    """As _sendmail(), with a program that talks SMTP to `sendmail -bs`."""
    lab.sink.clear()
    lab.mark_logs()
    lines = ["EHLO me", "MAIL FROM:<joe@customer.example>"]
    lines += [*(f"RCPT TO:{rcpt}" for rcpt in rcpts), "DATA", ""]
    talk = "\r\n".join(lines).encode() + (message or letter(HAM)) + b".\r\nQUIT\r\n"
    said = lab.postfix.sendmail("-bs", stdin=talk).stdout
    lab.postfix.wait_empty_queue()
    assert b"queued as" in said
    return lab.sink.recipients, lab.milter.lines(": ")


@pytest.mark.parametrize(
    "typed",
    [
        ("help@solarmora.com",),
        ("Help@SolarMora.COM",),
        ("help",),
        ("Help",),
        ('"help"@solarmora.com',),
        ("<help@solarmora.com>",),
        ("<help>",),
        ("Help desk <Help@solarmora.com>",),
        ("help", "help@solarmora.com"),
        ("Help", "help", "HELP@solarmora.com"),
    ],
)
def test_rerouted_and_not_also_delivered(lab, typed):
    found, log = _sendmail(lab, *typed)
    assert found == OURS
    assert len(log) == len(typed)
    assert all(f": rerouted: to=<help@solarmora.com> new=<{CRM}> " in line for line in log)
    assert not any("duplicate" in line for line in log)


@pytest.mark.parametrize(
    ("to", "others"),
    [
        ("help@solarmora.com", []),
        ("Help@SolarMora.COM", []),
        ("help", []),
        ('"Help desk" <help@solarmora.com>', []),
        ("=?utf-8?q?H=C3=B6lp?= <help@solarmora.com>", []),
        ("help (desk), <joe@x.org>", ["joe@x.org"]),
        ("desk: Help@solarmora.com, alice@x.org;", ["alice@x.org"]),
        ("alice@x.org\nBcc: help@solarmora.com", ["alice@x.org"]),
        ("alice@x.org\nCc: help, helper", ["alice@x.org", "helper@solarmora.com"]),
    ],
)
def test_recipients_from_the_header(lab, to, others):
    found, _ = _sendmail(lab, "-t", stdin=letter(HAM, f"To: {to}"))
    assert found == sorted([*OURS, *others])


@pytest.mark.parametrize(
    "rcpt",
    [
        "<help@solarmora.com>",
        "help@solarmora.com",
        "<Help@SolarMora.COM>",
        "<help>",
        '<"help"@solarmora.com>',
        "<@relay:help@solarmora.com>",
    ],
)
def test_sendmail_bs(lab, rcpt):
    found, log = _talk(lab, rcpt)
    assert (found, len(log)) == (OURS, 1)


def test_a_client_of_sendmail_bs_never_learns_the_target(lab):
    found, _ = _talk(lab, "<help@solarmora.com> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x@x.org")
    assert found == ["joe@customer.example", *OURS]
    report = next(each for each in lab.sink.received if each.sender == "").data
    assert b"help@solarmora.com" in report
    assert b"crm.example" not in report


@pytest.mark.parametrize("hand_in", [_sendmail, _talk])
@pytest.mark.parametrize("other", ["help@other.example", "Help@other.example"])
def test_where_the_spelling_cannot_be_known_a_duplicate_is_left_and_logged(lab, hand_in, other):
    """To delete "help" would be right for one of two, and might take the other's mail."""
    found, log = hand_in(lab, "help", other)
    assert found == sorted([other, IT, *OURS])
    assert [line.endswith(" duplicate=possible") for line in log] == [True]


@pytest.mark.parametrize("others", [("x",), ("x@other.example",), ("x", "x@other.example")])
def test_a_namesake_loses_nothing(lab, others):
    expected = sorted(
        [f"{each}@solarmora.com".replace("example@solarmora.com", "example") for each in others]
    )
    for typed in (("x@wild.example", *others), (*others, "x@wild.example")):
        found, log = _sendmail(lab, *typed)
        assert found == sorted([*OURS, *expected])
        assert [line.endswith(" duplicate=possible") for line in log] == [True]


@pytest.mark.parametrize(
    "typed", [("keep",), ("keep@solarmora.com",), ("keep", "keep@solarmora.com")]
)
def test_who_is_owed_a_copy_keeps_it(lab, typed):
    found, _ = _sendmail(lab, *typed)
    assert found[0] == "keep@crm.example"
    assert "keep@solarmora.com" in found


@pytest.mark.parametrize(
    "typed", ["help@solarmora.com.", "solarmora.com!help", "@relay:help@solarmora.com"]
)
def test_what_is_rewritten_before_it_is_shown_is_doubled_not_lost(lab, typed):
    """Shown as help@solarmora.com, so that this cannot even be logged."""
    found, _ = _sendmail(lab, typed)
    assert found == sorted([*OURS, IT])


@pytest.mark.parametrize(
    "sender", ["joe@customer.example", "<>", "jörg@x.org", "root@solarmora.com"]
)
def test_spam_is_never_refused(lab, sender):
    """A refusal would be a bounce of mail that was accepted."""
    for hand_in in ("help", "help@solarmora.com"):
        found, log = _sendmail(lab, hand_in, stdin=letter(SPAM), sender=sender)
        assert found == [IT]
        assert [line.rpartition(": ")[2] for line in log] == [
            "to=<help@solarmora.com> rule=support reason=spam"
        ]
    assert _talk(lab, "<help>", message=letter(SPAM))[0] == [IT]


def test_spam_is_held_and_discarded_as_by_smtp(lab):
    assert _sendmail(lab, "drop", stdin=letter(SPAM))[0] == []
    assert _sendmail(lab, "drop", "alice@x.org", stdin=letter(SPAM))[0] == ["alice@x.org"]
    assert _sendmail(lab, "hold", stdin=letter(SPAM))[0] == []
    (held,) = lab.postfix.queue()
    lab.postfix.postsuper("-H", held["queue_id"])
    lab.postfix.flush()
    assert [each.recipient for each in lab.sink.wait(1)] == ["hold@crm.example"]


def test_no_match_no_word(lab):
    assert _sendmail(lab, "alice@x.org", "bob") == (["alice@x.org", "bob@solarmora.com"], [])
