"""Between a database of mailboxes, as PostfixAdmin lays it out, and Dovecot, as Debian has them."""

import smtplib
from collections.abc import Callable

import pytest
from beside import configure, prove_fine, send, wait_in
from mailhost import SUPPORT, MailHost
from pods import wait_for

SCHEMA = """\
CREATE TABLE domain (domain varchar(255) PRIMARY KEY, active boolean);
CREATE TABLE mailbox (username varchar(255) PRIMARY KEY, maildir varchar(255), active boolean);
CREATE TABLE alias (address varchar(255) PRIMARY KEY, goto text, active boolean);
INSERT INTO domain VALUES ('solarmora.com', true);
INSERT INTO mailbox VALUES ('it@solarmora.com', 'solarmora.com/it/', true);
INSERT INTO mailbox VALUES ('team@solarmora.com', 'solarmora.com/team/', true);
INSERT INTO mailbox VALUES ('gone@solarmora.com', 'solarmora.com/gone/', false);
INSERT INTO alias VALUES ('it@solarmora.com', 'it@solarmora.com', true);
INSERT INTO alias VALUES ('team@solarmora.com', 'team@solarmora.com', true);
INSERT INTO alias VALUES ('office@solarmora.com', 'it@solarmora.com,team@solarmora.com', true);
"""
QUERIES = {
    "domains": "SELECT domain FROM domain WHERE domain = '%s' AND active",
    "mailboxes": "SELECT maildir FROM mailbox WHERE username = '%s' AND active",
    "aliases": "SELECT goto FROM alias WHERE address = '%s' AND active",
}
LMTP = """\
protocols = lmtp
first_valid_uid = 1
ssl = no
service lmtp {
  unix_listener /var/spool/postfix/private/dovecot-lmtp {
    mode = 0600
    user = postfix
  }
}
"""
DOVECOT = {
    "2.3": """\
mail_location = maildir:/var/vmail/%d/%n
passdb {
  driver = static
  args = password=unused
}
userdb {
  driver = static
  args = uid=mail gid=mail home=/var/vmail/%d/%n allow_all_users=yes
}
""",
    "2.4": """\
mail_driver = maildir
mail_path = /var/vmail/%{user|domain}/%{user|username}
passdb static {
  password = unused
}
userdb static {
  allow_all_users = yes
  fields {
    uid = mail
    gid = mail
    home = /var/vmail/%{user|domain}/%{user|username}
  }
}
""",
}


def _sqlite(host: MailHost) -> str:
    script = "import sqlite3, sys; sqlite3.connect('/etc/postfix/mail.db')"
    host.run("python3", "-c", f"{script}.executescript(sys.stdin.read())", text=SCHEMA)
    return "dbpath = /etc/postfix/mail.db\n"


def _pgsql(host: MailHost) -> str:
    host.run("systemctl", "start", "postgresql", timeout=120)
    psql = ("runuser", "-u", "postgres", "--", "psql", "-q", "-v", "ON_ERROR_STOP=1")
    wait_for("PostgreSQL", lambda: host.status_of(*psql, "-c", "SELECT 1") == 0)
    host.run(*psql, text="CREATE ROLE postfix LOGIN PASSWORD 'secret'; CREATE DATABASE mail;")
    grant = "GRANT SELECT ON ALL TABLES IN SCHEMA public TO postfix;"
    host.run(*psql, "mail", text=SCHEMA + grant)
    return "hosts = 127.0.0.1\nuser = postfix\npassword = secret\ndbname = mail\n"


@pytest.mark.parametrize(("kind", "make"), [("sqlite", _sqlite), ("proxy:pgsql", _pgsql)])
def test_between_a_database_and_dovecot(
    guarded: MailHost, kind: str, make: Callable[[MailHost], str]
) -> None:
    access = make(guarded)
    guarded.run("mkdir", "-p", "/etc/postfix/sql")
    for name, query in QUERIES.items():
        guarded.write(f"/etc/postfix/sql/{name}.cf", f"{access}query = {query}\n")
    _start_dovecot(guarded)
    tables = {name: f"{kind}:/etc/postfix/sql/{name}.cf" for name in QUERIES}
    settings = (
        "mydestination=localhost",
        f"virtual_mailbox_domains={tables['domains']}",
        f"virtual_mailbox_maps={tables['mailboxes']}",
        f"virtual_alias_maps={tables['aliases']}",
        "virtual_transport=lmtp:unix:private/dovecot-lmtp",
    )
    guarded.run("postconf", "-e", *settings)
    guarded.run("postfix", "reload")
    before = guarded.run("postconf", "-n")
    configure(
        guarded, "dead_letters: team@solarmora.com", "    also_deliver_to: team@solarmora.com"
    )
    assert guarded.run("postconf", "-h", "virtual_alias_maps").startswith(tables["aliases"])
    prove_fine(guarded)
    send(guarded, "case")
    wait_in(guarded, "/var/vmail/solarmora.com/team", "case")
    assert guarded.wait_for_crm("case")["to"][0].startswith(f"<{SUPPORT}>")
    send(guarded, "marked", fields="X-Gm-Spam: 1\r\n")
    wait_in(guarded, "/var/vmail/solarmora.com/it", "marked")
    send(guarded, "office", "office@solarmora.com")
    for user in ("it", "team"):
        wait_in(guarded, f"/var/vmail/solarmora.com/{user}", "office")
    guarded.refuse(SUPPORT)
    send(guarded, "dead")
    report = ("grep", "-rqs", "^Status: 5.1.1", "/var/vmail/solarmora.com/team")
    wait_for("the report", lambda: guarded.status_of(*report) == 0, 60)
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(guarded, "unknown", "gone@solarmora.com")
    assert [each["id"] for each in guarded.at_crm()] == ["case"]
    guarded.run("crm-milter", "detach", "--yes")
    assert guarded.run("postconf", "-n") == before


def _start_dovecot(host: MailHost) -> None:
    version = host.run("dovecot", "--version").strip()[:3]
    own = f"dovecot_config_version = {version}.0\ndovecot_storage_version = {version}.0\n"
    head = own if version >= "2.4" else ""
    host.run("sh", "-c", "rm -rf /var/vmail && install -d -o mail -g mail /var/vmail")
    host.write("/etc/dovecot/dovecot.conf", head + LMTP + DOVECOT[version])
    host.run("systemctl", "start", "dovecot")
