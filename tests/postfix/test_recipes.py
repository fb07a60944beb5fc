"""The recipes of docs/: moving between help desks, and mail systems as far as they can be rebuilt.

The lines are those of the pages. SQLite stands in for the SQL tables, the milter of spam_filter.py
for rspamd, and the names of containers become addresses of this host.
"""

import re
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from attaching import attach, attachable
from hosts import HOSTS
from letter import HAM, JOE, SPAM, letter
from verifying import mood  # noqa: F401 - a fixture

from lab.base import scratch, wait_for
from lab.whole import Lab

DOCS = Path(__file__).parents[2] / "docs"
IT, HELP, ANNA = "it@solarmora.com", "help@solarmora.com", "anna@solarmora.com"
CRM = "support@v1su0245ewejzhe7.case.my-crm.com"
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"


def block(page: str, name: str) -> str:
    text = (DOCS / page).read_text()
    (found,) = re.findall(rf"(?ms)^```\w+ {re.escape(name)}\n(.*?)^```$", text)
    return found


CONFIG = block("mail-systems.md", "crm-milter.yaml").replace("inet:8894@0.0.0.0", "LISTEN")


@pytest.fixture(scope="module")
def sql() -> Iterator[dict[str, str]]:
    """The tables of such a system: an alias, two mailboxes and the domain."""
    folder = scratch()
    folder.chmod(0o755)
    path = folder / "mail.db"
    with closing(sqlite3.connect(path)) as base, base:
        base.execute("CREATE TABLE alias (address TEXT, goto TEXT)")
        base.execute("CREATE TABLE mailbox (username TEXT)")
        base.execute("CREATE TABLE domain (domain TEXT)")
        base.execute("INSERT INTO alias VALUES (?, ?)", (HELP, IT))
        names = [(IT,), (ANNA,), ("team@solarmora.com",)]
        base.executemany("INSERT INTO mailbox VALUES (?)", names)
        base.execute("INSERT INTO domain VALUES ('solarmora.com')")
    path.chmod(0o644)
    queries = {
        "alias": "SELECT goto FROM alias WHERE address = '%s'",
        "mailbox": "SELECT username FROM mailbox WHERE username = '%s'",
        "domain": "SELECT domain FROM domain WHERE domain = '%s'",
    }
    for name, query in queries.items():
        (folder / name).write_text(f"dbpath = {path}\nquery = {query}\n")
        (folder / name).chmod(0o644)
    maps = {name: f"proxy:sqlite:{folder / name}" for name in queries}
    yield {
        "virtual_alias_maps": maps["alias"],
        "virtual_mailbox_maps": maps["mailbox"],
        "virtual_mailbox_domains": maps["domain"],
        "virtual_alias_domains": "",
        "mydestination": "localhost",
        "smtpd_relay_restrictions": "permit_sasl_authenticated, reject_unauth_destination",
        "proxy_read_maps": " ".join(maps.values()),
    }
    shutil.rmtree(folder)


MACROS = "i {mail_addr} {client_addr} {client_name} {auth_authen}"
SYSTEMS = {
    "extra.cf": {
        "smtpd_milters": "inet:rspamd:9900",
        "milter_mail_macros": MACROS,
        "milter_default_action": "accept",
        "recipient_delimiter": "+",
        "smtputf8_enable": "no",
        "smtpd_discard_ehlo_keywords": "silent-discard, dsn",
    },
    "postfix-main.cf": {
        "rspamd_milter": "inet:localhost:11332",
        "smtpd_milters": "$rspamd_milter",
        "milter_default_action": "accept",
        "recipient_delimiter": "+",
        "smtpd_discard_ehlo_keywords": "silent-discard, dsn",
        "smtpd_delay_reject": "yes",
    },
    "postfix.cf": {
        "smtpd_milters": "inet:antispam:11332",
        "milter_mail_macros": MACROS,
        "milter_default_action": "tempfail",
        "recipient_delimiter": "+",
    },
}


def settings(text: str) -> dict[str, str]:
    pairs = (line.split(" = ", 1) for line in text.splitlines() if " = " in line)
    return dict(pairs)


def here(value: str, lab: Lab, rspamd: str) -> str:
    """Return a value with addresses of this host for the names of containers."""
    for name in ("inet:rspamd:9900", "inet:localhost:11332", "inet:antispam:11332"):
        value = value.replace(name, rspamd)
    return value.replace("inet:crm-milter:8894", lab.milter.address)


def received(
    lab: Lab, recipient: str, *fields: str, body: str = "", service: str = "smtp"
) -> list[str]:
    message = letter(*fields, body=body or "It does not work.\r\n")
    outcome = lab.send(JOE, [f"<{recipient}>"], message, service=service)
    assert outcome.sent.reply.code == 250, outcome
    return outcome.recipients


