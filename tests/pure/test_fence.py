"""Included files with a fence: their rules match no address outside of their domains."""

import pytest
import routes

from crm_milter.config.load import ConfigError, load
from crm_milter.dryrun.decided import DryRun, Mail
from crm_milter.rules.fence import outside
from crm_milter.rules.pattern import parse

DOMAINS = frozenset({"acme.example", "xn--bcher-kva.example"})
HEAD = "spam: rspamd\nunrouted_to: it@solarmora.com\n"
INCLUDE = "include: [{files: tenants/*.yaml, domains: [Acme.example, bücher.example]}]\n"
INSIDE = [
    *("help@acme.example", "HELP@Acme.Example", "case-*@acme.example", "@acme.example"),
    *("info@bücher.example", "@bücher.example", "@xn--bcher-kva.example", '"a@b"@acme.example'),
    *(r"/.*@acme\.example/", r"/(a|b)@acme\.example$/", r"/[[:alpha:](]+@acme\.example/"),
    *(r"/x\|y@acme\.example/", r"/[|]@acme\.example/", r"/(?P<n>a|b)@Acme\.example/"),
]
OUTSIDE = {
    "help@other.example": "other.example",
    "@other.example": "other.example",
    "@example": "example",
    "@sub.acme.example": "sub.acme.example",
    "case-*@acme.example.org": "acme.example.org",
    "*": '"@DOMAIN"',
    r"/.*@acme.example/": 'stands for any character; write "\\."',
    r"/.*@other\.example/": "other.example",
    r"/.*/": "has to end",
    r"/.*@.*/": "has to end",
    r"/.*@acme\.example.*/": "has to end",
    r"/.*@(acme|other)\.example/": "has to end",
    r"/.*@[a-z]*\.acme\.example/": "has to end",
    r"/.*@acme\.example?/": "has to end",
    r"/(.*@acme\.example)/": "has to end",
    r"/x@other\.example|y@acme\.example/": "into a group",
    r"/.*|y@acme\.example/": "into a group",
    r"/[[:alpha:](]+.*|x@acme\.example/": "into a group",
    r"/\(.*|x@acme\.example/": "into a group",
    r"/[\](].*|x@acme\.example/": "into a group",
    r"/\Q(\E.*|x@acme\.example/": "\\Q",
    r"/x@acme\.example\z|.*/": "into a group",
}


@pytest.mark.parametrize("text", INSIDE)
def test_inside(text):
    assert outside(parse(text), DOMAINS) == ""


@pytest.mark.parametrize("text", OUTSIDE)
def test_outside(text):
    assert OUTSIDE[text] in outside(parse(text), DOMAINS)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tenants").mkdir()
    (tmp_path / "crm-milter.yaml").write_text(HEAD + INCLUDE)
    return tmp_path


def rules(folder, text, **files):
    (folder / "tenants" / "acme.yaml").write_text(f"rules:\n  - {{name: acme, {text}}}\n")
    for name, content in files.items():
        (folder / "tenants" / name).write_text(content)
    return load(folder / "crm-milter.yaml").policy.table


TARGET = "replace_with: x@crm.example, also_deliver_to: [copy@elsewhere.example]"


def test_targets_copies_and_senders_are_free(folder):
    table = rules(folder, f"match: help@acme.example, {TARGET}, senders: '@world.example'")
    assert [rule.name for rule in table.rules] == ["acme"]


@pytest.mark.parametrize("text", OUTSIDE)
def test_a_pattern_that_may_match_outside_is_refused_with_its_line(folder, text):
    with pytest.raises(ConfigError) as caught:
        rules(folder, f"match: [help@acme.example, '{text}'], also_deliver_to: c@x.example")
    message = str(caught.value)
    assert f"{folder}/tenants/acme.yaml:2: rules[0].match[1]: " in message
    assert "may match addresses outside of acme.example, xn--bcher-kva.example: " in message
    assert OUTSIDE[text] in message


