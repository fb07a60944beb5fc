"""The files that a configuration names: address lists, tables, accounts, more rules."""

import os
from pathlib import Path

import pytest

from crm_milter.config.files import SHOWN_LINES
from crm_milter.config.load import Config, load, parse
from crm_milter.config.problems import ConfigError
from crm_milter.rules.conditions import Occasion

HEAD = "unrouted_to: it@mailboxes.example\nspam: rspamd\ndead_letters: dead@mailboxes.example\n"
LIST = HEAD + "rules:\n  - {name: a, match: 'file:list', replace_with: a@crm.example}\n"
MAP = HEAD + "rules:\n  - {name: a, address_map: table}\n"
KNOWN = (
    HEAD
    + "known_recipients: accounts\nrules:\n  - name: a\n    match: '@x.example'\n"
    + "    apply_to: unknown\n    replace_with: a@crm.example\n"
)


def config(folder: Path, text: str, **files: str | bytes) -> Config:
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(data)
    return parse(text, folder / "crm-milter.yaml")


def warnings(loaded: Config, folder: Path) -> list[str]:
    return [str(each).replace(f"{folder}/", "") for each in loaded.warnings]


def targets(loaded: Config, address: str, sender: str = "") -> tuple[str, ...] | None:
    match = loaded.policy.table.match(address, Occasion(sender))
    return match.targets() if match else None


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("help@x.example\n", {"help@x.example"}),
        ("\ufeffhelp@x.example\r\n\r\n  # no\n\tinfo@x.example # the office\n", {"info@x.example"}),
        ('"john doe"@X.EXAMPLE.\nHelp@x.example', {"john doe@x.example", "help@x.example"}),
        ('"a #b"@x.example\na#b@x.example\n', {"a #b@x.example", "a#b@x.example"}),
        ("help@straße.example\n", {"help@xn--strae-oqa.example"}),
        ("help@x.example\nHELP@x.example\n", {"help@x.example"}),
    ],
)
def test_an_address_list(tmp_path: Path, text: str, listed: set[str]) -> None:
    loaded = config(tmp_path, LIST, list=text)
    assert loaded.warnings == ()
    for address in listed:
        assert targets(loaded, address) == ("a@crm.example",)
    assert targets(loaded, "other@x.example") is None


EMPTY = ["", "# nobody yet\n", " \n\t\r\n\n", "\ufeff", "\ufeff# none\n", "  # one\n", "\n" * 999]
RULE = "rules:\n  - {name: a, match: %s, replace_with: a@crm.example%s}\n"
# Each place where a file may be named.
NAMING = {
    "rules[0].match": RULE % ("'file:list'", ""),
    "rules[0].match[1]": RULE % ("[a@x.example, 'file:list']", ""),
    "rules[0].senders": RULE % ("a@x.example", ", senders: 'file:list'"),
    "rules[0].except_senders": RULE % ("a@x.example", ", except_senders: 'file:list'"),
    "rules[0].address_map": "rules:\n  - {name: a, address_map: list}\n",
    "known_recipients": "known_recipients: list\n" + RULE % ("a@x.example", ", apply_to: unknown"),
}


@pytest.mark.parametrize("key", NAMING)
@pytest.mark.parametrize("text", EMPTY)
def test_a_file_without_an_entry_is_refused_wherever_it_is_named(
    tmp_path: Path, key: str, text: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, HEAD + NAMING[key], list=text)
    (problem,) = caught.value.problems
    assert problem.key == key
    assert problem.message.startswith('"list" has no entries')


def test_senders_by_list_pattern_and_null_sender(tmp_path: Path) -> None:
    rule = "match: a@x.example, replace_with: {}@crm.example"
    text = f"""{HEAD}rules:
  - {{name: vip, {rule.format("vip")}, senders: ['file:list', '@vip.example', '<>']}}
  - {{name: rest, {rule.format("rest")}, except_senders: robot@y.example}}
"""
    loaded = config(tmp_path, text, list="boss@y.example\n")
    assert loaded.warnings == ()
    for sender in ("boss@y.example", "x@vip.example", ""):
        assert targets(loaded, "a@x.example", sender) == ("vip@crm.example",)
    assert targets(loaded, "a@x.example", "z@y.example") == ("rest@crm.example",)
    assert targets(loaded, "a@x.example", "robot@y.example") is None


