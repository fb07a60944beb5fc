"""Checks of what ``dead_letters`` depends on: whole reports, and a mailbox that keeps them."""

from collections.abc import Iterator

from crm_milter import address as addresses
from crm_milter.config.problems import Severity
from crm_milter.postfix import whole_reports
from crm_milter.postfix.checks import fix
from crm_milter.postfix.checks.addresses import new_mailbox
from crm_milter.postfix.checks.finding import Finding
from crm_milter.postfix.domains import Destination, Kind
from crm_milter.postfix.site import Site

_SIZE = "bounce_size_limit"


def bounce_size(site: Site) -> Iterator[Finding]:
    """Postfix returns each message that it accepts whole."""
    edits = whole_reports.bounce_size(site)
    if not edits:
        return
    now = site.postconf.value(_SIZE)
    why = "the report in dead_letters holds only the header of a larger message: the rest is lost"
    if now == "0":
        why = "bounce(8) does not run with 0: mail that the CRM rejects stays in the queue"
    yield Finding(
        "bounce-size",
        f"{_SIZE} is {now}; message_size_limit is {site.postconf.value('message_size_limit')}",
        why,
        fix.settings(site, edits),
    )


def mailbox(site: Site) -> Iterator[Finding]:
    """The mailbox is there, is on this host, and has nothing else in it."""
    unrouted = {addresses.normalise(each) for each in site.routed.values()}
    for box in whole_reports.dead_letters(site):
        normal = addresses.normalise(box)
        fate = site.domains.fate(normal, frozenset(site.routed))
        if fate in (Destination.UNKNOWN, Destination.LOOP):
            yield Finding(
                "dead-letters",
                f'"{box}" (dead_letters) {fate.value}',
                "what the CRM rejects bounces once more, to the postmaster, without the message",
                new_mailbox(site, normal, "dead_letters"),
            )
        elif site.domains.kind(addresses.domain_of(normal)) is Kind.REMOTE:
            yield Finding(
                "dead-letters-remote",
                f'Postfix does not accept mail for the domain of "{box}" (dead_letters)',
                "what the CRM rejects leaves this host, and is lost if the other one rejects it",
                f"set dead_letters to a mailbox of this host in {site.path}, then run systemctl"
                " reload crm-milter",
                Severity.WARNING,
            )
        if normal in unrouted:
            yield Finding(
                "dead-letters-shared",
                f'"{box}" is both unrouted_to and dead_letters',
                "what the CRM rejects is hard to find among spam",
                f"set dead_letters to a mailbox of its own in {site.path}, then run systemctl"
                " reload crm-milter",
                Severity.WARNING,
            )


CHECKS = (bounce_size, mailbox)
