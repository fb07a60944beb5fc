"""What no stranger may choose, and where no secret or spam may go: errors and warnings of check."""

from pathlib import Path

import pytest

from crm_milter.config.load import parse
from crm_milter.config.problems import ConfigError
from crm_milter.rules.strangers import is_public

HEAD = "unrouted_to: it@y.example\nspam: rspamd\ndead_letters: dead@mailboxes.example\n"


def problems(text: str, head: str = HEAD) -> list[str]:
    """Return the keys and severities of what is noted, sorted."""
    try:
        found = parse(head + text, Path("/etc/c.yaml")).warnings
    except ConfigError as error:
        found = error.problems
    return sorted(f"{each.key}: {each.severity.value}" for each in found)


def rules(*rules: str) -> str:
    return "rules:\n" + "".join(f"  - {{name: r{n}, {rule}}}\n" for n, rule in enumerate(rules))


@pytest.mark.parametrize(
    ("match", "target"),
    [
        ("*=*@x.example", r"\1@\2"),
        ("*=*@x.example", r"a@\2"),
        ("*=*@x.example", r"@\2"),
        ("case-*@x.example", r"case@\1.crm.example"),
        ("case-*@x.example", r"case@crm-\1.example"),
        ("case-*@x.example", r"\1@crm.\1"),
        (r"/(.+)=(.+)@x\.example/", r"\1@\2"),
        (r"/(.+)=(?P<d>.+)@x\.example/", r"\1@\2"),
        (r"/(.+)=((shop|help)\..*)@x\.example/", r"\1@\2"),
        (r"/(.+)=(shop.example|help)@x\.example/", r"\1@\2"),
        (r"/(.+)=([a-z]+)@x\.example/", r"\1@\2.crm.example"),
        (r"/(.+)=(shop|)@x\.example/", r"\1@\2crm.example"),
        (r"/(.+)=(shop|\w+)@x\.example/", r"\1@\2.crm.example"),
        (r"/\Q(\E(.+)(shop)@x\.example/", r"a@\2.crm.example"),
        (r"/[(](.+)(shop)@x\.example/", r"a@\1.crm.example"),
        (r"/\((.+)(shop)@x\.example/", r"a@\1.crm.example"),
    ],
)
def test_a_sender_cannot_choose_the_domain(match: str, target: str) -> None:
    rule = f"match: '{match}', replace_with: '{target}'"
    assert problems(rules(rule)) == ["rules[0].replace_with: error"]


@pytest.mark.parametrize(
    ("match", "target"),
    [
        ("*=*@x.example", r"\1.\2@crm.example"),
        ("*=*@x.example", r"\1@"),
        (r"/(.+)=(shop|help)@x\.example/", r"\1@\2.crm.example"),
        (r"/(.+)=(shop\.example|help\.example)@x\.example/", r"\1@\2"),
        (r"/(?:.+)=(?P<d>shop|help)@x\.example/", r"a@\1.crm.example"),
        (r"/(?i:(.+)=(shop))@x\.example/", r"\1@\2.crm.example"),
        (r"/[(](.+)(shop)@x\.example/", r"\1@\2.crm.example"),
        (r"/\((.+)(shop)@x\.example/", r"\1@\2.crm.example"),
        (r"/[)(](?:.+)((a|b)x)@x\.example/", r"a@\2.crm.example"),
    ],
)
def test_a_group_that_lists_what_it_takes_leaves_no_choice(match: str, target: str) -> None:
    assert problems(rules(f"match: '{match}', replace_with: '{target}'")) == []


@pytest.mark.parametrize(
    "match",
    [
        "'@gmail.com'",
        "help@gmail.com",
        "'@GMail.com'",
        "case-*@outlook.com",
        r"'/.*@yahoo\.co\.uk/'",
        "[a@x.example, '@web.de']",
        "'@hotmail.fr'",
        "'@icloud.com.'",
    ],
)
@pytest.mark.parametrize("action", ["replace_with: a@crm.example", "also_deliver_to: a@b.example"])
def test_mail_to_a_public_provider_is_not_this_hosts(match: str, action: str) -> None:
    (problem,) = problems(rules(f"match: {match}, {action}"))
    assert problem.startswith("rules[0].match")
    assert problem.endswith(": warning")


def test_a_table_with_a_public_provider(tmp_path: Path) -> None:
    (tmp_path / "table").write_text("@gmail.com a@crm.example\nb@x.example b@crm.example\n")
    found = parse(HEAD + rules("address_map: table"), tmp_path / "c.yaml").warnings
    assert [each.key for each in found] == ["rules[0].address_map"]


@pytest.mark.parametrize(
    ("domain", "public"),
    [
        ("gmail.com", True),
        ("yahoo.de", True),
        ("live.co.uk", True),
        ("hotmail.com.br", True),
        ("mygmail.com", False),
        ("gmail.com.example", False),
        ("mail.gmail.com", False),
        ("yahoo.example", False),
        ("", False),
    ],
)
def test_public_providers(domain: str, public: bool) -> None:
    assert is_public(domain) is public


CRM = "match: a@x.example, replace_with: Support+x@crm.example"


