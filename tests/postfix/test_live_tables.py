"""One SQLite file for crm-milter and for Postfix, which takes what has a row (sqlite_table(5))."""

import re
import threading
from pathlib import Path

import pytest
import routes
from letter import JOE, letter
from serving import run

from lab.base import wait_for

IT = "it@solarmora.com"
CONFIG = """
unrouted_to: it@solarmora.com
spam: rspamd
rules:
  - {name: tenants, address_map: 'sqlite:TENANTS'}
"""
PAGE = Path(__file__).parents[2] / "docs/tables.md"
QUERY = "dbpath = {}\n" + re.findall(r"^query = .*\n", PAGE.read_text(), re.MULTILINE)[0]


@pytest.fixture
def site(make_lab, tmp_path):
    """A Postfix whose domain has only the addresses of the table, and that mailbox."""
    for each in (tmp_path, *tmp_path.parents):
        if str(each).startswith("/tmp/"):
            each.chmod(0o755)
    csv, path, asked = (tmp_path / each for each in ("t.csv", "tenants.db", "tenants.cf"))
    csv.write_text("help@acme.example,case-1@crm.example\n@shop.example,shop@crm.example\n")
    assert run("load", csv, path).returncode == 0
    path.chmod(0o644)
    asked.write_text(QUERY.format(path))
    asked.chmod(0o644)
    lab = make_lab(
        CONFIG.replace("TENANTS", str(path)),
        main={
            "virtual_alias_maps": f"proxy:sqlite:{asked}",
            "virtual_alias_domains": "acme.example, shop.example, new.example",
        },
    )
    lab.path = path
    return lab


SPAM = "X-Spam-Flag: YES"


def send(site, recipient, *fields):
    outcome = site.send(JOE, [f"<{recipient}>"], letter(*fields))
    return outcome.sent, outcome.recipients


def test_a_row_counts_for_both_at_the_next_message(site):
    assert send(site, "help@acme.example")[1] == ["case-1@crm.example"]
    assert send(site, "any@shop.example")[1] == ["shop@crm.example"]
    assert send(site, "help@acme.example", SPAM)[1] == [IT]
    assert send(site, "new@new.example")[0].rcpt_replies[0].code == 550
    routes.add(site.path, "New@new.example", "new@crm.example")
    assert send(site, "new@new.example")[1] == ["new@crm.example"]
    routes.execute(
        site.path, "UPDATE routes SET target = 'b@crm.example' WHERE address LIKE 'new%'"
    )
    assert send(site, "NEW@New.Example")[1] == ["b@crm.example"]
    routes.execute(site.path, "DELETE FROM routes WHERE address LIKE 'new%'")
    assert send(site, "new@new.example")[0].rcpt_replies[0].code == 550


def test_mail_is_taken_or_put_off_while_the_table_is_loaded_again_and_again(site):
    """Postfix itself answers 451 if its look-up meets a lock; nothing is refused or goes astray."""
    lines = [f"u{number}@acme.example,u{number}@crm.example" for number in range(3000)]
    stop, loads = threading.Event(), []

    def load():
        while not stop.is_set():
            changed = [*lines, f"help@acme.example,case-{len(loads)}@crm.example"]
            site.path.with_suffix(".csv").write_text("\n".join(changed))
            loads.append(run("load", "--force", site.path.with_suffix(".csv"), site.path))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        codes = set()
        number = 0
        while number < 150 or len(loads) < 3:
            codes.add(site.send(JOE, ["<help@acme.example>"], letter(), wait=False).sent.reply.code)
            number += 1
    finally:
        stop.set()
        thread.join()
    assert {250} <= codes <= {250, 451}
    wait_for(
        "mail is taken",
        lambda: (
            site.send(JOE, ["<help@acme.example>"], letter(), wait=False).sent.reply.code == 250
        ),
        90,
    )
    assert {each.returncode for each in loads} == {0}
