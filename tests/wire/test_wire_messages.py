"""What comes back for a message: exact edits, their order, and nothing of the message before."""

import pytest
from miltertest import constants as c
from mta import Mta

from crm_milter.routing.decide import Policy
from crm_milter.routing.marker import marker
from crm_milter.rules.table import RuleTable

HAM = [("Subject", "kaputt"), ("X-Spam-Flag", "NO")]
SPAM = [("X-Spam-Flag", "YES"), ("Subject", "cheap")]
HELP = "<help@solarmora.com>"
ALICE = "<alice@solarmora.com>"

# HAM has neither Message-ID nor From nor Date.
NAMELESS = Policy(RuleTable()).facts(()).identities[0]
SUPPORT_MARK = ("header", "X-CRM-Milter", marker(b"", "support", NAMELESS))
TEAM = ("add", "<team@solarmora.com>", "NOTIFY=NEVER")


def support(raw="help@solarmora.com", orcpt=None):
    """The edits for mail to help@ alone."""
    parameters = f"NOTIFY=NEVER ORCPT=rfc822;{orcpt or raw}"
    return [("add", "<support@crm.example>", parameters), TEAM, ("delete", raw)]


def sales(raw="sales@solarmora.com"):
    return [("add", "<sales@crm.example>", f"NOTIFY=NEVER ORCPT=rfc822;{raw}"), ("delete", raw)]


def edits(result):
    """The edits in no order, for tests that are about what, not about when."""
    return sorted(result.edits)


# Recipients, and what becomes of the envelope.
ENVELOPES = {
    "alone": ([HELP], [*support(), SUPPORT_MARK]),
    "beside others": ([ALICE, HELP, "<bob@b.example>"], support()),
    "others first": (["<bob@b.example>", ALICE, HELP], support()),
    "two rules": (["<sales@solarmora.com>", HELP, ALICE], [*support(), *sales()]),
    "in another case": (["<HELP@SolarMora.COM>"], [*support("HELP@SolarMora.COM"), SUPPORT_MARK]),
    "the same twice": ([HELP, HELP, ALICE], support()),
    "two spellings": ([HELP, "<Help@solarmora.com>", ALICE], [*support("Help@solarmora.com"),
                                                             ("delete", "help@solarmora.com")]),
    "the copy's address is there": ([HELP, "<Team@solarmora.com>"],
                                    [each for each in [*support(), SUPPORT_MARK] if each != TEAM]),
    "the target is there": ([HELP, "<support@CRM.example>", ALICE], [TEAM, support()[2]]),
    "a captured group": (["<box-Anna@solarmora.com>", ALICE], [
        ("add", "<Anna@crm.example>", "NOTIFY=NEVER ORCPT=rfc822;box-Anna@solarmora.com"),
        ("delete", "box-Anna@solarmora.com")]),
}  # fmt: skip


@pytest.mark.parametrize("envelope", ENVELOPES)
def test_edits(mta, envelope):
    recipients, expected = ENVELOPES[envelope]
    result = mta.message(recipients, HAM)
    assert result.answer == "continue"
    assert edits(result) == sorted(expected)


def test_every_addition_comes_before_every_removal(mta):
    """A death in between doubles mail, and does not lose it (doc/postfix-milter.md 4.3)."""
    recipients = [HELP, "<Help@solarmora.com>", "<sales@solarmora.com>"]
    recipients += [f"<box-{number}@solarmora.com>" for number in range(20)]
    result = mta.message(recipients, HAM)
    kinds = [kind for kind, *_ in result.edits if kind in ("add", "delete")]
    assert kinds == ["add"] * 23 + ["delete"] * 23


# What the client says (RFC 3461), and with which parameters the target is added.
PARAMETERS = {
    "nothing": ([], "NOTIFY=NEVER ORCPT=rfc822;help@solarmora.com"),
    "all notifications": (["NOTIFY=SUCCESS,DELAY"], "NOTIFY=NEVER ORCPT=rfc822;help@solarmora.com"),
    "an original recipient": (["ORCPT=rfc822;a+2Bb@x.example"],
                              "NOTIFY=NEVER ORCPT=rfc822;a+2Bb@x.example"),
    "in small letters": (["notify=never", "orcpt=rfc822;x@y"], "NOTIFY=NEVER ORCPT=rfc822;x@y"),
}  # fmt: skip


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_parameters(mta, parameters):
    given, expected = PARAMETERS[parameters]
    mta.mail("<joe@client.example>", "SIZE=12", "BODY=8BITMIME")
    mta.rcpt(HELP, *given)
    assert mta.finish(HAM).of("add")[0] == ("<support@crm.example>", expected)


@pytest.mark.parametrize(
    "value",
    [b"rfc822;\xff", b'rfc822;"x NOTIFY=SUCCESS y"', b"rfc822;a\tb"],
    ids=["not UTF-8", "with blanks", "with a tab"],
)
def test_an_original_recipient_that_is_no_xtext_is_not_passed_on(mta, value):
    """smtpd lets quoted blanks through: a client could write parameters of its own."""
    mta.mail()
    mta.rcpt(HELP, b"ORCPT=" + value)
    assert mta.finish(HAM).edits[0] == support()[0]