def assert_routed(lab: Lab) -> None:
    routed = sorted([CRM, "team@solarmora.com"])
    assert received(lab, HELP) == routed
    assert received(lab, "help+billing@solarmora.com") == routed
    assert received(lab, HELP, body=GTUBE) == [IT]
    assert received(lab, ANNA) == [ANNA]
    unknown = lab.send(JOE, ["<nobody@solarmora.com>"], letter())
    assert unknown.sent.reply.code == 550


@pytest.mark.parametrize("file", SYSTEMS)
def test_a_system_in_containers(make_lab, sql, mood, file):  # noqa: F811 - the fixture
    mood.write_text("mark")
    rspamd = f"unix:{mood.with_name('filter.sock')}"
    lab = make_lab(CONFIG, milter_inet=True)
    own = {**sql, **SYSTEMS[file]}

    def configured(main: dict[str, str]) -> None:
        values = {key: here(value, lab, rspamd) for key, value in main.items()}
        lab.postfix.settings = replace(lab.postfix.settings, main=values)
        lab.postfix.reload()

    configured(own)
    assert received(lab, HELP) == [IT]  # as the system is without the recipe
    configured(own | settings(block("mail-systems.md", file)))
    assert_routed(lab)
    # While crm-milter is down, mail waits at the sender.
    lab.milter.stop()
    assert lab.send(JOE, [f"<{HELP}>"], letter()).sent.reply.code in (451, 421)


def test_docker_mailserver_with_amavis(make_lab, sql):
    """The smtpd at which amavis hands mail back is asked, not the one on port 25."""
    lab = make_lab(CONFIG.replace("rspamd", "amavis"), milter_inet=True, services={"back": {}})
    lines = block("mail-systems.md", "postfix-master.cf").splitlines()
    options = {service: {} for service in ("smtp", "127.0.0.1:10025")}
    for line in lines:
        service, _, option = line.split("/", 2)
        key, _, value = option.partition("=")
        options[service][key] = here(value, lab, "")
    back = {"content_filter": "", "smtpd_recipient_restrictions": "permit_mynetworks,reject"}
    main = {**sql, "smtpd_milters": "", "recipient_delimiter": "+", **options["smtp"]}
    chosen = replace(
        lab.postfix.settings, main=main, services={"back": back | options["127.0.0.1:10025"]}
    )
    lab.postfix.settings = replace(chosen, smtpd_milters="")
    lab.postfix.reload()
    # Port 25 hands the address to amavis as it came.
    assert received(lab, HELP, HAM) == [HELP]
    routed = sorted([CRM, "team@solarmora.com"])
    assert received(lab, HELP, HAM, service="back") == routed
    assert received(lab, HELP, SPAM, service="back") == [IT]
    assert received(lab, ANNA, HAM, service="back") == [ANNA]


def test_iredmail(sql):
    """attach finds the place behind amavis by itself, and the alias of the SQL table is enough."""
    host = HOSTS["iRedMail"]
    main = {**sql, **host.main, "recipient_delimiter": "+"}
    back = {"content_filter": "", "smtpd_milters": "", "mynetworks": "127.0.0.0/8"}
    filters = ("smtp-amavis unix - - n - 2 smtp",)
    with attachable(main=main, services={"back": back}, master=filters) as site:
        site.milter.configure(CONFIG.replace("rspamd", "amavis"))
        site.milter.signal(signal.SIGHUP)
        wait_for("the reload", lambda: site.milter.lines("reloaded"))
        done = attach(site)
        assert done.returncode == 0, done
        routed = sorted([CRM, "team@solarmora.com"])
        assert received(site.lab, HELP, HAM, service="back") == routed
        assert received(site.lab, HELP, SPAM, service="back") == [IT]
        assert received(site.lab, ANNA, HAM, service="back") == [ANNA]


OLD, NEW = "support@solarmora.zendesk.com", "help@solarmora.freshdesk.com"
TICKET = "<abc123@solarmora.zendesk.com>"


@pytest.fixture(scope="module")
def moving(make_module_lab):
    aliases = {HELP: IT, "support@solarmora.com": IT}
    return make_module_lab(block("migration.md", "helpdesk.yaml"), virtual_alias_maps=aliases)


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        ((), NEW),
        ((f"References: {TICKET}",), OLD),
        ((f"In-Reply-To: {TICKET}",), OLD),
        ((f"References: <1@customer.example>\r\n {TICKET}\r\n <2@customer.example>",), OLD),
        ((f"references:{TICKET.upper()}",), OLD),
        (("References: <1@customer.example>", f"In-Reply-To: {TICKET}"), OLD),
        (("References: <abc@solarmora.zendesk.com.customer.example>",), NEW),
        (("In-Reply-To: <1@help.freshdesk.com>",), NEW),
        ((f"Subject: Re: {TICKET}",), NEW),
        ((f"References: {TICKET}", SPAM), IT),
        ((SPAM,), IT),
    ],
)
@pytest.mark.parametrize("address", [HELP, "support@solarmora.com"])
def test_replies_to_old_tickets_go_to_the_old_help_desk(moving, address, fields, target):
    moving.fresh()
    assert received(moving, address, *fields) == [target]
