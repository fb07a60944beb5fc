"""What a pattern takes is the client's own spelling, and no address disturbs another.

RFC 5321 section 2.4 (the case of the local part), RFC 6532 section 3.1 (composed letters).
"""

import pytest
from letter import HAM, JOE, letter

UTF8 = f"{JOE} SMTPUTF8"
CONFIG = """
unrouted_to: it@solarmora.com
spam: amavis
recipient_delimiter: "+"
rules:
  - name: order
    match: ['case-*@solarmora.com', 'case-*-urgent@solarmora.com']
    replace_with: t.\\1@crm.example
  - name: expression
    match: '/id([a-z0-9]*)@solarmora\\.com/'
    replace_with: id.\\1@crm.example
    except_senders: ['/spam.*@.*/', 'a*@z.example', 'b*@z.example', 'c*@z.example', 'd*@z.example']
  - name: extension
    match: help@solarmora.com
    replace_with: support@crm.example
    propagate_extension: true
  - name: composed
    match: "hu\u0308lfe@solarmora.com"
    replace_with: munich@crm.example
  - name: domain
    match: "@domain.example"
    replace_with: "@crm.example"
  - {name: a, match: 'a*@solarmora.com', replace_with: a@crm.example}
  - {name: b, match: 'b*@solarmora.com', replace_with: b@crm.example}
"""


@pytest.fixture(scope="module")
def module_labs(make_module_lab):
    main = {"recipient_delimiter": "+"}
    return {
        wanted: make_module_lab(CONFIG, main={**main, "smtputf8_enable": wanted})
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
    ("rcpt", "target"),
    [
        ("Case-AbC-Urgent@SolarMora.com", "t.AbC-Urgent@crm.example"),
        ('"CASE-AbC"@solarmora.com', "t.AbC@crm.example"),
        ("Case-AbC%solarmora.com@localhost", "t.AbC@crm.example"),
        ("@relay:Case-AbC@solarmora.com", "t.AbC@crm.example"),
        ("Case-AbC@solarmora.com.", "t.AbC@crm.example"),
        ("ID7xY@solarmora.com", "id.7xY@crm.example"),
        ("Help+ToKen7@solarmora.com", "support+ToKen7@crm.example"),
        ("Anna.Smith@domain.example", "Anna.Smith@crm.example"),
        ("Anna.Smith+Tok@Domain.Example", "Anna.Smith+Tok@crm.example"),
    ],
)
def test_the_case_of_the_local_part_reaches_the_crm(lab, rcpt, target):
    assert lab.send(JOE, [f"<{rcpt}>"], letter(HAM)).recipients == [target]


@pytest.mark.parametrize("rcpt", ["hülfe", "hu\u0308lfe", "HÜLFE", "HU\u0308LFE"])
def test_letters_are_one_however_they_are_composed_and_the_original_is_deleted(lab, rcpt):
    outcome = lab.send(UTF8, [f"<{rcpt}@solarmora.com>"], letter(HAM))
    assert outcome.recipients == ["munich@crm.example"]


@pytest.mark.parametrize("blank", ["\u00a0", "\u2003", "\u3000", "\x85", "\u1680"])
def test_an_address_with_a_blank_of_unicode_is_its_own(lab, blank):
    theirs = f"{blank}help@solarmora.com"
    outcome = lab.send(UTF8, [f"<{theirs}>", "<Help+A@solarmora.com>"], letter(HAM))
    assert sorted(outcome.recipients) == sorted([theirs, "support+A@crm.example"])


@pytest.mark.parametrize(
    "rcpt",
    [
        "case-@solarmora.com",
        '"case-."@solarmora.com',
        '"case-a b"@solarmora.com',
        "case-" + "x" * 70 + "@solarmora.com",
        '"help+x."@solarmora.com',
        '"a b"@domain.example',
    ],
)
def test_a_target_that_cannot_exist_leaves_the_recipient(lab, rcpt):
    outcome = lab.send(JOE, [f"<{rcpt}>", "<idA@solarmora.com>"], letter(HAM))
    assert outcome.recipients == [rcpt, "id.A@crm.example"]
    assert any(line.endswith("reason=no_target") for line in outcome.log)


@pytest.mark.parametrize("sender", [b"<j\xf6rg@x.org>", b"<\xff@x.org>", b"<joe@x.org>"])
def test_octets_that_are_no_text_do_not_disturb_other_recipients(old_lab, sender):
    rcpts = [
        b"<\xe4lice@x.org>",
        b"<h\xe9lp@solarmora.com>",
        b"<idA@solarmora.com>",
    ]
    outcome = old_lab.send(sender, rcpts, letter(HAM))
    assert sorted(outcome.recipients) == [
        "h\udce9lp@solarmora.com",
        "id.A@crm.example",
        "\udce4lice@x.org",
    ]


def test_octets_that_are_no_text_in_a_matched_address(old_lab):
    rcpts = [b"<id\xe9@solarmora.com>", b"<case-\xe9@solarmora.com>", b"<Case-7@solarmora.com>"]
    outcome = old_lab.send(JOE, rcpts, letter(HAM))
    assert sorted(outcome.recipients) == [
        "case-\udce9@solarmora.com",
        "id\udce9@solarmora.com",
        "t.7@crm.example",
    ]
    assert sum(line.endswith("reason=undecodable") for line in outcome.log) == 1
