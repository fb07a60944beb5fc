"""All checks of ``check --postfix``: those that each module lists at its end.

They come in the order in which a person would fix what they find.
"""

from collections.abc import Iterator

from crm_milter.postfix import alias_file
from crm_milter.postfix.checks import (
    addresses,
    after_queue,
    aliases,
    authentication,
    dead_letters,
    fix,
    headers,
    known,
    live_tables,
    milters,
    pace,
    routes,
    settings,
    socket,
    spam_filters,
)
from crm_milter.postfix.checks.finding import Finding
from crm_milter.postfix.lookup import INDEXED, plain
from crm_milter.postfix.site import Site

MODULES = (
    addresses,
    routes,
    live_tables,
    known,
    aliases,
    socket,
    milters,
    settings,
    dead_letters,
    headers,
    spam_filters,
    authentication,
    pace,
    after_queue,
)


def check(site: Site) -> list[Finding]:
    """Return what is wrong between our configuration and this Postfix; [] is good.

    Raises PostfixError where Postfix cannot be asked.
    """
    found = [finding for module in MODULES for check in module.CHECKS for finding in check(site)]
    return [*found, *_unreadable(site)]


def _unreadable(site: Site) -> Iterator[Finding]:
    """Tables that could not be asked: what they hold could not be checked."""
    own = alias_file.listed(site)
    for table, reason in site.tables.failures.items():
        if table != own:  # a missing table of ours was found before
            yield Finding(
                "table",
                f"{table} cannot be checked: {reason}",
                "Postfix may also be unable to read it; what depends on it was not checked",
                _command(site, table),
            )


def _command(site: Site, table: str) -> str:
    """Return the command that makes a table, or for one that is not made here, that asks it."""
    kind, _, path = plain(table).partition(":")
    if kind not in INDEXED:
        return site.postconf.command("postmap", "-q", "postmaster", table)
    tool = "postalias" if fix.is_local_aliases(site, table) else "postmap"
    return site.postconf.command(tool, f"{kind}:{path}")