@pytest.mark.parametrize("line", ["x@other.example", "@other.example", "x@sub.acme.example"])
def test_files_of_addresses_are_inside(folder, line):
    inside = "help@acme.example\n"
    assert rules(folder, f"match: 'file:list', {TARGET}", list=inside).rules
    table = "help@acme.example x@crm.example\n"
    assert rules(folder, "address_map: table", table=table).rules
    with pytest.raises(ConfigError, match="outside of"):
        rules(folder, "address_map: table", table=f"{table}{line} x@crm.example\n")
    if not line.startswith("@"):
        with pytest.raises(ConfigError, match="outside of"):
            rules(folder, f"match: 'file:list', {TARGET}", list=f"{inside}{line}\n")


def test_rows_outside_are_not_there(folder):
    rows = [("a@acme.example", "x@crm.example"), ("a@other.example", "x@crm.example")]
    routes.database(folder / "tenants" / "t.db", rows)
    table = rules(folder, "address_map: 'sqlite:t.db'")
    assert table.match("a@acme.example").targets() == ("x@crm.example",)
    assert table.match("a@other.example") is None
    routes.execute(folder / "tenants" / "t.db", "DROP TABLE routes")
    assert table.match("a@other.example") is None


def test_rules_elsewhere_are_not_fenced(folder):
    text = f"{HEAD}{INCLUDE}rules:\n  - {{name: all, match: '@other.example', {TARGET}}}\n"
    (folder / "crm-milter.yaml").write_text(text)
    assert len(rules(folder, f"match: help@acme.example, {TARGET}").rules) == 2


@pytest.mark.parametrize(
    ("include", "words"),
    [
        ("[tenants/*.yaml, {files: tenants/acme.yaml, domains: [acme.example]}]", "other domains"),
        ("[{files: tenants/acme.yaml, domains: [acme.example]}, tenants/*.yaml]", "other domains"),
        ("[{files: tenants/*.yaml}]", "domains"),
        ("[{domains: [acme.example]}]", "files"),
        ("[{files: tenants/*.yaml, domains: []}]", "domains"),
        ("[{files: tenants/*.yaml, domains: ['@acme.example']}]", "domains"),
        ("[{files: tenants/*.yaml, domains: ['*.example']}]", "domains"),
        ("{files: nowhere.yaml, domains: acme.example}", "no such file"),
    ],
)
def test_a_fence_that_is_none(folder, include, words):
    (folder / "crm-milter.yaml").write_text(f"{HEAD}include: {include}\n")
    with pytest.raises(ConfigError) as caught:
        rules(folder, f"match: help@acme.example, {TARGET}")
    assert words in str(caught.value)


def test_a_single_include_with_a_fence(folder):
    include = "include: {files: [tenants/acme.yaml], domains: acme.example}\n"
    (folder / "crm-milter.yaml").write_text(HEAD + include)
    assert rules(folder, f"match: help@acme.example, {TARGET}").rules


def test_a_class_with_a_parenthesis_hides_no_alternative(tmp_path):
    expression = r"/[[:alpha:](]+.*|x@acme\.example/"
    rule = f"rules:\n  - {{name: a, match: '{expression}', replace_with: x@crm.example}}\n"
    (tmp_path / "crm-milter.yaml").write_text(HEAD + rule)
    with pytest.raises(ConfigError, match="does not end in a domain"):
        load(tmp_path / "crm-milter.yaml")


def test_a_group_ends_at_the_fence(folder):
    """Otherwise a tenant's rule would take the mail of another that uses the same name."""
    other = "include: [{files: tenants/acme.yaml, domains: [acme.example]},"
    other += " {files: tenants/other.yaml, domains: [other.example]}]\n"
    (folder / "crm-milter.yaml").write_text(HEAD + other)
    for name in ("acme", "other"):
        match = f"match: [help@{name}.example, info@{name}.example]"
        rule = f"{{name: {name}, {match}, replace_with: {name}@crm.example, case_group: cases}}"
        rest = f"{{name: {name}2, match: '@{name}.example', replace_with: {name}2@crm.example,"
        text = f"rules:\n  - {rule}\n  - {rest} case_group: cases}}\n"
        (folder / "tenants" / f"{name}.yaml").write_text(text)
    recipients = ["help@acme.example", "help@other.example", "x@other.example"]
    rules = DryRun(load(folder / "crm-milter.yaml").policy)
    decision = rules.decided(Mail("joe@x.example", recipients, b"Subject: x\n\n")).decision
    assert [each.action.value for each in decision.outcomes] == ["rerouted", "rerouted", "merged"]
