"""import: what is read, what is written, and what is said of the lines that are not understood."""

import re

import pytest

from crm_milter.cli.main import main
from crm_milter.config import atomic
from crm_milter.config.load import load

CRM = "support@acme.zendesk.com"


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Import texts as the files virtual, virtual2, ...; return status, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*texts: str | bytes, options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        names = [f"virtual{number or ''}" for number in range(len(texts))]
        for name, text in zip(names, texts, strict=True):
            data = text if isinstance(text, bytes) else text.encode()
            (tmp_path / name).write_bytes(data)
        status = main(["import", *names, *options])
        return (status, *capsys.readouterr())

    return run


@pytest.fixture
def rules(run, tmp_path, capsys):
    """Import and load what was written: each address, or pattern, with its targets and copies."""

    def rules(*texts: str | bytes, options: tuple[str, ...] = ()) -> dict[str, str]:
        status, out, err = run(*texts, options=(*options, "--write", str(tmp_path)))
        assert (status, err) == (0, ""), out
        config = load(tmp_path / "imported.yaml")
        found = {}
        for rule in config.policy.table.rules:
            copies = "".join(f" +{copy.address}" for copy in rule.copies)
            for pattern in rule.match:
                found[str(pattern)] = f"{rule.replace_with and rule.replace_with.source}{copies}"
            for key, targets in rule.address_map.targets.items() if rule.address_map else ():
                found[key] = ",".join(targets)
        return found

    return rules


@pytest.mark.parametrize(
    "text",
    [
        f"help@a.example {CRM}\n",
        f"help@a.example\t{CRM}\n",  # postmap -s
        f"help@a.example\n\t{CRM}\n",
        f"# comment\n\nhelp@a.example\n# between\n\n   {CRM}",
        f"Help@A.Example  {CRM}\r\n",
        f"\ufeffhelp@a.example {CRM}\n",
        f"a.example domain\nhelp@a.example {CRM}\n",
        f"help@a.example,{CRM}\n",
        f"address,target\nhelp@a.example,{CRM}\n",
        f"\ufeffAdresse;Ziel\r\nhelp@a.example;{CRM}\r\n",
        f'"help@a.example","{CRM}"\n',
        f'"help@a.example"\t"{CRM}"\n',
        f"help@a.example , {CRM}\n",
        f"\nhelp@a.example,{CRM},,\n",
        f"source|destination\nhelp@a.example|{CRM}\n",
        f"Address,Target\r\nhelp@a.example,{CRM}\r\n".encode("utf-16"),
        f"other@a.example x@a.example\nx@a.example it@b.example\nhelp@a.example {CRM}\n",
        f"help@a.example {CRM}\nhelp@a.example it@b.example\n",
    ],
)
def test_one_address(rules, text):
    assert rules(text) == {"help@a.example": CRM}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"h@a.example it@a.example, {CRM} boss@b.example", f"{CRM} +it@a.example +boss@b.example"),
        (f"h@a.example {CRM},other@acme.zendesk.com", f"{CRM} +other@acme.zendesk.com"),
        (f"h@a.example h@a.example,{CRM}", f"None +{CRM}"),
        (f'h@a.example,"{CRM}, it@b.example"', f"{CRM} +it@b.example"),
        (f'h@a.example;"{CRM};it@b.example"', f"{CRM} +it@b.example"),
        ("h@a.example,team@my-crm.example", "team@my-crm.example"),  # a list is meant as it is
        (f"h@a.example h2@a.example\nh2@a.example {CRM}", CRM),
        (f"h@a.example h2@a.example x@b.example\nh2@a.example {CRM}", f"{CRM} +x@b.example"),
    ],
)
def test_targets(rules, text, expected):
    assert rules(text)["h@a.example"] == expected


def test_a_name_without_a_domain(run, rules):
    text = f"help@a.example {CRM}, team\n"
    status, _, err = run(text)
    assert status == 1
    assert err.startswith('crm-milter: virtual:1: "team" has no domain; use --origin DOMAIN')
    assert rules(text, options=("--origin", "a.example")) == {
        "help@a.example": f"{CRM} +team@a.example"
    }


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("help", '"help" has no target'),
        ("x@a.example", '"x@a.example" has no target'),
        ("nobody x@b.example", '"nobody" has no domain; use --origin DOMAIN'),
        ("x@a.example x@b.example # why", "a comment must be on a line of its own"),
        ("x@a.example |/usr/bin/procmail", '"|/usr/bin/procmail" is a command or a file'),
        ("x@a.example :include:/etc/list", '":include:/etc/list" is a command or a file'),
        (r"/^case-(\d+)@a\.example$/ c$1@b.example", "is a regular expression"),
        ("!/@b\\.example$/ c@b.example", "is a regular expression"),
        ("if /@a\\.example$/", "regular expression"),
        ("help: x@b.example", '"help:" is a line of aliases(5)'),
        ("case-*@a.example x@b.example", 'the "*" in "case-*@a.example" is not supported'),
        ("x@a_b@c x@b.example", "looks like several"),
        (f"{CRM} help@a.example", f'"{CRM}" is an address of Zendesk'),
        ("x@a.example x@.example", "not a valid domain"),
    ],
)
def test_a_line_that_is_not_understood(run, line, why):
    status, out, err = run(
        f"help@a.example {CRM}\n{line}\n", options=("--unrouted-to", "it@a.example")
    )
    assert status == 1
    assert re.match(r"crm-milter: virtual:2: ", err)
    assert why.replace("has no target", "has no") in err
    assert "match: help@a.example" in out  # the others are there all the same


