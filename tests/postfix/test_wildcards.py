"""Wildcards spare the addresses that those who run the host must get: doc/postfix-milter.md 6.3."""

import pytest

HAM = b"From: joe@client.example\r\nSubject: x\r\nX-Spam-Flag: NO\r\n\r\nhello\r\n"

CONFIG = r"""
unrouted_to: it@other.example
spam: amavis
recipient_delimiter: "+"
rules:
  - {name: glob, match: "*e@glob.example", replace_with: glob@crm.example}
  - {name: expression, match: '/.*@expression\.example/', replace_with: expression@crm.example}
  - {name: named, match: [abuse@named.example, "SRS0=x@named.example"], replace_with: n@crm.example}
  - {name: domain, match: "@solarmora.com", replace_with: domain@crm.example}
  - {name: copies, match: "*", also_deliver_to: [archive@archive.example]}
"""
PROTECTED = [
    "postmaster",
    "Postmaster",
    "abuse",
    "MAILER-DAEMON",
    "double-bounce",
    "SRS0=Hhh=TT=client.example=joe",
    "SRS0+Hhh=TT=client.example=joe",
    "SRS0-Hhh=TT=client.example=joe",
    "srs1=Hhh=relay.example==HHH=TT=client.example=joe",
    "prvs=0123456789=joe",
    "postmaster+list",
    "abuse+x",
    '"postmaster"',
]


@pytest.fixture(scope="module")
def _lab(make_module_lab):
    aliases = {"abuse@named.example": "it@other.example"}
    return make_module_lab(CONFIG, virtual_alias_maps=aliases, main={"myorigin": "solarmora.com"})


@pytest.fixture
def lab(_lab):
    _lab.fresh()
    return _lab


@pytest.mark.parametrize("local", PROTECTED)
def test_protected_addresses_are_spared(lab, local):
    """By a domain, a glob, an expression and "*", and whoever else gets the message."""
    domains = ["solarmora.com", "glob.example", "expression.example", "other.example"]
    outcome = lab.send("<joe@client.example>", [f"<{local}@{each}>" for each in domains], HAM)
    assert outcome.sent.reply.code == 250
    plain = local.strip('"')
    assert outcome.recipients == sorted(f"{plain}@{each}" for each in domains)
    assert outcome.log == []


@pytest.mark.parametrize(
    ("recipient", "gets"),
    [
        ("alice@solarmora.com", ["domain@crm.example"]),
        ("alice@glob.example", ["glob@crm.example"]),
        ("alice@expression.example", ["expression@crm.example"]),
        ("alice@other.example", ["alice@other.example", "archive@archive.example"]),
        ("postmasters@solarmora.com", ["domain@crm.example"]),
        ("abuse.desk@solarmora.com", ["domain@crm.example"]),
        ("srs0@solarmora.com", ["domain@crm.example"]),
    ],
)
def test_others_are_not(lab, recipient, gets):
    assert lab.send("<joe@client.example>", [f"<{recipient}>"], HAM).recipients == gets


def test_beside_others_in_one_message(lab):
    rcpts = ["<alice@solarmora.com>", "<postmaster@solarmora.com>", "<bob@other.example>"]
    assert lab.send("<>", rcpts, HAM).recipients == [
        "archive@archive.example",
        "bob@other.example",
        "domain@crm.example",
        "postmaster@solarmora.com",
    ]


@pytest.mark.parametrize("local", ["abuse", "Abuse", "SRS0=x"])
def test_a_rule_that_names_it_applies(lab, local):
    outcome = lab.send("<joe@client.example>", [f"<{local}@named.example>"], HAM)
    assert outcome.recipients == ["n@crm.example"]


@pytest.mark.parametrize("rcpt", ["<postmaster>", "<Postmaster>", "postmaster", '<"postmaster">'])
def test_postmaster_without_a_domain_is_left_alone(lab, rcpt):
    outcome = lab.send("<joe@client.example>", [rcpt], HAM)
    assert [each.lower() for each in outcome.recipients] == ["postmaster@solarmora.com"]
    assert outcome.log == []
    outcome = lab.send("<joe@client.example>", ["<alice@solarmora.com>", rcpt], HAM)
    assert {each.lower() for each in outcome.recipients} == {
        "domain@crm.example",
        "postmaster@solarmora.com",
    }


@pytest.mark.parametrize("rcpt", ["<postmaster>", "<POSTMASTER>", "<postmaster@named.example>"])
def test_postmaster_without_a_domain_is_routed_by_a_rule_that_names_it(make_lab, rcpt):
    config = """
unrouted_to: it@other.example
spam: amavis
rules:
  - {name: named, match: postmaster@named.example, replace_with: pm@crm.example}
"""
    aliases = {"postmaster@named.example": "it@other.example"}
    lab = make_lab(config, virtual_alias_maps=aliases, main={"myorigin": "named.example"})
    assert lab.send("<joe@client.example>", [rcpt], HAM).recipients == ["pm@crm.example"]
