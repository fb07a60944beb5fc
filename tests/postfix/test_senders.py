"""However a client writes the null sender, the rules take it for that, as Postfix does.

doc/postfix-milter.md: what smtpd makes of the argument of MAIL.
"""

import pytest
from letter import HAM, letter

from crm_milter import address

CONFIG = """
unrouted_to: it@solarmora.com
spam: amavis
rules:
  - name: bounces
    match: help@solarmora.com
    senders: "<>"
    replace_with: bounces@crm.example
  - name: anna
    match: help@solarmora.com
    senders: anna@customer.example
    replace_with: anna@crm.example
  - name: others
    match: help@solarmora.com
    replace_with: others@crm.example
"""


@pytest.fixture(scope="module")
def lab(make_module_lab):
    return make_module_lab(CONFIG, virtual_alias_maps="help@solarmora.com it@solarmora.com\n")


@pytest.fixture(autouse=True)
def _fresh(lab):
    lab.fresh()


NULL = [
    "<>",
    "< >",
    "<(x)>",
    "<()>",
    "<( )>",
    "(x)",
    "<(a(b)c)>",
    "<((x)>",
    "<(x>",
    r"<(\))>",
    "<(x) (y)>",
    '<"">',
    '<""(x)>',
    "<,>",
    "<;>",
    "<(x),>",
    "<<>>",
    "<<(x)>>",
    "<@relay:>",
    "<@relay:(x)>",
    '<@relay:"">',
]
ANNA = [
    "<anna@customer.example>",
    "<(x)anna@customer.example>",
    "<anna(x)@customer.example>",
    "<anna@(x)customer.example>",
    "<(x) anna (y) @ (z) customer.example>",
    "<anna@customer.example(a(b)c)>",
    "<anna@customer.example (x>",
    r"<anna@customer.example(\))>",
    '<"anna"(x)@customer.example>',
    r"<\an\na@customer.example>",
    "<(@x.example)anna@customer.example>",
]
OTHERS = [
    "<(x)@customer.example>",
    '<""@customer.example>',
    "<@customer.example>",
    "<x)>",
    "<(x))>",
    "<.>",
    '<" ">',
    '<"(x)">',
    r"<\(x\)>",
    '<"anna(x)"@customer.example>',
    r"<anna\(x\)@customer.example>",
    "<:>",
]
SPELLINGS = [
    *((each, "bounces@crm.example") for each in NULL),
    *((each, "anna@crm.example") for each in ANNA),
    *((each, "others@crm.example") for each in OTHERS),
]


@pytest.mark.parametrize(("spelling", "target"), SPELLINGS)
def test_a_sender_is_to_the_rules_what_it_is_to_postfix(lab, spelling, target):
    (received,) = lab.send(spelling, ["<help@solarmora.com>"], letter(HAM)).received
    assert received.recipient == target
    if target == "bounces@crm.example":
        assert received.sender == ""
    elif target == "anna@crm.example":
        assert received.sender == "anna@customer.example"
    else:
        assert received.sender not in ("", "anna@customer.example")
        # Postfix adds a domain where there is none; there is no other difference.
        seen = received.sender.removesuffix("@mail.lab.example")
        assert address.sender(f"<{seen}>") == address.sender(spelling)
