"""What is known of a CRM by the domain of its addresses, and when it is worth a warning."""

from pathlib import Path

import pytest

from crm_milter.config.crms import crm_of
from crm_milter.config.load import parse

HEAD = "unrouted_to: it@y.example\nspam: rspamd\ndead_letters: dead@mailboxes.example\nrules:\n"
SALESFORCE = "support@0-abc123.1-def.eu1.case.salesforce.com"
JIRA = "support@site.atlassian.net"
SIZE = '25M" such mail goes to unrouted_to'
DROPS = 'use "also_deliver_to" to keep a copy in a mailbox of your own'
CASES = "opens two cases in Salesforce"


def ends(rules: str) -> list[str]:
    """Return the keys of the warnings and their last words."""
    found = parse(HEAD + rules, Path("/etc/c.yaml")).warnings
    return [f"{each.key}: {each.message.split(': ')[-1]}" for each in found]


@pytest.mark.parametrize(
    ("address", "name"),
    [
        (SALESFORCE, "Salesforce"),
        ("support@0-abc.cs5.case.sandbox.salesforce.com", "Salesforce"),
        ("support@company.zendesk.com", "Zendesk"),
        ("help@1234.hubspot-inbox.com", "HubSpot"),
        ("help@1234.eu1.hs-inbox.com", "HubSpot"),
        ("support@SITE.Atlassian.net", "Jira"),
        ("support@company.freshdesk.com", "Freshdesk"),
    ],
)
def test_the_addresses_that_crms_generate(address: str, name: str) -> None:
    domain = address.partition("@")[2]
    crm = crm_of(domain)
    assert crm is not None
    assert crm.name == name
    assert crm.domain.fullmatch(domain.lower())
    assert crm.domain.fullmatch(crm.example.partition("@")[2])


@pytest.mark.parametrize(
    "address", ["a@v1su0245ewejzhe7.case.my-crm.com", "a@notsalesforce.com", "a@com", "a@[::1]"]
)
def test_other_addresses_tell_nothing(address: str) -> None:
    assert crm_of(address.partition("@")[2]) is None


@pytest.mark.parametrize(
    "target",
    [
        "support@salesforce.com",
        "support@zendesk.com",
        "support@a.b.zendesk.com",
        "a@hs-inbox.com",
        "a@atlassian.net",
        "a@freshdesk.com",
        "case-\\1@case.salesforce.com",
        "'@zendesk.com'",
    ],
)
def test_the_shape_of_a_target(target: str) -> None:
    rule = f"  - {{name: a, match: case-*@x.example, replace_with: {target}, max_size: 1M,"
    found = ends(f"{rule} also_deliver_to: z@y.example}}\n")
    assert any("such as" in each for each in found)


def rule(name: str, target: str, more: str = "", match: str = "") -> str:
    match = match or f"{name}@x.example"
    return f"  - {{name: {name}, match: {match}, replace_with: {target}{more}}}\n"


COPY = ", also_deliver_to: z@y.example"


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        # what nobody would have otherwise, once for each CRM
        (rule("a", SALESFORCE), [SIZE]),
        (rule("a", SALESFORCE) + rule("b", "b" + SALESFORCE), [SIZE]),
        (rule("a", JIRA), [SIZE, DROPS]),
        (rule("a", JIRA, ", max_size: 25M"), [DROPS]),
        # a copy is a safety net, whatever the CRM does
        (rule("a", SALESFORCE, COPY), []),
        (rule("a", JIRA, COPY), []),
        (rule("a", SALESFORCE, ", max_size: 25M"), []),
        (rule("a", "support@company.zendesk.com"), []),
        # several addresses with one of Salesforce's, once for each target
        (rule("a", SALESFORCE, COPY) + rule("b", SALESFORCE.title(), COPY), [CASES]),
        (rule("a", SALESFORCE, COPY, "[a@x.example, b@x.example, c@x.example]"), [CASES]),
        (rule("a", SALESFORCE, COPY, "'@x.example'"), [CASES]),
        (rule("a", JIRA, COPY) + rule("b", JIRA, COPY), []),
        (rule("a", "case-\\1@1.2.case.salesforce.com", COPY, "case-*@x.example"), []),
    ],
)
def test_traps(rules: str, expected: list[str]) -> None:
    found = ends(rules)
    assert len(found) == len(expected)
    assert all(each.endswith(end) for each, end in zip(found, expected, strict=True))


def test_a_limit_above_that_of_the_crm() -> None:
    assert ends(rule("a", SALESFORCE, ", max_size: 26M")) == [
        "rules[0].max_size: Salesforce rejects mail over 25M"
    ]


def test_the_targets_of_a_table_count_as_well(tmp_path: Path) -> None:
    (tmp_path / "table").write_text(
        f"a@x.example {SALESFORCE}\nb@x.example a@zendesk.com\n"
        f"c@x.example {SALESFORCE} b@zendesk.com\n"
    )
    text = HEAD + "  - {name: a, address_map: table, max_size: 1M}\n"
    cases, shape = parse(text, tmp_path / "c.yaml").warnings
    assert cases.message.endswith(CASES)
    assert shape.message.startswith(
        '"a@zendesk.com" (and 1 more) does not look like an address of Zendesk'
    )
    assert {cases.key, shape.key} == {"rules[0].address_map"}
