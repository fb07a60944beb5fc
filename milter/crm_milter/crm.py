"""What is known of CRMs by the domain of the addresses that they generate.

The domain of a target tells the CRM. A domain that is not listed here tells nothing.
"""

import re
from dataclasses import dataclass

from crm_milter import address as addresses


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


def _domain(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern.replace(".", r"\.").replace("LABEL", r"[a-z0-9_-]+"))


_MB = 1 << 20
_SALESFORCE = Crm(
    "Salesforce",
    "name@long-id.n.pod.case.salesforce.com",
    _domain("(LABEL.){2,}case.(sandbox.)?salesforce.com"),
    largest=25 * _MB,
    many_cases=True,
)
_ZENDESK = Crm("Zendesk", "support@company.zendesk.com", _domain("LABEL.zendesk.com"))
_HUBSPOT = Crm(
    "HubSpot", "name@id.hubspot-inbox.com", _domain("(LABEL.)+(hubspot-inbox|hs-inbox).com")
)
_JIRA = Crm(
    "Jira",
    "support@site.atlassian.net",
    _domain("LABEL.atlassian.net"),
    largest=25 * _MB,
    drops='bounces (mail from "<>") and mail that fails DMARC because its DKIM signature broke',
)
_FRESHDESK = Crm("Freshdesk", "support@company.freshdesk.com", _domain("(LABEL.)+freshdesk.com"))

# By the last two labels of a domain.
_BY_DOMAIN = {
    "salesforce.com": _SALESFORCE,
    "zendesk.com": _ZENDESK,
    "hubspot-inbox.com": _HUBSPOT,
    "hs-inbox.com": _HUBSPOT,
    "atlassian.net": _JIRA,
    "freshdesk.com": _FRESHDESK,
}


def crm_of(domain: str) -> Crm | None:
    """Return the CRM to which a domain, as in ``user@domain``, belongs."""
    labels = addresses.ascii_domain(domain).rsplit(".", 2)
    return _BY_DOMAIN.get(".".join(labels[-2:]))
