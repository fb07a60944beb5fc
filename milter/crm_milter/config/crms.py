"""CRMs and help desks: how the addresses that they generate look, and what limits they have.

The domain of a target tells the CRM; a domain that is not listed here tells nothing. Each figure
has its source next to it; what the maker does not publish is not here. docs/crm.md has the same.
"""

import re
from dataclasses import dataclass

from crm_milter import address as addresses
from crm_milter.rules.flood import Limit, Per


@dataclass(frozen=True, slots=True)
class Rate:
    """More than ``count`` messages in ``seconds`` are too many for the CRM."""

    count: int
    seconds: int
    per: Per = Per.SENDER

    @property
    def limit(self) -> Limit:
        """Return the limit that ``flood: auto`` means: two thirds at once, then one by one.

        In the time that the CRM counts, the last third may follow: never more than its limit.
        """
        return Limit(max(self.count * 2 // 3, 1), self.seconds * 2)


@dataclass(frozen=True, slots=True)
class Crm:
    """A CRM: how its addresses look, what it refuses, and how it counts.

    ``largest`` is in bytes. ``drops`` is mail that never becomes a case and whose sender hears
    nothing. ``many_cases``: a message to several addresses that lead to one of its own becomes
    several cases.
    """

    name: str
    example: str
    domain: re.Pattern[str]
    largest: int | None = None
    drops: str = ""
    many_cases: bool = False
    rate: Rate | None = None


def _domain(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.replace(".", r"\.").replace("LABEL", r"[a-z0-9_-]+"))


_MB = 1 << 20
_HOUR = 3600
_BOUNCES_AND_FORGED = (
    'bounces (mail from "<>") and mail that fails DMARC because its DKIM signature broke'
)

# By the last two labels of a domain.
_BY_DOMAIN = {
    # help.salesforce.com, article 000089879: more than 15 in 60 seconds with the same sender,
    # subject and body are a loop. Of the size they say 25 MB, and 35 MB in total (000193653).
    "salesforce.com": Crm(
        "Salesforce",
        "name@long-id.n.pod.case.salesforce.com",
        _domain("(LABEL.){2,}case.(sandbox.)?salesforce.com"),
        largest=25 * _MB,
        many_cases=True,
        rate=Rate(15, 60, Per.SUBJECT),
    ),
    # support.zendesk.com, article 4408836366362: a burst blocks its sender; the number is not told.
    "zendesk.com": Crm("Zendesk", "support@company.zendesk.com", _domain("LABEL.zendesk.com")),
    **dict.fromkeys(
        ("hubspot-inbox.com", "hs-inbox.com"),
        Crm(
            "HubSpot",
            "name@id.hubspot-inbox.com",
            _domain("(LABEL.)+(hubspot-inbox|hs-inbox).com"),
        ),
    ),
    # support.atlassian.com, "Troubleshoot issues with the email channel".
    "atlassian.net": Crm(
        "Jira",
        "support@site.atlassian.net",
        _domain("LABEL.atlassian.net"),
        largest=25 * _MB,
        drops=_BOUNCES_AND_FORGED,
    ),
    # partnersupport.freshworks.com, article 225492: the 51st in 30 minutes deletes the contact.
    "freshdesk.com": Crm(
        "Freshdesk",
        "support@company.freshdesk.com",
        _domain("(LABEL.)+freshdesk.com"),
        rate=Rate(50, 1800),
    ),
    # help.kustomer.com, "Avoid email rate limits": 20 an hour.
    "kustomer.com": Crm(
        "Kustomer",
        "support@company.mail.kustomer.com",
        _domain("(LABEL.)+kustomer.com"),
        rate=Rate(20, _HOUR),
    ),
    # support.deskpro.com, "Email rate limiting": 15 in 10 minutes, for 15 minutes; can be set.
    "deskpro.com": Crm(
        "Deskpro",
        "support@company.deskpro.com",
        _domain("(LABEL.)*deskpro.com"),
        rate=Rate(15, 600),
    ),
    # support.bolddesk.com, article 276: of one sender 50 an hour, more are suspended.
    "bolddesk.com": Crm(
        "BoldDesk",
        "support@company.bolddesk.com",
        _domain("(LABEL.)+bolddesk.com"),
        rate=Rate(50, _HOUR),
    ),
    # odoo/odoo, addons/mail/models/mail_thread.py, mail.gateway.loop.threshold and .minutes: 20 in
    # 120 minutes; can be set.
    "odoo.com": Crm(
        "Odoo", "support@company.odoo.com", _domain("LABEL.odoo.com"), rate=Rate(20, 2 * _HOUR)
    ),
    # intercom.com/help, article 2339426: larger mail is rejected.
    **dict.fromkeys(
        ("intercom-mail.com", "intercom.io"),
        Crm(
            "Intercom",
            "id@incoming.intercom.io",
            _domain("(LABEL.)*(intercom-mail.com|intercom.io)"),
            largest=20 * _MB,
        ),
    ),
    # support.servicenow.com, KB0785037: 75 MB as encoded for mail.
    "service-now.com": Crm(
        "ServiceNow",
        "instance@service-now.com",
        _domain("(LABEL.)*service-now.com"),
        largest=75 * _MB,
    ),
    # No limit is published of these; status.gorgias.com, incident vz60jjxxh8bq, and Zoho's help
    # tell how their addresses look.
    "gorgias.com": Crm("Gorgias", "id@emails.gorgias.com", _domain("emails.gorgias.com")),
    "zohodesk.com": Crm("Zoho Desk", "support@company.zohodesk.com", _domain("LABEL.zohodesk.com")),
}


def crm_of(domain: str) -> Crm | None:
    """Return the CRM to which a domain, as in ``user@domain``, belongs."""
    labels = addresses.ascii_domain(domain).rsplit(".", 2)
    return _BY_DOMAIN.get(".".join(labels[-2:]))


def all_crms() -> tuple[Crm, ...]:
    """Return each CRM once, in the order of the table."""
    return tuple(dict.fromkeys(_BY_DOMAIN.values()))