def test_lines_that_are_not_understood_in_a_list(run):
    text = b"address,target\nhelp@a.example,t@crm.example\n"
    text += b"x@a.example\nx,y,z\n\xff@a.example,t@crm.example\n"
    status, out, err = run(text)
    assert status == 1
    assert err.splitlines() == [
        "crm-milter: virtual:3: expected two columns, found 1",
        "crm-milter: virtual:4: expected two columns, found 3",
        "crm-milter: virtual:5: not valid UTF-8; save the file as UTF-8",
    ]
    assert "match: help@a.example" in out


def test_a_file_that_is_not_there(capsys):
    assert main(["import", "/nowhere/virtual"]) == 1
    assert capsys.readouterr().err == "crm-milter: /nowhere/virtual: no such file or directory\n"


def test_nothing_that_leads_to_a_crm_says_what_might(run, rules):
    text = "help@a.example h@crm.example\nsales@a.example s@eu.crm.example\n"
    text += "x@a.example help@a.example\n"
    status, out, err = run(text)
    assert (status, out) == (1, "")
    assert err == (
        "crm-milter: no entry leads to a known CRM; if the CRM is one of these, use --crm DOMAIN:"
        " crm.example, eu.crm.example\n"
    )
    found = rules(text, options=("--crm", "crm.example"))
    assert found == {
        "help@a.example": "h@crm.example",
        "x@a.example": "h@crm.example",
        "sales@a.example": "s@eu.crm.example",
    }


def test_an_address_at_a_crm_that_is_no_address_for_cases(run):
    status, _, err = run("boss@a.example jane@salesforce.com\n")
    assert (status, "salesforce.com" in err) == (1, True)


def test_what_to_remove_and_to_add(run):
    first = f"help@a.example {CRM}\nit@a.example x@b.example\nboth@a.example both@a.example,{CRM}\n"
    second = f"help@a.example other@acme.zendesk.com\n@shop.example {CRM}\n"
    _, out, _ = run(first, second, options=("--unrouted-to", "it@a.example"))
    comments = [line for line in out.splitlines() if line.startswith("#")]
    assert comments == [
        "# dead_letters: ADDRESS    # a mailbox for the mail that the CRM rejects",
        "# Remove from virtual when the rules are live (entries to keep: 1):",
        f"#   line 1: help@a.example  {CRM}",
        f"#   line 3: both@a.example  both@a.example, {CRM}",
        "# Remove from virtual1 when the rules are live (entries to keep: 0):",
        "#   line 1: help@a.example  other@acme.zendesk.com",
        f"#   line 2: @shop.example  {CRM}",
        "# Add there, so that Postfix goes on accepting these addresses:",
        "#   both@a.example  both@a.example",
        "#   @shop.example  it@a.example",
    ]


def test_many_addresses_become_a_table(rules, tmp_path):
    text = "".join(f"agent{n}@a.example,case-{n}@acme.zendesk.com\n" for n in range(20))
    found = rules(text + f"help@a.example,{CRM} it@a.example\n")
    assert found["agent7@a.example"] == "case-7@acme.zendesk.com"
    assert found["help@a.example"] == f"{CRM} +it@a.example"
    assert len((tmp_path / "imported-addresses").read_text().splitlines()) == 20


def test_names_and_addresses_are_quoted_where_yaml_needs_it(rules):
    odd = ["no@a.example", "123@a.example", "ünï@a.example", "%x@a.example", "o'neill@a.example"]
    text = "".join(f"{each} {CRM}, c{n}@b.example\n" for n, each in enumerate(odd))
    text += f'"john doe"@a.example {CRM}\n'
    found = rules(text)
    assert list(found) == [*odd, "john doe@a.example"]


def test_a_key_with_a_blank_as_postmap_shows_it(rules):
    assert rules(f"help@a.example\t{CRM}\njohn doe@a.example\t{CRM}\n") == {
        "help@a.example": CRM,
        "john doe@a.example": CRM,
    }


def test_what_is_printed_is_a_configuration_as_it_stands(run, tmp_path):
    text = f"help@a.example {CRM}, it@a.example\n"
    _, out, _ = run(text, options=("--unrouted-to", "it@b.example"))
    (tmp_path / "printed.yaml").write_text(out)
    config = load(tmp_path / "printed.yaml")
    assert config.unrouted_to == "it@b.example"
    assert [rule.name for rule in config.policy.table.rules] == ["help"]