@pytest.mark.parametrize(
    ("text", "address", "expected"),
    [
        ("help@x.example a@crm.example\n", "help@x.example", ["a@crm.example"]),
        ("help@x.example\t\t a@crm.example", "help@x.example", ["a@crm.example"]),
        ("@x.example a@crm.example\n", "any@x.example", ["a@crm.example"]),
        ("@x.example a@crm.example\nhelp@x.example b@crm.example\n", "help@x.example", ["b"]),
        ("Help@X.example A@CRM.example\n", "help@x.example", ["A@crm.example"]),
        ("help@x.example a@crm.example, b@crm.example c@crm.example\n", "help@x.example", "abc"),
        ("help@x.example\n   a@crm.example\n# no\n\n\tb@crm.example\n", "help@x.example", "ab"),
        ("help@x.example a@crm.example,A@crm.example,\n", "help@x.example", ["a@crm.example"]),
        ('"john doe"@x.example a@crm.example\n', "john doe@x.example", ["a@crm.example"]),
        ('"john doe@x.example" a@crm.example\n', "john doe@x.example", ["a@crm.example"]),
        (
            'a@x.example "x, y"@crm.example b@crm.example\n',
            "a@x.example",
            ['"x, y"@crm.example', "b"],
        ),
        ("a@bücher.example b@crm.example\r\n", "a@xn--bcher-kva.example", ["b@crm.example"]),
        ("a@x.example b@crm.example\n", "b@x.example", None),
        ("@x.example a@crm.example\n", "postmaster@x.example", None),
    ],
)
def test_a_table(tmp_path: Path, text: str, address: str, expected: list[str] | None) -> None:
    loaded = config(tmp_path, MAP, table=text)
    assert loaded.warnings == ()
    if expected is not None:
        expected = [each if "@" in each else f"{each}@crm.example" for each in expected]
    assert targets(loaded, address) == (None if expected is None else tuple(expected))


def test_of_two_entries_the_first_counts_as_for_postmap(tmp_path: Path) -> None:
    text = "a@x.example a@crm.example\n# and\nA@X.example b@crm.example\n"
    loaded = config(tmp_path, MAP, table=text)
    assert targets(loaded, "a@x.example") == ("a@crm.example",)
    expected = 'table:3: warning: duplicate key "a@x.example": only the first entry is used'
    assert warnings(loaded, tmp_path) == [expected]


def test_tables_in_order_and_what_they_hide(tmp_path: Path) -> None:
    text = MAP + "  - {name: b, address_map: second}\n  - {name: c, match: '@x.example', "
    text += "replace_with: c@crm.example}\n"
    second = "a@x.example b@crm.example\nb@x.example b@crm.example\n"
    loaded = config(tmp_path, text, table="a@x.example a@crm.example\n", second=second)
    assert targets(loaded, "a@x.example") == ("a@crm.example",)
    assert targets(loaded, "z@x.example") == ("c@crm.example",)
    (problem,) = (str(each) for each in loaded.warnings)
    assert '"a@x.example" in "second" never reaches this rule: matched first by "a"' in problem


def test_a_file_is_read_once_and_reported_once(tmp_path: Path) -> None:
    text = LIST + "  - {name: b, match: x@x.example, replace_with: b@crm.example,"
    text += " senders: 'file:./list'}\n"
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, text, list="help\n")
    assert str(caught.value) == f'{tmp_path}/list:1: "help" has no domain'


def test_of_a_file_bad_throughout_a_few_lines_are_shown(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, LIST, list="help\n" * 1000)
    assert len(caught.value.problems) == SHOWN_LINES + 1
    assert str(caught.value.problems[-1]).endswith(": 980 more errors not shown")


@pytest.mark.parametrize("kind", ["fifo", "folder", "vanished", "binary"])
@pytest.mark.parametrize(
    "text", [LIST, MAP.replace("table", "list"), KNOWN.replace("accounts", "list")]
)
def test_what_is_no_text_file_is_refused_without_waiting(
    tmp_path: Path, kind: str, text: str
) -> None:
    path = tmp_path / "list"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(b"a@x.example\0")
    reason = {
        "fifo": "is not a regular file",
        "folder": "is a directory",
        "vanished": "no such file or directory",
        "binary": "not a text file; name the source file, not the one that postmap makes from it",
    }[kind]
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, text)
    assert str(caught.value).endswith(f': "list": {reason}')


