"""`check --postfix` and addresses of a table in SQLite: does Postfix take mail for them?"""

import pytest
import routes
from planted import Planted

RULES = "rules:\n  - {name: tenants, address_map: 'sqlite:TABLE'}\n"
ROW = ("help@solarmora.com", "case-1@crm.example")


def found(site: Planted, rows, rules: str = RULES, **main: str) -> list[dict[str, str]]:
    for each in (site.folder, *site.folder.parents):
        if str(each).startswith("/tmp/"):
            each.chmod(0o755)
    path = site.folder / "tenants.db"
    path.unlink(missing_ok=True)
    routes.database(path, rows)
    path.chmod(0o644)
    mailboxes = "it@solarmora.com x\nanna@solarmora.com x\n"
    site.reset(rules.replace("TABLE", str(path)), main, mailboxes=mailboxes)
    return site.findings()


def test_an_address_that_postfix_does_not_know_is_found_and_the_advice_helps(site):
    rows = [ROW, ("@shop.example", "shop@crm.example"), ("anna@solarmora.com", "a@crm.example")]
    (finding,) = found(site, rows, virtual_alias_domains="shop.example")
    assert (finding["check"], finding["severity"]) == ("address-unknown", "warning")
    assert '"crm-milter-no-such-user@shop.example"' in finding["found"]
    assert '"help@solarmora.com"' in finding["found"]
    assert "anna@" not in finding["found"]  # a mailbox
    site.repair()
    assert site.findings() == []
    routes.add(site.folder / "tenants.db", "New@Solarmora.com", "n@crm.example")
    assert site.findings() == []


def test_domains_that_are_not_ours_are_found(site):
    main = {"virtual_alias_domains": "new.example"}
    (finding,) = found(site, [("a@Shop.example", "a@crm.example")])
    assert (finding["check"], finding["severity"]) == ("address-domain", "warning")
    assert '"shop.example"' in finding["found"]
    site.repair()
    assert site.checks() == ["address-unknown"]
    site.repair()
    assert site.findings() == []
    many = [(f"a@d{n}.example", "a@crm.example") for n in range(60)]
    (finding,) = found(site, many, **main)
    assert "and 47 more" in finding["found"]
    assert "postconf" not in finding["fix"]


@pytest.mark.parametrize("mailbox", ["o'brien@solarmora.com", "50%off@solarmora.com"])
def test_the_mailbox_may_have_characters_of_sql(site, mailbox):
    rules = RULES.replace("}", f', unrouted_to: "{mailbox}"}}')
    path = site.folder / "tenants.db"
    found(site, [ROW], rules)
    site.mailboxes.write_text(f"{mailbox} x\n")
    site.repair()
    assert site.findings() == []
    table = f"sqlite:{site.postfix.config}/crm-milter-tenants.cf"
    assert path.exists()
    assert site.postfix.run("postmap", "-q", ROW[0], table).stdout.decode().strip() == mailbox


@pytest.mark.parametrize(
    ("rows", "rules"),
    [
        ([], RULES),
        ([("anna@solarmora.com", "a@crm.example")], RULES),
        ([("no address", "a@crm.example"), ("*@solarmora.com", "a@crm.example")], RULES),
        ([ROW], RULES.replace("}", ", mode: test}")),
    ],
)
def test_nothing_is_found_where_nothing_is_rejected(site, rows, rules):
    assert found(site, rows, rules) == []


def test_a_table_that_is_gone_is_no_finding_of_postfix(site):
    found(site, [ROW])
    (site.folder / "tenants.db").unlink()
    assert site.run("check", "--postfix").returncode != 0
