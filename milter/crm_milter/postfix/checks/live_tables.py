"""Check that Postfix takes mail for the addresses of tables that are asked for each recipient.

They are not in the table that ``map`` writes: Postfix has to ask the same file (sqlite_table(5)).
A table may have a million rows, so only the first are tried. Rows come and go, so a finding is a
warning.
"""

import shlex
from collections.abc import Iterator
from itertools import islice

from crm_milter import address as addresses
from crm_milter.config.problems import Severity
from crm_milter.postfix.checks import fix
from crm_milter.postfix.checks.finding import Finding, names
from crm_milter.postfix.domains import Destination, Kind
from crm_milter.postfix.edit import Edit
from crm_milter.postfix.postconf import split_list
from crm_milter.postfix.site import Site
from crm_milter.rules.rule import Rule
from crm_milter.tables import columns
from crm_milter.tables.live import Live

_TRIED = 50  # rows
_FEW = 3  # domains that a command may name
_ALIASES, _DOMAINS = "virtual_alias_maps", "virtual_alias_domains"


def accepted(site: Site) -> Iterator[Finding]:
    """Postfix takes mail for the first addresses of each table."""
    for rule in site.rules:
        live = rule.address_map.live if rule.address_map else None
        if isinstance(live, Live):
            tried = list(dict.fromkeys(_tried(live)))
            yield from _foreign(site, live, tried)
            yield from _unknown(site, rule, live, tried)


def _tried(live: Live) -> Iterator[str]:
    """Yield addresses of the first rows; for a row of a whole domain, one that does not exist."""
    try:
        rows = list(islice(live.rows(), _TRIED))
    except OSError:  # check itself says that
        return
    for key, _ in rows:
        try:
            normal = columns.key(key)
        except addresses.AddressError:  # the same
            continue
        if normal.isascii():
            yield f"crm-milter-no-such-user{normal}" if normal.startswith("@") else normal


def _foreign(site: Site, live: Live, tried: list[str]) -> Iterator[Finding]:
    domains = dict.fromkeys(map(addresses.domain_of, tried))
    foreign = [each for each in domains if site.domains.kind(each) is Kind.REMOTE]
    if foreign:
        value = ", ".join([*split_list(site.postconf.raw(_DOMAINS)), *foreign])
        few = len(foreign) <= _FEW
        yield Finding(
            "address-domain",
            f"Postfix does not accept mail for {names(foreign)}, domains in {live.path}",
            'mail is rejected with "Relay access denied"',
            fix.setting(site, _DOMAINS, value)
            if few
            else f"add the domains to {_DOMAINS}, or a table of them",
            Severity.WARNING,
        )


def _unknown(site: Site, rule: Rule, live: Live, tried: list[str]) -> Iterator[Finding]:
    ours = [
        each
        for each in tried
        if site.domains.kind(addresses.domain_of(each)) not in (Kind.REMOTE, Kind.UNSURE)
    ]
    keys = [key for each in ours for key in site.domains.keys(each)]
    for table in split_list(site.postconf.value(_ALIASES)):
        site.tables.look_up(table, keys)  # all at once
    site.domains.prefetch(keys)
    unknown = [each for each in ours if site.domains.fate(each) is Destination.UNKNOWN]
    if unknown:
        yield Finding(
            "address-unknown",
            f"Postfix does not know {names(unknown)} of {live.path}",
            "mail is rejected: user unknown",
            _asking(site, rule, live),
            Severity.WARNING,
        )


def _asking(site: Site, rule: Rule, live: Live) -> str:
    """Return the commands that have Postfix ask the table, or words where something is missing."""
    mailbox = rule.unrouted_to or site.config.unrouted_to
    if not mailbox:
        return f"set unrouted_to in {site.path}, then {fix.ours(site, 'check', '--postfix')}"
    text = mailbox.replace("%", "%%").replace("'", "''")
    path = site.postconf.directory / f"crm-milter-{rule.name}.cf"
    query = "FROM routes WHERE address = '%s' COLLATE NOCASE LIMIT 1"
    parameters = f"dbpath = {live.path.absolute()}", f"query = SELECT '{text}' {query}"
    lines = " ".join(map(shlex.quote, parameters))
    now = split_list(site.postconf.raw(_ALIASES))
    table = f"proxy:sqlite:{path}"
    value = ", ".join([*(each for each in now if each != table), table])
    command = fix.settings(site, [Edit("", _ALIASES, value)])
    written = f"printf '%s\\n' {lines} > {shlex.quote(str(path))} && {command}"
    has_it = "sqlite" in site.postconf.run("postconf", "-m").stdout.split()
    return written if has_it else f"apt install postfix-sqlite, then: {written}"


CHECKS = (accepted,)
