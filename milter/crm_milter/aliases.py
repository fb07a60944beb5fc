"""The source of the virtual_alias_maps table: where mail for a matched address goes unrouted.

Postfix has to accept an address that has no mailbox, and mail that the milter leaves alone has
to land somewhere: each exact address that a rule replaces is an alias of a real mailbox.

A wildcard becomes no entry, since ``@domain`` would take the mail of every mailbox there
(virtual(5)). Only where a rule is for unknown addresses alone it does: then each account of the
domain that is known has an entry of its own, which leads to itself and comes first.
"""

import contextlib
from collections.abc import Iterator

import idna

from crm_milter import address as addresses
from crm_milter.pattern import AddressList, Exact, InDomain
from crm_milter.rules import ApplyTo, Rule
from crm_milter.table import RuleTable

HEADING = "# made by crm-milter map: mail for routed addresses that is not routed"


class AliasError(ValueError):
    """The table cannot be made; the text says why."""


def alias_lines(table: RuleTable, unrouted_to: str | None) -> list[str]:
    """Return the lines of the table, in the order of the rules; raises AliasError.

    ``unrouted_to`` is the mailbox for rules that name none of their own. The addresses of rules
    that only send copies, or that are for known accounts, are mailboxes already and stay out.
    """
    mailboxes: dict[str, str] = {}
    for rule in table.rules:
        if not _diverts(rule):
            continue
        for address in _exact(rule):
            if address not in mailboxes:
                first = next(
                    filter(_diverts, (each.rule for each in table.possible(address))), None
                )
                if first:
                    mailboxes[address] = _mailbox(first, unrouted_to)
    domains = _domains(table, unrouted_to)
    for account in sorted(table.known) if domains else ():
        if addresses.domain_of(account) in domains:
            mailboxes.setdefault(account, addresses.written(account))
    return [
        HEADING,
        *(
            f"{spelling}  {mailbox}"
            for address, mailbox in mailboxes.items()
            for spelling in _spellings(address)
        ),
        *(
            f"@{spelling}  {mailbox}"
            for domain, mailbox in domains.items()
            for spelling in _scripts(domain)
        ),
    ]


def _diverts(rule: Rule) -> bool:
    """Tell whether what a rule leaves goes to a mailbox other than the recipient's own."""
    return bool(rule.unrouted_to) or (rule.replaces and rule.apply_to is not ApplyTo.KNOWN)


def _exact(rule: Rule) -> Iterator[str]:
    for pattern in rule.match:
        match pattern:
            case Exact(address):
                yield address
            case AddressList(_, listed):
                yield from sorted(listed)
    if rule.address_map is not None:
        yield from (key for key in rule.address_map.targets if not key.startswith("@"))


def _domains(table: RuleTable, unrouted_to: str | None) -> dict[str, str]:
    """Return the mailbox by domain, for the rules that are for all its unknown addresses."""
    mailboxes: dict[str, str] = {}
    for rule in table.rules:
        if rule.apply_to is ApplyTo.UNKNOWN and _diverts(rule):
            domains = [each.domain for each in rule.match if isinstance(each, InDomain)]
            if rule.address_map is not None:
                domains += [key[1:] for key in rule.address_map.targets if key.startswith("@")]
            for domain in domains:
                mailboxes.setdefault(domain, _mailbox(rule, unrouted_to))
    return mailboxes


def _mailbox(rule: Rule, unrouted_to: str | None) -> str:
    mailbox = rule.unrouted_to or unrouted_to
    if mailbox is None:
        raise AliasError(
            f'rule "{rule.name}" has no "unrouted_to", and neither has the file: the mailbox for'
            " its mail that is not routed"
        )
    return mailbox


def _spellings(address: str) -> Iterator[str]:
    """Yield the keys for an address: Postfix knows A-labels and U-labels as two domains."""
    local = addresses.local_of(address)
    for domain in _scripts(addresses.domain_of(address)):
        yield addresses.written(f"{local}@{domain}")


def _scripts(domain: str) -> Iterator[str]:
    yield domain
    if "xn--" in domain:
        with contextlib.suppress(idna.IDNAError):  # nobody can have registered such a domain
            yield idna.decode(domain)
