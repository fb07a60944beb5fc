"""`map --write`: the table on disk, compiled, replaced in one step, and only where it changed."""

import pytest
from planted import CRM, HELP, IT, RULES, Planted

from lab import smtp

BOSS = "boss@elsewhere.example"


def query(site: Planted, kind: str = "hash") -> str:
    table = f"{kind}:{site.postfix.config}/crm-milter-aliases"
    return site.postfix.run("postmap", "-q", HELP, table).stdout.decode().strip()


def files(site: Planted) -> dict[str, int]:
    """The files of the table; their inodes tell whether they were replaced."""
    found = site.postfix.config.glob(".*") or ()
    return {
        path.name: path.stat().st_ino
        for path in (*site.postfix.config.glob("crm-milter-aliases*"), *found)
    }


def test_written_once_and_again_only_after_a_change(site):
    site.reset()
    before = files(site)
    assert sorted(before) == ["crm-milter-aliases", "crm-milter-aliases.db"]
    assert query(site) == IT
    done = site.run("map", "--write")
    table = f"hash:{site.postfix.config}/crm-milter-aliases"
    assert (done.returncode, done.stdout) == (0, f"{table}: unchanged, 1 entry\n")
    assert files(site) == before
    site.yaml.write_text(site.yaml.read_text().replace(IT, BOSS))
    done = site.run("map", "--write")
    assert (done.returncode, done.stdout) == (0, f"{table}: written, 1 entry\n")
    assert query(site) == BOSS
    after = files(site)
    assert sorted(after) == sorted(before)
    assert all(after[name] != before[name] for name in before)


def test_the_table_is_what_map_prints(site):
    site.reset()
    assert (site.postfix.config / "crm-milter-aliases").read_text() == site.run("map").stdout


def test_a_table_that_is_not_compiled_is_compiled(site):
    site.reset()
    site.postfix.config.joinpath("crm-milter-aliases.db").unlink()
    assert ": written, " in site.run("map", "--write").stdout
    assert query(site) == IT


@pytest.mark.parametrize("kind", ["btree", "texthash"])
def test_the_type_that_main_cf_names(site, kind):
    site.reset(main={"virtual_alias_maps": f"{kind}:$config_directory/crm-milter-aliases"})
    site.postfix.config.joinpath("crm-milter-aliases").unlink()
    done = site.run("map", "--write")
    assert done.stdout.startswith(f"{kind}:{site.postfix.config}/crm-milter-aliases: written")
    assert query(site, kind) == IT


def test_the_default_type_of_this_postfix_if_it_is_indexed(site):
    maps = "texthash:$config_directory/virtual"
    for default, kind in {"btree": "btree", "regexp": "hash"}.items():
        site.reset(main={"virtual_alias_maps": maps, "default_database_type": default})
        assert site.run("map", "--write").stdout.startswith(f"{kind}:")


def test_a_running_postfix_takes_the_new_table_without_a_reload(site):
    site.reset(main={"smtpd_milters": "", "non_smtpd_milters": ""})
    site.postfix.settings.main["smtpd_milters"] = ""
    site.postfix.settings.services = {}
    site.postfix.reload()
    for mailbox in (IT, BOSS):
        site.yaml.write_text(site.yaml.read_text().replace(IT, mailbox))
        site.run("map", "--write")
        site.postfix.sink.clear()
        message = b"Subject: a\n\nb\n"
        sent = smtp.send(site.postfix.port, "<anna@a.example>", [f"<{HELP}>"], message)
        assert sent.reply.code == 250
        site.postfix.wait_empty_queue()
        assert site.postfix.sink.recipients == [mailbox]


def test_no_mailbox_no_table(site):
    site.reset()
    before = files(site)
    text = site.yaml.read_text()
    site.yaml.write_text("".join(line for line in text.splitlines(True) if "unrouted" not in line))
    done = site.run("map", "--write")
    assert done.returncode == 1
    assert 'rule "support" needs an "unrouted_to"' in done.stderr
    assert files(site) == before


def test_more_rules(site):
    site.reset(f"{RULES}  - {{name: sales, match: sales@solarmora.com, replace_with: {CRM}}}\n")
    assert site.run("map", "--write").stdout.endswith(": unchanged, 2 entries\n")
    assert site.findings() == []


def several(*names: str) -> str:
    listed = ", ".join(f"{name}@solarmora.com" for name in names)
    return f"rules: [{{name: a, match: [{listed}], replace_with: {CRM}}}]\n"


def rewrite(site: Planted, rules: str) -> None:
    head, _, _ = site.yaml.read_text().partition("rules:")
    site.yaml.write_text(head + rules)


@pytest.mark.parametrize(
    "rules",
    [
        "",
        "rules: []\n",
        several("a", "b", "c"),
        several("x"),
        f"rules: [{{name: a, match: 'case-*@solarmora.com', replace_with: {CRM}}}]\n",
        f"rules: [{{name: a, match: a@solarmora.com, also_deliver_to: {BOSS}}}]\n",
    ],
)
def test_a_table_is_not_emptied_or_shrunk_by_more_than_a_third_unasked(site, rules):
    site.reset(several("a", "b", "c", "d", "e"))
    before = files(site)
    rewrite(site, rules)
    done = site.run("map", "--write")
    assert (done.returncode, done.stdout) == (1, "")
    assert "would shrink from 5 to " in done.stderr
    assert files(site) == before
    # The compiled table alone is what Postfix asks.
    (site.postfix.config / "crm-milter-aliases").unlink()
    assert site.run("map", "--write").returncode == 1
    assert site.run("map", "--write", "--force").returncode == 0
    assert files(site) != before


def test_a_table_may_shrink_by_a_third_and_be_another_of_the_same_size(site):
    site.reset(several("a", "b", "c"))
    for rules in (several("x", "y", "z"), several("x", "y")):
        rewrite(site, rules)
        assert site.run("map", "--write").returncode == 0
    table = (site.postfix.config / "crm-milter-aliases").read_text()
    assert table.splitlines()[1:] == [f"{each}@solarmora.com  {IT}" for each in "xy"]


def test_an_unreadable_table_is_not_written_over(site):
    site.reset()
    source = site.postfix.config / "crm-milter-aliases"
    source.unlink()
    source.mkdir()
    done = site.run("map", "--write")
    assert done.returncode == 1
    assert "is a directory" in done.stderr
    source.rmdir()
