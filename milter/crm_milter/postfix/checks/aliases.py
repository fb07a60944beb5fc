"""Checks of the virtual alias table: present, current, asked first, taking no account's mail."""

from collections.abc import Iterator

from crm_milter import address as addresses
from crm_milter.postfix import alias_file, patternfile, plan
from crm_milter.postfix.aliases import AliasError
from crm_milter.postfix.checks import fix
from crm_milter.postfix.checks.finding import Finding, names
from crm_milter.postfix.domains import Kind
from crm_milter.postfix.lookup import INDEXED, plain
from crm_milter.postfix.postconf import split_list
from crm_milter.postfix.site import Site
from crm_milter.rules.pattern import Glob, InDomain

_UNROUTED = (
    "mail for a matched address that is not rerouted has no mailbox, and Postfix may reject it"
)

_MAX_ENTRIES = 20  # entries in one command


def attached(site: Site) -> Iterator[Finding]:
    """The generated table, or entries like its own, are in virtual_alias_maps."""
    if not site.aliases or alias_file.listed(site):
        return
    missing = alias_file.missing(site)
    unknown = [key for key in missing if key not in dict(_others(site, missing))]
    if unknown:
        yield Finding(
            "map-missing",
            f"virtual_alias_maps does not include {alias_file.table(site)} and has no entry"
            f" for {names(unknown)}",
            _UNROUTED,
            f"{fix.ours(site, 'map', '--write')} && "
            + fix.settings(site, plan.virtual_aliases(site)),
        )


def current(site: Site) -> Iterator[Finding]:
    """The generated table on disk is what the rules say, and compiled."""
    if not alias_file.listed(site) or isinstance(site.alias_lines, AliasError):
        return
    state = alias_file.state(site)
    if state.is_current and state.is_compiled:
        return
    if any(_extra_wildcards(site)):
        return  # worse than stale, and found below
    what = "not compiled" if state.is_current else "out of date"
    lost = alias_file.shrinking(site)
    yield Finding(
        "map-stale",
        f"{alias_file.path(site)} is {what if alias_file.path(site).exists() else 'missing'}",
        f'{_UNROUTED}; "systemctl reload crm-milter" also runs this command',
        f"check that no rule is missing in {site.path}, because {lost}: "
        + fix.ours(site, "map", "--write", "--force")
        if lost
        else fix.ours(site, "map", "--write"),
    )


def shadowed(site: Site) -> Iterator[Finding]:
    """No other table answers for our addresses before ours."""
    for key, (table, value) in _others(site, alias_file.missing(site)):
        yield Finding(
            "map-shadowed",
            f'"{key}" is also in {table}, which sends it to "{value}"',
            f'mail that is not rerouted does not go to "{site.aliases[key]}" (unrouted_to)'
            " and may bounce",
            fix.drop_entry(site, table, key),
        )


def _others(site: Site, keys: list[str]) -> Iterator[tuple[str, tuple[str, str]]]:
    own = alias_file.listed(site)
    maps = split_list(site.postconf.value("virtual_alias_maps"))
    for key in keys:
        found = site.tables.first(maps, [key])
        if found and found[0] != own:
            yield key, (found[0], found[2])


def wildcards(site: Site) -> Iterator[Finding]:
    """No ``@domain`` for a domain of our rules takes the mail of the mailboxes there."""
    own = alias_file.listed(site)
    extra = set(_extra_wildcards(site))
    for table in split_list(site.postconf.value("virtual_alias_maps")):
        if plain(table).partition(":")[0] not in INDEXED.keys() | {"texthash"}:
            continue  # a pattern takes every key, "@domain" too
        keys = [f"@{domain}" for domain in _domains(site)]
        for key, value in site.tables.look_up(table, keys).items():
            if table == own and key not in extra:
                continue  # generated, with a line for each known account
            victims = _victims(site, key[1:])
            if site.domains.kind(key[1:]) is Kind.ALIAS or victims == []:
                continue
            yield Finding(
                "map-wildcard",
                f'"{key}" in {table} sends all mail for the domain to "{value}"'
                + (f", including mail for {names(victims)}" if victims else ""),
                "a wildcard virtual alias captures the mail of every mailbox in the domain",
                fix.ours(site, "map", "--write")
                if table == own
                else _spared(site, table, key, victims),
            )


def _spared(site: Site, table: str, key: str, victims: list[str] | None) -> str:
    """Return how mailboxes keep their mail next to a wildcard, which stays for all others."""
    mailboxes = victims or [each for each in site.routed.values() if each.endswith(key)]
    if 0 < len(mailboxes) <= _MAX_ENTRIES:
        return fix.add_entries(site, table, {each: each for each in mailboxes})
    return f'add the line "ADDRESS ADDRESS" to {table} for each mailbox of {key[1:]}'


def patterns(site: Site) -> Iterator[Finding]:
    """Postfix accepts the addresses of patterns, by a table of its own where it needs one."""
    refused = patternfile.refused(site)
    if not refused or isinstance(site.alias_lines, AliasError):
        return
    found = (
        f"Postfix knows no address of {names(refused)}"
        f" (rule {names(dict.fromkeys(refused.values()))})"
    )
    why = "mail for such addresses is rejected: user unknown"
    edits = plan.patterns(site)
    if edits or patternfile.listed(site):
        then = fix.settings(site, edits) if edits else fix.reload(site)
        command = f"{fix.ours(site, 'map', '--write')} && {then}"
    else:
        command = "add a table of type pcre or regexp with these addresses to virtual_alias_maps"
    yield Finding("pattern-unknown", found, why, command)


def _extra_wildcards(site: Site) -> Iterator[str]:
    own = alias_file.listed(site)
    if own:
        keys = [f"@{domain}" for domain in _domains(site)]
        yield from (key for key in site.tables.look_up(own, keys) if key not in site.aliases)


def _domains(site: Site) -> list[str]:
    found = [addresses.domain_of(each) for rule in site.rules for each in rule.addresses()]
    for rule in site.rules:
        found += [each.domain for each in rule.match if isinstance(each, InDomain | Glob)]
        found += rule.mapped_domains()
    return list(dict.fromkeys(found))


def _victims(site: Site, domain: str) -> list[str] | None:
    """Return the mailboxes without a line of their own, None where no mailbox is known at all."""
    mailboxes = {each for each in site.config.policy.table.known if each.endswith(f"@{domain}")}
    for table in site.domains.recipient_tables(site.domains.kind(domain)):
        listed = site.tables.entries(table) or {}
        mailboxes |= {key for key in listed if key.endswith(f"@{domain}") and key[0] != "@"}
    if not mailboxes:
        return None
    maps = split_list(site.postconf.value("virtual_alias_maps"))
    return sorted(each for each in mailboxes if site.tables.first(maps, [each]) is None)


CHECKS = (attached, current, shadowed, wildcards, patterns)