def test_no_file_is_overwritten(run, tmp_path):
    (tmp_path / "imported.yaml").write_text("mine")
    status, _, err = run(f"help@a.example {CRM}\n", options=("--write", str(tmp_path)))
    assert (status, err) == (1, f"crm-milter: {tmp_path}/imported.yaml: file exists\n")
    assert (tmp_path / "imported.yaml").read_text() == "mine"


def test_a_missing_directory_is_made_and_its_parent_is_not(run, tmp_path):
    table = f"help@a.example {CRM}\n"
    assert run(table, options=("--write", str(tmp_path / "new")))[0] == 0
    assert load(tmp_path / "new" / "imported.yaml").policy.table.rules
    status, _, err = run(table, options=("--write", str(tmp_path / "a" / "b")))
    assert (status, err) == (1, f"crm-milter: {tmp_path}/a/b: no such file or directory\n")


@pytest.mark.parametrize("kind", ["hash", "lmdb", "proxy:btree", "texthash", "proxy:cdb"])
def test_a_table_may_be_named_as_in_main_cf(run, tmp_path, capsys, kind):
    (tmp_path / "virtual").write_text(f"help@a.example {CRM}\n")
    assert main(["import", f"{kind}:{tmp_path}/virtual"]) == 0
    assert f"# Remove from {tmp_path}/virtual when the rules are live" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["pcre", "mysql", "inline"])
def test_a_table_that_is_no_list_of_entries_is_not_read(run, tmp_path, capsys, kind):
    (tmp_path / "virtual").write_text(f"help@a.example {CRM}\n")
    assert main(["import", f"{kind}:{tmp_path}/virtual"]) == 1
    assert "no such file or directory" in capsys.readouterr().err


def test_no_file_is_written_if_one_cannot_be(run, tmp_path):
    (tmp_path / "imported-accounts").write_text("mine")
    options = ("--write", str(tmp_path), "--unrouted-to", "it@a.example")
    before = sorted(tmp_path.iterdir())
    status, out, err = run(f"@a.example {CRM}\nit@a.example it@b.example\n", options=options)
    assert (status, out) == (1, "")
    assert err == f"crm-milter: {tmp_path}/imported-accounts: file exists\n"
    assert {each.name for each in tmp_path.iterdir()} - {each.name for each in before} <= {
        "virtual"
    }
    assert (tmp_path / "imported-accounts").read_text() == "mine"


def test_new_files_are_all_there_or_none(tmp_path):
    files = {tmp_path / name: name.encode() for name in ("a", "b", "c")}
    (tmp_path / "c").write_text("mine")
    with pytest.raises(FileExistsError):
        atomic.create(files)
    assert [each.name for each in tmp_path.iterdir()] == ["c"]
    (tmp_path / "c").unlink()
    with pytest.raises(FileNotFoundError):
        atomic.create({**files, tmp_path / "nowhere" / "d": b""})
    assert not list(tmp_path.iterdir())
    atomic.create(files)
    assert sorted(each.read_text() for each in tmp_path.iterdir()) == ["a", "b", "c"]


def test_circles_and_odd_files_end(run):
    for text in (
        "a@x.example b@x.example\nb@x.example a@x.example\n",
        "",
        "\n\n",
        "#\n",
        b"\xff\xfe",
    ):
        assert run(text)[0] == 1


@pytest.mark.parametrize("name", ["true", "false", "null"])
def test_a_name_that_means_something_else_in_yaml(rules, name):
    assert rules(f"{name}@a.example {CRM}\n") == {f"{name}@a.example": CRM}


@pytest.mark.parametrize("local", ["!x", "#x", "&x", "*x", "{x", "'x", "%x", "|x", "`x"])
def test_a_fallback_mailbox_that_needs_quotes(rules, tmp_path, local):
    address = f"{local}@a.example"
    assert rules(f"help@a.example {CRM}\n", options=("--unrouted-to", address))
    assert load(tmp_path / "imported.yaml").unrouted_to == address


TANGLES = {
    "long": [(f"a{each}", [f"a{each + 1}"]) for each in range(1200)] + [("a1200", [CRM])],
    "doubled": [
        (f"{letter}{each}", [f"a{each + 1}", f"b{each + 1}"])
        for each in range(20)
        for letter in "ab"
    ] + [("a20", [CRM]), ("b20", [CRM])],
    "circles": [
        (f"a{each}", [*(f"a{other}" for other in range(9) if other != each), CRM])
        for each in range(9)
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", TANGLES)
def test_entries_that_lead_on_and_on_are_named(run, kind):
    table = [(key, [t if "@" in t else f"{t}@a.example" for t in to]) for key, to in TANGLES[kind]]
    text = "".join(f"{key}@a.example {', '.join(to)}\n" for key, to in table)
    status, out, err = run(f"{text}help@a.example {CRM}\n")
    assert status == 1
    assert 'virtual:1: "a0@a.example" leads to a CRM by way of too many entries' in err
    assert "match: [" in out or "match: help@a.example" in out


def test_a_quotation_mark_that_is_missing(run):
    status, out, err = run(f'a@a.example,"{CRM}\nb@a.example,other@acme.zendesk.com\n')
    assert (status, out) == (1, "")
    assert "is a quotation mark missing?" in err
