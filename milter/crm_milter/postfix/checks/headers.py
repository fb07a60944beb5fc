"""Check that no header_checks of Postfix take a filter's verdict away before we see it."""

from collections.abc import Collection, Iterator

from crm_milter.postfix import authserv
from crm_milter.postfix.checks import fix
from crm_milter.postfix.checks.finding import Finding, names
from crm_milter.postfix.edit import Edit
from crm_milter.postfix.placement import is_reinjection, options, placement
from crm_milter.postfix.postconf import Service, split_list
from crm_milter.postfix.redirections import entries
from crm_milter.postfix.site import Site
from crm_milter.spam.verdict import Stands

_TAKES_AWAY = ("ignore", "strip", "replace")


def verdict_headers(site: Site) -> Iterator[Finding]:
    """The header fields of the verdict survive until our milter reads them.

    header_checks see what a message brings, milter_header_checks what earlier milters add: to
    take forged fields away is good where a milter adds the true ones later.
    """
    seen: set[tuple[str, str]] = set()
    for service in placement(site).wanted:
        entries = site.milters(service)
        by_milter = len(entries) > len(site.ours(entries))
        cleanup = cleanup_of(site, service)
        if by_milter:
            yield from _stripped(site, service, cleanup, "milter_header_checks", (), seen)
        by_gateway = any(Stands.GATEWAY in each.stands for each in site.config.policy.filters)
        checked = "no_header_body_checks" not in options(site.postconf, service)
        if checked and (by_gateway or not by_milter):
            own = authserv.ids(site) if by_milter else ()  # written later
            yield from _stripped(site, service, cleanup, "header_checks", own, seen)


def cleanup_of(site: Site, service: Service) -> Service | None:
    """Return the cleanup service that a service hands its mail to."""
    name = site.postconf.value("cleanup_service_name", service)
    return next((each for each in site.postconf.running_as("cleanup") if each.name == name), None)


def _stripped(
    site: Site,
    service: Service,
    cleanup: Service | None,
    name: str,
    without: Collection[str],
    seen: set[tuple[str, str]],
) -> Iterator[Finding]:
    for table in split_list(site.postconf.value(name, cleanup)):
        if (name, table) in seen:
            continue
        lines = list(_verdicts(site, without))
        answers = site.tables.look_up(table, lines)
        gone = [line for line in lines if answers.get(line, "").lower().startswith(_TAKES_AWAY)]
        if gone:
            seen.add((name, table))
            yield Finding(
                "header-checks",
                f"{name} ({table}) removes {names(gone)}",
                "crm-milter cannot see the filter's verdict and reroutes the mail",
                _fix(site, service, name, table, gone[0]),
            )


def _fix(site: Site, service: Service, name: str, table: str, line: str) -> str:
    if name == "header_checks" and is_reinjection(service) and _checks_before(site):
        value = ", ".join([*options(site.postconf, service), "no_header_body_checks"])
        return fix.settings(site, [Edit(service.label, "receive_override_options", value)])
    query = site.postconf.command("postmap", "-q", line, table)
    if len(entries(site, table)) != 1:  # the others are none of ours
        return f"remove the entry of {table} that matches, and keep the others; it shows: {query}"
    others = [each for each in split_list(site.postconf.raw(name)) if each != table]
    whole = fix.setting(site, name, ", ".join(others) if others else None)
    return f"remove the entry that matches {query}, or the whole table: {whole}"


def _checks_before(site: Site) -> bool:
    """Tell whether all mail sees header_checks before a filter: behind it they may be off."""
    before = [each for each in site.postconf.running_as("smtpd") if not is_reinjection(each)]
    return all("no_header_body_checks" not in options(site.postconf, each) for each in before)


def _verdicts(site: Site, without: Collection[str]) -> Iterator[str]:
    """Yield a header line for each field of the configured filters, as on spam and forged mail."""
    for name in sorted(site.config.policy.authserv_ids.difference(without)):
        yield f"Authentication-Results: {name}; dmarc=fail (p=reject) header.from=customer.example"
    for each in site.config.policy.filters:
        for test in each.tests:
            yield f"{'-'.join(word.capitalize() for word in test.name.split('-'))}: {test.sample}"


CHECKS = (verdict_headers,)
