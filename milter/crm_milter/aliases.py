"""The source of the virtual_alias_maps table: where mail for a matched address goes unrouted.

Postfix has to accept an address that has no mailbox, and mail that the milter leaves alone has
to land somewhere: each exact matched address is an alias of a real mailbox. A wildcard never
becomes an entry, since ``@domain`` would take the mail of every mailbox there (virtual(5)).
"""

import contextlib

import idna

from crm_milter import address as addresses
from crm_milter.pattern import Exact
from crm_milter.table import RuleTable

HEADING = "# made by crm-milter map: mail for routed addresses that is not routed"


class AliasError(ValueError):
    """The table cannot be made; the text says why."""


def alias_lines(table: RuleTable, unrouted_to: str | None) -> list[str]:
    """Return the lines of the table, in the order of the rules; raises AliasError.

    ``unrouted_to`` is the mailbox for rules that name none of their own. The addresses of rules
    that only send copies are mailboxes already and stay out.
    """
    mailboxes: dict[str, str] = {}
    for rule in table.rules:
        if not (rule.replaces or rule.unrouted_to):
            continue
        for pattern in rule.match:
            if not isinstance(pattern, Exact) or pattern.address in mailboxes:
                continue
            applying = table.match(pattern.address)
            mailbox = (applying.rule if applying else rule).unrouted_to or unrouted_to
            if mailbox is None:
                raise AliasError(
                    f'rule "{rule.name}" has no "unrouted_to", and neither has the file: the'
                    " mailbox for its mail that is not routed"
                )
            mailboxes[pattern.address] = mailbox
    return [
        HEADING,
        *(
            f"{spelling}  {mailbox}"
            for address, mailbox in mailboxes.items()
            for spelling in _spellings(address)
        ),
    ]


def _spellings(address: str) -> list[str]:
    """Return the keys for an address: Postfix knows A-labels and U-labels as two domains."""
    local, domain = addresses.local_of(address), addresses.domain_of(address)
    domains = [domain]
    if "xn--" in domain:
        with contextlib.suppress(idna.IDNAError):  # nobody can have registered such a domain
            domains.append(idna.decode(domain))
    return [addresses.written(f"{local}@{each}") for each in domains]
