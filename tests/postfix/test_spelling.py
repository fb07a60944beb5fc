"""However a client writes a matched address, the CRM gets one copy and the original none.

doc/postfix-milter.md: 1.5, 1.6, 1.7 (a bare local part), 2.1, 2.5 (xtext).
"""

import itertools

import pytest
from letter import HAM, JOE, SPAM, letter

from crm_milter.address import xtext

CRM = "support@crm.example"
ODD = "odd@crm.example"
IT = "it@solarmora.com"
CONFIG = """
unrouted_to: it@solarmora.com
spam: amavis
recipient_delimiter: "+"
rules:
  - name: support
    match: [help@solarmora.com, desk@office.example]
    replace_with: support@crm.example
  - name: odd
    match: ['"odd one"@solarmora.com', '"a@b"@solarmora.com', a=b@solarmora.com, o'neil/x@solarmora.com]
    replace_with: odd@crm.example
"""  # noqa: E501 - a list of addresses
ALIASES = """
help@solarmora.com it@solarmora.com
desk@office.example it@solarmora.com
odd\\ one@solarmora.com it@solarmora.com
"""


@pytest.fixture(scope="module")
def lab(make_module_lab):
    return make_module_lab(
        CONFIG,
        virtual_alias_maps=ALIASES,
        main={"myorigin": "office.example", "recipient_delimiter": "+"},
    )


@pytest.fixture(autouse=True)
def _fresh(lab):
    lab.fresh()


PLAIN = [
    "<help@solarmora.com>",
    "<Help@SolarMora.COM>",
    "help@solarmora.com",
    "help@solarmora.com.",
    "<HELP@solarmora.com.>",
    '<"help"@solarmora.com>',
    r'<"h\elp"@SolarMora.com>',
    '"Help"@solarmora.com',
    "<@relay:help@solarmora.com>",
    "<@one.example,@two.example:Help@solarmora.com>",
    "<@relay : help@solarmora.com>",
    '<@relay:"help"@solarmora.com>',
    "@relay:help@solarmora.com",
    "<Help%SolarMora.com>",
    '<"help@solarmora.com">',
    "<solarmora.com!help>",
    "< help@solarmora.com >",
    "<help @ solarmora.com>",
    "<help@solarmora.com (the desk)>",
    "<(the desk)help@solarmora.com>",
    "<<help@solarmora.com>>",
    "help@solarmora.com>",
]
UNQUALIFIED = ["<desk>", "Desk", '<"desk">', "<@relay:desk>"]
# By way of the server itself: cleanup(8) looks up aliases before such a route is resolved.
ROUTED = [
    "<help%solarmora.com@localhost>",
    "<help%solarmora.com%localhost@mail.lab.example>",
    "help%solarmora.com@localhost",
    '<"help%solarmora.com"@localhost>',
    '<"help@solarmora.com"@localhost>',
    "<help@solarmora.com@localhost>",
    "<localhost!solarmora.com!help>",
]
SPELLINGS = [
    *((each, "help@solarmora.com", IT) for each in PLAIN),
    *((each, "desk@office.example", IT) for each in UNQUALIFIED),
    *((each, "help@solarmora.com", "help@solarmora.com") for each in ROUTED),
    ("<help+ticket-7@solarmora.com>", "help+ticket-7@solarmora.com", "it+ticket-7@solarmora.com"),
    ("Help+@solarmora.com.", "help+@solarmora.com", "it+@solarmora.com"),
]


@pytest.mark.parametrize(("spelling", "address", "unrouted"), SPELLINGS)
def test_each_spelling_is_rerouted_and_not_also_delivered(lab, spelling, address, unrouted):
    outcome = lab.send(JOE, [spelling], letter(HAM))
    assert outcome.recipients == [CRM]
    assert len(outcome.log) == 1
    assert f": rerouted: to=<{address}> new=<{CRM}> rule=support " in outcome.log[0]
    # That the original would have had it otherwise: spam is left.
    assert lab.send(JOE, [spelling], letter(SPAM)).recipients == [unrouted]


@pytest.mark.parametrize(
    ("spelling", "address"),
    [
        ('<"odd one"@solarmora.com>', "odd one@solarmora.com"),
        (r"<odd\ one@solarmora.com>", "odd one@solarmora.com"),
        ('<"Odd One"@SolarMora.com>', "odd one@solarmora.com"),
        ('<"a@b"@solarmora.com>', "a@b@solarmora.com"),
        ("<a=b@solarmora.com>", "a=b@solarmora.com"),
        ('<"A=b"@solarmora.com.>', "a=b@solarmora.com"),
        ("<O'Neil/x@solarmora.com>", "o'neil/x@solarmora.com"),
    ],
)
def test_odd_local_parts(lab, spelling, address):
    outcome = lab.send(JOE, [spelling], letter(HAM))
    assert outcome.recipients == [ODD]
    assert f": rerouted: to=<{address}> " in outcome.log[0]
    assert outcome.of(ODD).rcpt.orcpt == f"rfc822;{xtext(spelling[1:-1])}"


def test_all_spellings_in_one_message_are_one_copy(lab):
    written = [spelling for spelling, _, _ in SPELLINGS]
    for spellings in (written, written[::-1]):
        outcome = lab.send(JOE, [*spellings, "<alice@solarmora.com>"], letter(HAM))
        assert {reply.code for reply in outcome.sent.rcpt_replies} == {250}
        assert outcome.recipients == ["alice@solarmora.com", CRM]
        assert len(outcome.log) == len(SPELLINGS)


@pytest.mark.parametrize("same", ["<help@solarmora.com>", "<Help@solarmora.com>", "<desk>"])
def test_the_same_spelling_twice(lab, same):
    assert lab.send(JOE, [same, same], letter(HAM)).recipients == [CRM]


@pytest.mark.parametrize(
    "other",
    ["Help@SolarMora.COM", '<"help"@solarmora.com>', "<@relay:help@solarmora.com.>", "<desk>"],
)
def test_one_address_in_two_spellings_is_one_copy(lab, other):
    for pair in itertools.permutations(["<help@solarmora.com>", other]):
        assert lab.send(JOE, pair, letter(HAM)).recipients == [CRM]


@pytest.mark.parametrize(
    "neighbours",
    [
        ["<help>"],  # help@office.example
        ["help"],
        ["<help@other.example>"],
        ["<help>", "<help@other.example>", "<desk@solarmora.com>", '<"help@solarmora.com"@x.org>'],
    ],
)
def test_namesakes_of_an_address_without_brackets_lose_nothing(lab, neighbours):
    """What is removed for help@solarmora.com must not take another help with it (1.7)."""
    expected = lab.send(JOE, neighbours, letter(HAM)).recipients
    assert CRM not in expected
    for matched in ("help@solarmora.com", "<help@solarmora.com>"):
        for order in ([matched, *neighbours], [*neighbours, matched]):
            assert lab.send(JOE, order, letter(HAM)).recipients == sorted([*expected, CRM])


@pytest.mark.parametrize(
    "spelling",
    [
        '<"\\"help\\""@solarmora.com>',
        "<help@[127.0.0.1]>",
        "<xhelp@solarmora.com>",
        "<help@x.solarmora.com>",
        "<help%solarmora.com@elsewhere.example>",
        "<+help@solarmora.com>",
    ],
)
def test_what_only_looks_like_it_is_left_alone(lab, spelling):
    outcome = lab.send(JOE, [spelling], letter(HAM))
    assert CRM not in outcome.recipients
    assert len(outcome.recipients) == 1
    assert outcome.log == []
