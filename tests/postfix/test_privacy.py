"""Nothing leaks: not to co-recipients, not to the customer; what comes back is caught."""

import re

import pytest

HELP = "<help@solarmora.com>"
ALICE = "<alice@solarmora.com>"
JOE = "<joe@client.example>"
TEXT = (
    b"From: Joe <joe@client.example>\r\nTo: alice@solarmora.com\r\nSubject: hello\r\n"
    b"X-Spam-Flag: NO\r\n\r\nDear Alice\r\n"
)
CONFIG = """
unrouted_to: it@solarmora.com
spam: amavis
rules:
  - name: support
    match: help@solarmora.com
    replace_with: secret@crm.example
    also_deliver_to: [team@solarmora.com]
  - {name: sales, match: sales@solarmora.com, replace_with: secret2@crm.example}
"""
ALIASES = {"help@solarmora.com": "it@solarmora.com", "sales@solarmora.com": "it@solarmora.com"}
OURS = ["secret@crm.example", "team@solarmora.com"]


@pytest.fixture(scope="module")
def _lab(make_module_lab):
    services = {"plain": {"smtpd_milters": ""}}
    return make_module_lab(CONFIG, virtual_alias_maps=ALIASES, services=services)


@pytest.fixture
def lab(_lab):
    _lab.fresh()
    return _lab


@pytest.fixture(scope="module")
def _old_world(make_module_lab):
    """A next hop that knows no DSN: for it Postfix itself tells the sender what he asked for."""
    options = {"dsn": False}
    return make_module_lab(CONFIG, virtual_alias_maps=ALIASES, sink_options=options)


@pytest.fixture
def old_world(_old_world):
    _old_world.fresh()
    return _old_world


ENVELOPES = [
    [ALICE, HELP],
    [HELP, ALICE],
    ["<help@SolarMora.com>", ALICE, "<bob@b.example>", "<sales@solarmora.com>"],
    [ALICE, HELP, "<team@solarmora.com>"],
    [ALICE + " NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;alice@old.example", HELP + " NOTIFY=NEVER"],
]


@pytest.mark.parametrize("spam", [b"NO", b"YES"])
@pytest.mark.parametrize("envelope", ENVELOPES)
def test_a_co_recipient_sees_nothing_of_a_bcc(lab, envelope, spam):
    """The copies of all others are the same, to the byte, as without a milter."""
    text = TEXT.replace(b"NO", spam)
    without = lab.send(JOE, envelope, text, service="plain")
    others = [r for r in without.received if r.recipient != "it@solarmora.com"]
    with_milter = lab.send(JOE, envelope, text)
    for other in others:
        got = with_milter.of(other.recipient)
        assert (got.rcpt, got.sender) == (other.rcpt, other.sender)
        assert got.delivery.message == other.delivery.message
        assert not re.search(rb"(?i)crm|help@|sales@|secret", got.data)
    if spam == b"NO":
        assert "secret@crm.example" in with_milter.recipients
        assert "it@solarmora.com" not in with_milter.recipients


def test_the_marker_is_there_where_nobody_else_sees_it(lab):
    outcome = lab.send(JOE, [HELP], TEXT)
    assert outcome.recipients == OURS
    (mark,) = set(re.findall(rb"(?m)^X-CRM-Milter: (.*)\r$", outcome.received[0].data))
    assert re.fullmatch(rb"[0-9a-f]{16}", mark)


def test_what_comes_back_from_the_crm_is_left(lab):
    """Such as by a forward that somebody has set up there: with the text, from another sender."""
    first = lab.send(JOE, [HELP], TEXT).of("secret@crm.example")
    again = b"Received: from crm.example\r\n" + first.delivery.message
    outcome = lab.send("<bounces@crm.example>", [HELP], again)
    assert outcome.recipients == ["it@solarmora.com"]
    assert "reason=loop" in outcome.log[0]
    outcome = lab.send("<bounces@crm.example>", [ALICE, HELP], again)
    assert outcome.recipients == ["alice@solarmora.com", "it@solarmora.com"]
    # For another rule it is no loop.
    outcome = lab.send("<bounces@crm.example>", ["<sales@solarmora.com>"], again)
    assert outcome.recipients == ["secret2@crm.example"]


LOOPS = {
    "envelope sender": ("<secret@crm.example>", TEXT),
    "envelope sender, other case": ("<Secret@CRM.example>", TEXT),
    "From": (JOE, TEXT.replace(b"joe@client", b"secret@crm")),
    "From, folded": (JOE, TEXT.replace(b"Joe <joe@client", b"=?utf-8?q?Joe?=\r\n <SECRET@Crm")),
}


@pytest.mark.parametrize("loop", LOOPS)
def test_mail_from_the_target_is_left(lab, loop):
    sender, text = LOOPS[loop]
    outcome = lab.send(sender, [HELP], text)
    assert outcome.recipients == ["it@solarmora.com"]
    assert "reason=loop" in outcome.log[0]


@pytest.mark.parametrize(
    "parameters",
    [
        "NOTIFY=SUCCESS",
        "NOTIFY=SUCCESS,DELAY,FAILURE ORCPT=rfc822;x@y.example",
        # smtpd lets quoted blanks through: a client's attempt to write parameters of its own.
        'ORCPT="rfc822;x NOTIFY=SUCCESS ENVID=y"',
        'NOTIFY=SUCCESS ORCPT=rfc822;"x NOTIFY=SUCCESS y"',
        "ORCPT=rfc822;x+20NOTIFY=SUCCESS",
    ],
)
def test_who_asks_is_not_told_the_target(old_world, parameters):
    outcome = old_world.send(JOE, [f"{HELP} {parameters}"], TEXT)
    told = [r for r in outcome.received if r.recipient == "joe@client.example"]
    assert [r.recipient for r in outcome.received if r not in told] == OURS
    for notification in told:
        assert b"crm.example" not in notification.data
        assert b"team@" not in notification.data
    # Nor may Postfix complain of what we asked it for.
    assert "from Milter" not in old_world.postfix.log()


@pytest.mark.parametrize("refused", OURS)
def test_a_bounce_tells_the_customer_nothing(lab, refused):
    lab.sink.refuse(refused, "550 5.1.1 <secret@crm.example> no such case")
    outcome = lab.send(JOE, [HELP + " NOTIFY=FAILURE,DELAY"], TEXT)
    assert outcome.recipients == [each for each in OURS if each != refused]
