"""All checks of ``check --postfix``, in the order in which a person would mend what they find."""

from collections.abc import Callable, Iterator

from crm_milter.postfix import alias_file
from crm_milter.postfix.checks import (
    addresses,
    after_queue,
    aliases,
    authentication,
    headers,
    known,
    mend,
    milters,
    routes,
    settings,
    socket,
    spam_filters,
)
from crm_milter.postfix.checks.finding import Finding
from crm_milter.postfix.lookup import INDEXED, plain
from crm_milter.postfix.site import Site

Check = Callable[[Site], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    addresses.domains,
    addresses.copied,
    addresses.accounts,
    addresses.members,
    routes.foreign,
    routes.tested,
    routes.dead_ends,
    routes.copies,
    routes.rewritten,
    routes.alias_domains,
    routes.canonical,
    routes.bcc,
    known.accounts,
    addresses.unrouted,
    addresses.targets,
    aliases.attached,
    aliases.current,
    aliases.shadowed,
    aliases.wildcards,
    socket.listens,
    socket.chroot,
    milters.missing,
    milters.opted_out,
    milters.early,
    milters.bypassed,
    milters.overrides,
    milters.default_action,
    milters.timeouts,
    milters.by_client,
    settings.notify_classes,
    settings.offered_dsn,
    settings.original_recipient,
    settings.delimiter,
    settings.message_size,
    settings.unverified,
    headers.verdict_headers,
    spam_filters.absent,
    spam_filters.sometimes,
    authentication.written,
    authentication.identity,
    after_queue.rejects,
)


def check(site: Site) -> list[Finding]:
    """Return what is wrong between our configuration and this Postfix; [] is good.

    Raises PostfixError where Postfix cannot be asked.
    """
    found = [finding for rule in CHECKS for finding in rule(site)]
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
    tool = "postalias" if mend.is_local_aliases(site, table) else "postmap"
    return site.postconf.command(tool, f"{kind}:{path}")
