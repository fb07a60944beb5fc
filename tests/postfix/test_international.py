"""The null sender, 8-bit and international addresses, in the rule and on the wire.

doc/postfix-milter.md: 6.1 (U-labels and A-labels), 5.7 (what is no UTF-8).
"""

import itertools

import pytest
from letter import HAM, JOE, SPAM, letter

UTF8 = f"{JOE} SMTPUTF8"
CONFIG = """
unrouted_to: it@solarmora.com
spam: amavis
rules:
  - name: u-label
    match: [hilfe@münchen.example, hülfe@münchen.example]
    replace_with: munich@crm.example
  - name: a-label
    match: [info@xn--mller-kva.example, "case-*@xn--mller-kva.example"]
    replace_with: miller@crm.example
  - name: street
    match: "@straße.example"
    replace_with: street@crm.example
  - name: strasse
    match: help@strasse2.example
    replace_with: other@crm.example
  - name: abroad
    match: abroad@solarmora.com
    replace_with: fälle@bücher.example
    also_deliver_to: [büro@solarmora.com]
  - name: help
    match: help@solarmora.com
    replace_with: help@bücher.example
  - name: wild
    match: "@wild.example"
    replace_with: wild@crm.example
"""
ALIASES = {
    "hilfe@münchen.example": "it@solarmora.com",
    "hilfe@xn--mnchen-3ya.example": "it@solarmora.com",
    "info@müller.example": "it@solarmora.com",
    "info@xn--mller-kva.example": "it@solarmora.com",
    "help@solarmora.com": "it@solarmora.com",
}
HELP = "help@xn--bcher-kva.example"


@pytest.fixture(scope="module")
def module_labs(make_module_lab):
    return {
        wanted: make_module_lab(
            CONFIG, virtual_alias_maps=ALIASES, main={"smtputf8_enable": wanted}
        )
        for wanted in ("yes", "no")
    }


@pytest.fixture
def lab(module_labs):
    module_labs["yes"].fresh()
    return module_labs["yes"]


@pytest.fixture
def old_lab(module_labs):
    """A server that knows nothing of SMTPUTF8 and takes any byte."""
    module_labs["no"].fresh()
    return module_labs["no"]


@pytest.mark.parametrize(
    ("rcpt", "target", "to"),
    [
        ("hilfe@münchen.example", "munich", "hilfe@xn--mnchen-3ya.example"),
        ("hilfe@xn--mnchen-3ya.example", "munich", "hilfe@xn--mnchen-3ya.example"),
        ("Hilfe@XN--MNCHEN-3YA.Example", "munich", "hilfe@xn--mnchen-3ya.example"),
        ("HILFE@MÜNCHEN.EXAMPLE.", "munich", "hilfe@xn--mnchen-3ya.example"),
        ("hilfe@mu\u0308nchen.example", "munich", "hilfe@xn--mnchen-3ya.example"),
        ("hilfe@münchen。example", "munich", "hilfe@xn--mnchen-3ya.example"),
        ('"hilfe"@münchen.example', "munich", "hilfe@xn--mnchen-3ya.example"),
        ("hülfe@münchen.example", "munich", "hülfe@xn--mnchen-3ya.example"),
        ("HÜLFE@xn--mnchen-3ya.example", "munich", "hülfe@xn--mnchen-3ya.example"),
        ("info@müller.example", "miller", "info@xn--mller-kva.example"),
        ("Info@Müller.example", "miller", "info@xn--mller-kva.example"),
        ("info@xn--mller-kva.example", "miller", "info@xn--mller-kva.example"),
        ("case-é@müller.example", "miller", "case-é@xn--mller-kva.example"),
        ("x@xn--strae-oqa.example", "street", "x@xn--strae-oqa.example"),
        ("x@straße.example", "street", "x@xn--strae-oqa.example"),
    ],
)
def test_either_spelling_of_a_domain(lab, rcpt, target, to):
    for argument in (f"<{rcpt}>", f"<@relay:{rcpt}>"):
        outcome = lab.send(UTF8, [argument], letter(HAM))
        assert outcome.recipients == [f"{target}@crm.example"]
        assert f": rerouted: to=<{to}> " in outcome.log[0]


def test_the_mail_of_another_domain_is_not_taken(lab):
    outcome = lab.send(UTF8, ["<help@straße2.example>"], letter(HAM))
    assert outcome.recipients == ["help@straße2.example"]


def test_both_spellings_in_one_message_are_one_copy(lab):
    for one, other in (("münchen", "xn--mnchen-3ya"), ("mu\u0308nchen", "MÜNCHEN")):
        pair = [f"<hilfe@{one}.example>", f"<hilfe@{other}.example>"]
        for order in itertools.permutations([*pair, "<älice@x.org>"]):
            outcome = lab.send(UTF8, order, letter(HAM))
            assert outcome.recipients == ["munich@crm.example", "älice@x.org"]