def test_accounts_are_the_first_column(tmp_path: Path) -> None:
    accounts = "x.example anything\nJoe@x.example joe/\n  # no\nann@x.example\n   ann/\n"
    loaded = config(tmp_path, KNOWN, accounts=accounts)
    assert loaded.warnings == ()
    assert loaded.policy.table.known == {"joe@x.example", "ann@x.example"}
    assert targets(loaded, "joe@x.example") is None
    assert targets(loaded, "nobody@x.example") == ("a@crm.example",)


def test_a_target_or_mailbox_with_an_account_is_no_loop(tmp_path: Path) -> None:
    text = KNOWN.replace("a@crm.example", "desk@x.example") + "    unrouted_to: it@x.example\n"
    loaded = config(tmp_path, text, accounts="desk@x.example\nit@x.example\n")
    assert loaded.warnings == ()


def test_accounts_that_nobody_asks_for_are_odd(tmp_path: Path) -> None:
    text = HEAD + "known_recipients: accounts\n"
    loaded = config(tmp_path, text, accounts="joe@x.example\n")
    expected = (
        'crm-milter.yaml:4: warning: known_recipients: has no effect: no rule uses "apply_to"'
    )
    assert warnings(loaded, tmp_path) == [expected]


@pytest.mark.parametrize(("apply_to", "says"), [("known", "not listed"), ("unknown", "listed")])
def test_an_address_that_its_condition_excludes_is_odd(
    tmp_path: Path, apply_to: str, says: str
) -> None:
    address = {"known": "nobody@x.example", "unknown": "joe@x.example"}[apply_to]
    text = KNOWN.replace("'@x.example'", address).replace("unknown", apply_to)
    (warning,) = warnings(config(tmp_path, text, accounts="joe@x.example\n"), tmp_path)
    assert warning.endswith(
        f'"{address}" is {says} in "known_recipients", so the rule never applies to it'
    )


def rules(*names: str) -> str:
    return "rules:\n" + "".join(
        f"  - {{name: {name}, match: {name}@x.example, replace_with: {name}@crm.example}}\n"
        for name in names
    )


def test_included_rules_come_after_in_the_order_of_names(tmp_path: Path) -> None:
    folder = tmp_path / "rules.d"
    folder.mkdir()
    for name, text in {
        "20.yaml": rules("c", "d"),
        "10.yaml": rules("b"),
        "30.yaml": "",
        "40.yaml": "# nothing\n---\nrules:\n",
        ".50.yaml": "no: rules\n",
        "60.yaml~": "no: rules\n",
    }.items():
        (folder / name).write_text(text)
    (tmp_path / "extra").write_text(rules("e"))
    text = HEAD + "include: [extra, rules.d/*.yaml, rules.d/1*.yaml, ./extra]\n" + rules("a")
    loaded = config(tmp_path, text)
    assert loaded.warnings == ()
    assert [rule.name for rule in loaded.policy.table.rules] == ["a", "e", "b", "c", "d"]


def test_paths_are_seen_from_the_file_that_names_them(tmp_path: Path) -> None:
    folder = tmp_path / "rules.d"
    folder.mkdir()
    text = LIST.removeprefix(HEAD)
    (folder / "a.yaml").write_text(text)
    (folder / "list").write_text("a@x.example\n")
    loaded = config(tmp_path, HEAD + "include: rules.d/*.yaml\n" + rules("b"), list="b@x.example\n")
    assert [rule.name for rule in loaded.policy.table.rules] == ["b", "a"]
    assert targets(loaded, "a@x.example") == ("a@crm.example",)


def test_a_pattern_without_files_is_no_mistake_and_a_missing_folder_is(tmp_path: Path) -> None:
    (tmp_path / "rules.d").mkdir()
    assert config(tmp_path, HEAD + "include: rules.d/*.yaml\n").warnings == ()
    with pytest.raises(ConfigError, match="no such file or directory"):
        config(tmp_path, HEAD + "include: rules.de/*.yaml\n")


def test_a_folder_that_may_not_be_read_is_not_taken_for_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path) -> list[str]:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", forbidden)
    with pytest.raises(ConfigError, match="permission denied"):
        config(tmp_path, HEAD + "include: rules.d/*.yaml\n")


def test_an_included_file_that_vanishes_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").symlink_to("nowhere")
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, HEAD + "include: '?.yaml'\n")
    assert str(caught.value) == f"{tmp_path}/a.yaml: no such file or directory"


def test_paths_when_the_configuration_is_named_without_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(LIST)
    (tmp_path / "list").write_text("help\n")
    with pytest.raises(ConfigError) as caught:
        load(Path("c.yaml"))
    assert str(caught.value) == 'list:1: "help" has no domain'
