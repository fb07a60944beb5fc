"""Mail to a host that has other software beside crm-milter, and what check says there."""

import smtplib

from mailhost import CRM_DOMAIN, HELP, SUPPORT, MailHost
from pods import PodError, wait_for

CUSTOMER = "anna@customer.example"
RULES = f"""\
unrouted_to: it@solarmora.com
recipient_delimiter: "+"
spam: gmail
{{top}}
rules:
  - name: support
    match: {HELP}
    replace_with: {SUPPORT}
{{more}}
  - name: rest
    match: ["any-*@solarmora.com", "srs*@solarmora.com"]
    replace_with: rest@{CRM_DOMAIN}
"""


DEAD = "dead_letters: rejected@solarmora.com\n"


def configure(host: MailHost, top: str = "", more: str = "") -> None:
    host.configure(RULES.format(top=top, more=more))
    host.run("crm-milter", "attach", "--yes")


def send(
    host: MailHost, name: str, to: str | list[str] = HELP, sender: str = CUSTOMER, **how: str
) -> None:
    """Send a mail from this machine; ``how`` has fields to put before it, or the whole mail."""
    with smtplib.SMTP(host.address, timeout=30) as session:
        session.ehlo("world.example")
        mail = how.get("mail") or how.get("fields", "") + mail_from(name)
        assert session.sendmail(sender, to, mail.encode()) == {}


def mail_from(name: str, sender: str = CUSTOMER) -> str:
    return f"From: {sender}\r\nTo: {HELP}\r\nSubject: test\r\nX-Test-Id: {name}\r\n\r\nhello\r\n"


def prove_fine(host: MailHost) -> None:
    found = problems(host)
    assert found.endswith("OK, Postfix configuration included\n"), found


def problems(host: MailHost) -> str:
    return host.run("crm-milter", "check", "--postfix", check=False)


def wait_in(host: MailHost, folder: str, name: str) -> None:
    """Return when the message is in the folder, or in a file there."""
    found = ("grep", "-rqs", f"^X-Test-Id: {name}", folder)
    try:
        wait_for(f"{name} in {folder}", lambda: host.status_of(*found) == 0, 60)
    except PodError as error:
        raise PodError(f"{error}\n{host.maillog()}\n{host.journal('dovecot')}") from error