@pytest.mark.parametrize(
    ("rcpt", "unrouted"),
    [
        ("hilfe@münchen.example", "it@solarmora.com"),
        ("info@xn--mller-kva.example", "it@solarmora.com"),
        ("HÜLFE@münchen.example", "HÜLFE@münchen.example"),
    ],
)
def test_what_is_left_stays_as_it_is(lab, rcpt, unrouted):
    assert lab.send(UTF8, [f"<{rcpt}>"], letter(SPAM)).recipients == [unrouted]


@pytest.mark.parametrize("sender", ["<jörg@x.org>", "<jörg@bücher.example>", "<>", "<joe@x.org>"])
def test_senders_pass(lab, sender):
    for rcpt, found in (
        ("hilfe@münchen.example", ["munich@crm.example"]),
        ("help@solarmora.com", [HELP]),
        ("abroad@solarmora.com", ["büro@solarmora.com", "fälle@xn--bcher-kva.example"]),
    ):
        outcome = lab.send(f"{sender} SMTPUTF8", [f"<{rcpt}>"], letter(HAM, "X-Name: Jörg"))
        assert outcome.recipients == found
        assert {f"<{each.sender}>" for each in outcome.received} == {sender}
        assert {"SMTPUTF8" in each.delivery.mail_from for each in outcome.received} == {True}
        assert "X-Name: Jörg".encode() in outcome.received[0].data


def test_the_null_sender(lab):
    """A bounce for help@ is for the CRM, too, and nobody is told if the CRM refuses it."""
    for field, found in ((HAM, [HELP]), (SPAM, ["it@solarmora.com"])):
        outcome = lab.send("<>", ["<help@solarmora.com>"], letter(field))
        assert [(each.recipient, each.sender) for each in outcome.received] == [(found[0], "")]
    lab.sink.refuse(HELP)
    assert lab.send("<>", ["<help@solarmora.com>"], letter(HAM)).recipients == []


@pytest.mark.parametrize("argument", ["<jörg@x.org>", "<jörg@x.org> BODY=8BITMIME"])
def test_utf_8_without_its_announcement(lab, old_lab, argument):
    for each in (lab, old_lab):
        outcome = each.send(argument, ["<help@solarmora.com>"], letter(HAM, body="ä\r\n"))
        assert [(e.recipient, e.sender) for e in outcome.received] == [(HELP, "jörg@x.org")]
    wild = lab.send(JOE, ["<hélp@wild.example>"], letter(HAM))
    assert wild.recipients == ["wild@crm.example"]


@pytest.mark.parametrize(
    ("rcpt", "wire"),
    [
        ("<hilfe@münchen.example>", "rfc822;hilfe@m+C3+BCnchen.example"),
        ("<abroad@solarmora.com> ORCPT=utf-8;jörg@x.org", "utf-8;j\\x{F6}rg@x.org"),
        ("<abroad@solarmora.com> ORCPT=utf-8;j\\x{F6}rg@x.org", "utf-8;j\\x{F6}rg@x.org"),
    ],
)
def test_orcpt(lab, rcpt, wire):
    """As Postfix itself hands it on for a recipient that is not matched."""
    outcome = lab.send(UTF8, [rcpt], letter(HAM))
    assert wire in [each.rcpt.orcpt for each in outcome.received]
    unmatched = rcpt.replace("hilfe@", "alice@").replace("abroad@", "alice@")
    (theirs,) = lab.send(UTF8, [unmatched], letter(HAM)).received
    assert theirs.rcpt.orcpt == wire.replace("hilfe@", "alice@")


def test_bytes_that_are_no_text(old_lab):
    """Such a recipient cannot be deleted, so he is left, and nobody else suffers for it."""
    sender = old_lab.send(b"<j\xf6rg@x.org>", ["<help@solarmora.com>"], letter(HAM))
    assert [(each.recipient, each.sender) for each in sender.received] == [
        (HELP, "j\udcf6rg@x.org")
    ]
    rcpts = [b"<h\xe9lp@wild.example>", b"<\xe4lice@x.org>", b"<bob@x.org>", b"<x@wild.example>"]
    for order in itertools.islice(itertools.permutations(rcpts), 0, 24, 5):
        outcome = old_lab.send(JOE, order, letter(HAM))
        assert outcome.recipients == [
            "bob@x.org",
            "h\udce9lp@wild.example",
            "wild@crm.example",
            "\udce4lice@x.org",
        ]
        assert any(line.endswith("rule=wild reason=undecodable") for line in outcome.log)
        assert len(outcome.log) == 2
