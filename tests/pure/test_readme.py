"""What the README and the pages of docs/ show is so: configurations, commands, keys and links."""

import re
from pathlib import Path

import pytest

from crm_milter.cli.main import _parser
from crm_milter.config.load import Config, parse
from crm_milter.rules.conditions import Occasion

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = sorted([README, ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/*.md")])
BLOCKS = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)
SHIPPED = "usr/share/doc/crm-milter/"
CODE = r"```.*?```|`[^`\n]+`"
LINK = re.compile(r"\]\(([^)#\s]+)\)")


@pytest.fixture
def example(tmp_path: Path) -> Config:
    """The larger configuration, with the file of accounts that it names."""
    names = ("anna", "it", "oncall", "team")
    (tmp_path / "accounts").write_text("".join(f"{each}@solarmora.com x\n" for each in names))
    return parse(BLOCKS[1], tmp_path / "crm-milter.yaml")


def test_the_first_configuration_is_right_without_a_warning():
    assert len(BLOCKS) == 2
    first = parse(BLOCKS[0], README)
    assert first.warnings == ()
    assert (first.unrouted_to, len(first.policy.table.rules)) == ("it@solarmora.com", 1)


def test_the_example_is_valid(example):
    assert example.unrouted_to == "it@solarmora.com"


@pytest.mark.parametrize(
    ("recipient", "sender", "rule", "target"),
    [
        ("help@", "joe@bigcustomer.example", "vip", "vip@"),
        ("help@", "joe@customer.example", "catch-all", "support@"),
        ("sales@", "joe@customer.example", "sales", "leads@"),
        ("report-spam@", "joe@customer.example", "abuse-reports", "reports@"),
        ("case-7@", "joe@customer.example", "cases", "case.7@"),
        ("former@", "joe@customer.example", "catch-all", "support@"),
    ],
)
def test_the_example_does_what_its_comments_say(example, recipient, sender, rule, target):
    address = f"{recipient}solarmora.com"
    match = example.policy.table.match(address, Occasion(sender), address)
    assert match.rule.name == rule
    assert match.targets() == (f"{target}v1su0245ewejzhe7.case.my-crm.com",)


def test_the_catch_all_of_the_example_leaves_accounts_alone(example):
    account = "anna@solarmora.com"
    assert example.policy.table.match(account, Occasion("joe@customer.example"), account) is None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_that_a_page_names_is_there(page):
    known = next(a for a in _parser()._actions if a.choices).choices
    for code in re.findall(CODE, page.read_text(), re.DOTALL):
        for command, rest in re.findall(r"crm-milter ([a-z]+)([^\n`|]*)", code):
            assert command in known
            options = {name for each in known[command]._actions for name in each.option_strings}
            assert set(re.findall(r"(?<=\s)--[a-z-]+", rest.split("#")[0])) <= options


def test_every_link_leads_to_a_file():
    for page in PAGES:
        for link in LINK.findall(page.read_text()):
            assert link.startswith("https://") or (page.parent / link).exists(), (page.name, link)


def test_the_package_ships_what_the_readme_and_its_pages_link_to():
    debian = ROOT / "debian"
    shipped = {ROOT / each for each in (debian / "crm-milter.docs").read_text().split()}
    shipped |= {page for folder in shipped for page in folder.glob("*")}
    for line in (debian / "crm-milter.install").read_text().splitlines():
        *sources, folder = line.split()
        for path in (path for each in sources for path in ROOT.glob(each)):
            shipped.add(ROOT / folder.removeprefix(SHIPPED) / path.name)
    for line in (debian / "crm-milter.links").read_text().splitlines():
        shipped.add(ROOT / line.split()[1].removeprefix(SHIPPED))
    for page in PAGES:
        linked = {(page.parent / link).resolve() for link in LINK.findall(page.read_text())}
        assert linked <= shipped, page.name


def test_the_readme_is_short_and_every_page_is_linked():
    text = README.read_text()
    assert len(text.splitlines()) <= 150
    linked = {README.parent / link for link in LINK.findall(text)}
    assert set(PAGES) - {README} <= linked


def test_no_page_repeats_a_paragraph_of_another():
    seen: dict[str, str] = {}
    for page in PAGES:
        for paragraph in re.split(r"\n\n|\n\|", page.read_text()):
            words = " ".join(paragraph.split())
            if len(words) > 100:
                assert seen.setdefault(words, page.name) == page.name


def test_the_page_on_google_workspace_names_keys_that_are_there():
    rows = (ROOT / "docs/google-workspace.md").read_text().splitlines()[4:]
    named = {word for row in rows for word in re.findall(r"`([a-z]+_?[a-z_]*)(?=[:`])", row)}
    example = (ROOT / "milter/crm-milter.yaml").read_text()
    keys = {word for word in named if re.search(rf"^[# -]*{word}:", example, re.MULTILINE)}
    postfix = {"smtpd_recipient_restrictions", "check_recipient_access", "transport_maps"}
    values = {"reject", "quarantine", "discard"}  # of on_spam
    assert named - keys == postfix | values | {"smtp_tls_policy_maps"}
    assert len(keys) >= 12


def test_every_test_that_proves_a_fact_is_there():
    text = (ROOT / "doc/postfix-milter.md").read_text()
    named = re.findall(r"tests/[\w./-]+\.(?:py|yaml)", text)
    assert len(named) > 50
    assert [each for each in named if not (ROOT / each).exists()] == []


def test_what_code_and_tests_cite_is_in_the_repository():
    cited = 0
    for folder in ("milter", "tests", "postfix", "doc", "prometheus"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".py", ".c", ".yml", ".yaml"):
                for name in re.findall(r"\b[\w-]+/[\w-]+\.md\b", path.read_text(errors="ignore")):
                    cited += 1
                    assert (ROOT / name).exists(), (path, name)
    assert cited > 5