@pytest.mark.parametrize("key", ["unrouted_to", "dead_letters"])
@pytest.mark.parametrize(
    ("rule", "mailbox"),
    [
        (CRM, "Support+x@crm.example"),
        (CRM, "support+x@CRM.example."),
        (CRM, "support@crm.example"),
        (CRM, "support+spam@crm.example"),
        ("match: a@x.example, replace_with: a@bücher.example", "a@xn--bcher-kva.example"),
        ("match: a@x.example, replace_with: a@xn--bcher-kva.example", "A@bücher.example"),
        ("match: a@x.example, replace_with: '@crm.example'", "a@crm.example"),
        ("match: a@x.example, replace_with: b@", "b@x.example"),
        (r"match: 'case-*@x.example', replace_with: 'c.\1@crm.example'", "c.7@crm.example"),
        (r"match: 'case-*@x.example', replace_with: 'C\1@CRM.example'", "c7@crm.example"),
        ("match: a@x.example, mode: test, replace_with: a@crm.example", "a@crm.example"),
        ("match: 'case-*@x.example', replace_with: '@crm.example'", "case-7@crm.example"),
        ("match: 'case-*@x.example', replace_with: '@crm.example'", "CASE-a+b@CRM.example."),
        ("match: ['a@y.example', 'b*c@x.example'], replace_with: '@crm.example'", "bc@crm.example"),
        ("match: 'case-*@x.example', replace_with: 'desk@'", "Desk@x.example"),
        (r"match: 'case-*@x.example', replace_with: 'C.\1@'", "c.7@x.example"),
    ],
)
def test_what_is_kept_from_a_target_does_not_get_there(key: str, rule: str, mailbox: str) -> None:
    head = 'recipient_delimiter: "+"\nspam: rspamd\n'
    own = rules(f'{rule}, {key}: "{mailbox}"')
    assert problems(own, head) == [f"rules[0].{key}: error"]
    other = rules(rule, f'match: z@x.example, replace_with: b@else.example, {key}: "{mailbox}"')
    assert problems(other, head) == [f"rules[1].{key}: error"]
    if key == "unrouted_to":
        whole = f'unrouted_to: "{mailbox}"\n{head}'
        assert "unrouted_to: error" in problems(rules(rule), whole)


@pytest.mark.parametrize(
    ("rule", "mailbox"),
    [
        ("match: a@x.example, replace_with: a@crm.example", "b@crm.example"),
        ("match: a@x.example, replace_with: a+1@crm.example", "a@crm.example"),
        ("match: '@x.example', replace_with: '@z.example'", "it@z.example"),
        (r"match: 'case-*@x.example', replace_with: 'c.\1@crm.example'", "d.7@crm.example"),
        ("match: 'case-*@x.example', replace_with: '@crm.example'", "it@crm.example"),
        ("match: 'case-*@x.example', replace_with: '@crm.example'", "case-7@x.crm.example"),
        (r"match: 'case-*@x.example', replace_with: 'c.\1@'", "c.7@crm.example"),
        ("match: a@x.example, replace_with: a@c.example, also_deliver_to: t@x.org", "t@x.org"),
    ],
)
def test_another_mailbox_is_no_target(rule: str, mailbox: str) -> None:
    assert (
        problems(rules(rule), f"unrouted_to: {mailbox}\ndead_letters: d@y.example\nspam: rspamd\n")
        == []
    )


def test_a_table_of_targets_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "table").write_text("a@x.example c@crm.example, IT@y.example\n")
    with pytest.raises(ConfigError, match="unrouted_to"):
        parse(HEAD + rules("address_map: table"), tmp_path / "c.yaml")


HUBSPOT = "match: a@x.example, replace_with: support@4711321.hubspot-inbox.com"


@pytest.mark.parametrize(
    "value",
    [
        "support@4711321.hubspot-inbox.com",
        "SUPPORT@4711321.HubSpot-Inbox.com",
        "case for <support@4711321.hubspot-inbox.com>",
        "4711321.hubspot-inbox.com",
        "https://4711321.hubspot-inbox.com/",
        "0-6xaf3k2b1c9d8e7f",
        "key=4f1c0de99a7b42d1b3aa",
        "team@z.example",
    ],
)
def test_added_fields_hold_no_secret(value: str) -> None:
    rule = f'{HUBSPOT}, also_deliver_to: team@z.example, add_headers: {{X-A: "{value}"}}'
    assert problems(rules(rule)) == ["rules[0].add_headers.X-A: warning"]


@pytest.mark.parametrize(
    "value", ["{recipient}", "{rule} {spam}", "internationalisation", "priority 1", "2026-11-28"]
)
def test_ordinary_fields_may_be_added(value: str) -> None:
    assert problems(rules(f'{HUBSPOT}, add_headers: {{X-A: "{value}"}}')) == []


TEST = ", mode: test"


@pytest.mark.parametrize(
    "text",
    [
        rules(
            f"match: a@x.example, replace_with: a@crm.example{TEST}",
            "match: a@x.example, replace_with: b@crm.example",
        ),
        rules(
            f"match: '@x.example', replace_with: a@crm.example{TEST}",
            "match: '@x.example', replace_with: b@crm.example",
        ),
        rules(
            f"match: [a@x.example, b@x.example], replace_with: a@crm.example{TEST}",
            "match: a@x.example, replace_with: b@crm.example",
        ),
        rules(
            f"match: b@crm.example, replace_with: a@crm.example{TEST}",
            "match: a@x.example, replace_with: b@crm.example",
        ),
        rules(
            f"match: it@y.example, replace_with: a@crm.example{TEST}",
            "match: a@x.example, replace_with: b@crm.example",
        ),
        rules(
            f"match: b@z.example, replace_with: a@crm.example{TEST}",
            "match: a@x.example, also_deliver_to: b@z.example",
        ),
    ],
)
def test_a_test_rule_is_not_there_for_the_others(text: str) -> None:
    """It hides nothing and takes no target, copy or mailbox."""
    assert problems(text) == []
    assert problems(text.replace(TEST, "")) != []
