"""The table of virtual aliases: a mailbox for what is left, and nobody's mailbox taken away."""

from pathlib import Path

import pytest

from crm_milter.config.load import parse
from crm_milter.postfix.aliases import HEADING, AliasError, alias_lines

HEAD = "unrouted_to: it@y.example\nspam: rspamd\n"


def lines(folder: Path, text: str, head: str = HEAD, **files: str) -> list[str]:
    for name, content in files.items():
        (folder / name).write_text(content)
    config = parse(head + text, folder / "c.yaml")
    heading, *entries = alias_lines(config.policy.table, config.unrouted_to)
    assert heading == HEADING
    return entries


A = "name: a, replace_with: a@crm.example"
LIST = "b@x.example\na@x.example\n"
ACCOUNTS = "joe@x.example -\nann@x.example -\nbob@elsewhere.example -\n"
BOTH = "known_recipients: accounts\nrules:\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"rules: [{{{A}, match: [help@x.example, '@x.example', 'case-*@x.example']}}]", ["help"]),
        (f"rules: [{{{A}, match: 'file:list'}}]", ["a", "b"]),
        ("rules: [{name: a, address_map: table}]", ["c"]),
        ("rules: [{name: a, match: help@x.example, also_deliver_to: a@b.example}]", []),
        (f"rules: [{{{A}, match: help@x.example, senders: '@vip.example'}}]", ["help"]),
        (f"{BOTH}  - {{{A}, match: [help@x.example], apply_to: unknown}}", ["help"]),
        (f"{BOTH}  - {{{A}, match: [joe@x.example], apply_to: unknown}}", []),
        (f"{BOTH}  - {{{A}, match: [joe@x.example, '@x.example'], apply_to: known}}", []),
        (f"{BOTH}  - {{{A}, match: 'case-*@x.example', apply_to: unknown}}", []),
    ],
)
def test_exact_addresses_of_rules_that_replace(
    tmp_path: Path, text: str, expected: list[str]
) -> None:
    table = "c@x.example c@crm.example\n@x.example d@crm.example\n"
    made = lines(tmp_path, text, list=LIST, table=table, accounts=ACCOUNTS)
    assert made == [f"{local}@x.example  it@y.example" for local in expected]


def test_a_rule_for_unknown_addresses_leaves_every_account_its_mail(tmp_path: Path) -> None:
    text = BOTH + f"  - {{{A}, match: ['@x.example', help@x.example], apply_to: unknown}}\n"
    assert lines(tmp_path, text, accounts=ACCOUNTS) == [
        "help@x.example  it@y.example",
        "ann@x.example  ann@x.example",
        "joe@x.example  joe@x.example",
        "@x.example  it@y.example",
    ]


def test_the_same_by_a_table_with_a_domain(tmp_path: Path) -> None:
    text = BOTH + "  - {name: a, address_map: table, apply_to: unknown}\n"
    table = "@x.example a@crm.example\nb@x.example b@crm.example\n"
    assert lines(tmp_path, text, accounts=ACCOUNTS, table=table) == [
        "b@x.example  it@y.example",
        "ann@x.example  ann@x.example",
        "joe@x.example  joe@x.example",
        "@x.example  it@y.example",
    ]


def test_an_account_that_a_rule_names_goes_to_the_mailbox_of_that_rule(tmp_path: Path) -> None:
    text = (
        BOTH
        + f"""\
  - {{name: joe, match: joe@x.example, replace_with: j@crm.example, unrouted_to: j@y.example}}
  - {{{A}, match: '@x.example', apply_to: unknown, unrouted_to: rest@y.example}}
"""
    )
    assert lines(tmp_path, text, head="spam: rspamd\n", accounts=ACCOUNTS) == [
        "joe@x.example  j@y.example",
        "ann@x.example  ann@x.example",
        "@x.example  rest@y.example",
    ]


def test_an_exception_keeps_its_mailbox(tmp_path: Path) -> None:
    text = f"""rules:
  - {{name: own, match: b@x.example, also_deliver_to: x@z.example}}
  - {{{A}, match: 'file:list'}}
"""
    assert lines(tmp_path, text, list=LIST) == ["a@x.example  it@y.example"]


def test_domains_in_both_scripts(tmp_path: Path) -> None:
    text = BOTH + f"  - {{{A}, match: '@bücher.example', apply_to: unknown}}\n"
    assert lines(tmp_path, text, accounts='"j j"@bücher.example -\n') == [
        '"j j"@xn--bcher-kva.example  "j j"@xn--bcher-kva.example',
        '"j j"@bücher.example  "j j"@xn--bcher-kva.example',
        "@xn--bcher-kva.example  it@y.example",
        "@bücher.example  it@y.example",
    ]


def test_a_rule_without_a_mailbox_is_named(tmp_path: Path) -> None:
    text = BOTH + f"  - {{{A}, match: '@x.example', apply_to: unknown}}\n"
    with pytest.raises(AliasError, match='rule "a" needs an "unrouted_to"'):
        lines(tmp_path, text, head="spam: rspamd\n", accounts=ACCOUNTS)


def test_a_rule_in_test_mode_has_no_entry(tmp_path: Path) -> None:
    """Whatever it matches, and even if it names a mailbox; the rules behind it have theirs."""
    test = "mode: test, unrouted_to: t@y.example"
    text = f"""{BOTH}
  - {{{A}, match: [help@x.example, only@x.example], {test}}}
  - {{name: b, match: '@x.example', replace_with: b@crm.example, apply_to: unknown, {test}}}
  - {{name: c, address_map: table, {test}}}
  - {{name: d, match: help@x.example, replace_with: d@crm.example}}
"""
    made = lines(tmp_path, text, accounts=ACCOUNTS, table="c@x.example c@crm.example\n")
    assert made == ["help@x.example  it@y.example"]
