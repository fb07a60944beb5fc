"""All checks of ``check --postfix``, in the order in which a person would mend what they find."""

from collections.abc import Callable, Iterator

from crm_milter.postfix import (
    lint_addresses,
    lint_after_queue,
    lint_headers,
    lint_known,
    lint_map,
    lint_milters,
    lint_routes,
    lint_settings,
    lint_socket,
    mapfile,
    mend,
)
from crm_milter.postfix.findings import Finding
from crm_milter.postfix.site import Site
from crm_milter.postfix.tables import INDEXED, plain

Check = Callable[[Site], Iterator[Finding]]

CHECKS: tuple[Check, ...] = (
    lint_addresses.domains,
    lint_addresses.copied,
    lint_addresses.accounts,
    lint_addresses.members,
    lint_routes.foreign,
    lint_routes.tested,
    lint_routes.dead_ends,
    lint_routes.copies,
    lint_routes.rewritten,
    lint_routes.alias_domains,
    lint_routes.canonical,
    lint_routes.bcc,
    lint_known.accounts,
    lint_addresses.unrouted,
    lint_addresses.targets,
    lint_map.attached,
    lint_map.current,
    lint_map.shadowed,
    lint_map.wildcards,
    lint_socket.listens,
    lint_socket.chroot,
    lint_milters.missing,
    lint_milters.opted_out,
    lint_milters.early,
    lint_milters.bypassed,
    lint_milters.overrides,
    lint_milters.default_action,
    lint_milters.timeouts,
    lint_milters.by_client,
    lint_settings.notify_classes,
    lint_settings.original_recipient,
    lint_settings.delimiter,
    lint_settings.message_size,
    lint_settings.unverified,
    lint_headers.verdict_headers,
    lint_after_queue.rejects,
)


def check(site: Site) -> list[Finding]:
    """Return what is wrong between our configuration and this Postfix; [] is good.

    Raises PostfixError where Postfix cannot be asked.
    """
    found = [finding for rule in CHECKS for finding in rule(site)]
    return [*found, *_unreadable(site)]


def _unreadable(site: Site) -> Iterator[Finding]:
    """Tables that could not be asked: what they hold could not be checked."""
    own = mapfile.listed(site)
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