# Recipients and header fields of one message after the other.
SESSIONS = {
    "ham, spam, ham": [([HELP], HAM), ([HELP], SPAM), ([HELP], HAM)],
    "matched, unmatched, matched": [([HELP], HAM), ([ALICE], HAM), ([HELP], HAM)],
    "spam to nobody of ours": [([ALICE], SPAM), ([HELP], HAM), ([ALICE], HAM)],
    "two, one": [([HELP, "<sales@solarmora.com>"], HAM), (["<sales@solarmora.com>"], HAM)],
}


@pytest.mark.parametrize("session", SESSIONS)
def test_messages_of_a_session_do_not_know_each_other(milter, mta, session):
    for recipients, fields in SESSIONS[session] * 2:
        with Mta(milter.address) as alone:
            alone.connect()
            expected = alone.message(recipients, fields)
        assert mta.message(recipients, fields) == expected


def _after_rcpt(mta):
    mta.rcpt("<sales@solarmora.com>")


def _after_data(mta):
    mta.rcpt("<sales@solarmora.com>")
    mta.data()


def _in_the_header(mta):
    mta.rcpt("<sales@solarmora.com>")
    mta.data()
    for field in SPAM:
        mta.field(*field)


@pytest.mark.parametrize("give_up", [lambda mta: None, _after_rcpt, _after_data, _in_the_header])
def test_a_message_that_was_given_up_leaves_nothing(mta, give_up):
    for recipients, expected in (([HELP, ALICE], support()), ([ALICE], []), ([HELP, ALICE], None)):
        mta.mail("<support@crm.example>")
        give_up(mta)
        mta.abort()
        result = mta.message(recipients, HAM)
        assert list(result.edits) == (support() if expected is None else expected)
        assert result.answer == ("continue" if HELP in recipients else "accept")


def test_sessions_at_the_same_time_do_not_know_each_other(milter):
    sessions = [Mta(milter.address) for _ in range(30)]
    wanted = [("<sales@solarmora.com>", ALICE), (HELP, ALICE), (ALICE, "<bob@b.example>")] * 10
    for mta in sessions:
        mta.connect()
        mta.mail()
    for turn in (0, 1):
        for mta, recipients in zip(sessions, wanted, strict=True):
            mta.rcpt(recipients[turn])
    results = [mta.finish(HAM) for mta in sessions]
    for mta in sessions:
        with mta:
            pass
    assert [list(result.edits) for result in results] == [sales(), support(), []] * 10


# Answers for spam: rule, what is answered, what is done.
HELD = [
    ("hold", "spam"),
    ("add", "<h@crm.example>", "NOTIFY=NEVER ORCPT=rfc822;hold@solarmora.com"),
    ("delete", "hold@solarmora.com"),
]
ON_SPAM = {
    "leave": ([HELP], "continue", []),
    "reject": (["<reject@solarmora.com>"], "550 5.7.1 ", []),
    "reject, beside another": (["<reject@solarmora.com>", ALICE], "continue", []),
    "reject, beside a rule that leaves": (["<reject@solarmora.com>", HELP], "continue", []),
    "quarantine": (["<hold@solarmora.com>"], "continue", HELD),
    "quarantine, beside another": (["<hold@solarmora.com>", ALICE], "continue", []),
    "discard": (["<discard@solarmora.com>"], "discard", []),
    "discard, beside another": (["<discard@solarmora.com>", ALICE], "continue",
                                [("delete", "discard@solarmora.com")]),
    "bypass": (["<open@solarmora.com>", ALICE], "continue", [
        ("add", "<open@crm.example>", "NOTIFY=NEVER ORCPT=rfc822;open@solarmora.com"),
        ("delete", "open@solarmora.com")]),
}  # fmt: skip


@pytest.mark.parametrize("case", ON_SPAM)
def test_spam(mta, case):
    recipients, answer, expected = ON_SPAM[case]
    result = mta.message(recipients, SPAM)
    assert result.answer.startswith(answer)
    assert sorted(each for each in result.edits if each[0] != "header") == sorted(expected)


@pytest.mark.parametrize("policy", ["route", "leave", "tempfail"])
def test_no_verdict(shared, policy):
    config = f"""
unrouted_to: it@solarmora.com
spam: {{filter: amavis, no_verdict: {policy}}}
rules:
  - {{name: support, match: help@solarmora.com, replace_with: support@crm.example}}
"""
    with Mta(shared(config).address) as mta:
        mta.connect()
        result = mta.message([HELP, ALICE], [("Subject", "x")])
        assert result.answer.startswith("451 4.7.1" if policy == "tempfail" else "continue")
        assert bool(result.edits) == (policy == "route")
        assert mta.message([HELP, ALICE], HAM).edits != ()
        assert mta.message([ALICE]).step == c.SMFIC_DATA


def test_the_log_tells_each_matched_recipient(milter, mta):
    mta.mail()
    for recipient in (HELP, "<reject@solarmora.com>", ALICE):
        mta.rcpt(recipient, queue_id="4bXq2Z")
    mta.finish(SPAM)
    assert sorted(milter.lines("4bXq2Z")) == [
        "4bXq2Z: left: to=<help@solarmora.com> rule=support reason=spam",
        "4bXq2Z: left: to=<reject@solarmora.com> rule=reject reason=spam",
    ]
