"""Check that no account's mail goes to a rule that is for unknown addresses alone."""

import pwd
from collections.abc import Iterable, Iterator

from crm_milter import address as addresses
from crm_milter.config.problems import Severity
from crm_milter.postfix import alias_file
from crm_milter.postfix.checks.finding import Finding, names
from crm_milter.postfix.domains import Kind
from crm_milter.postfix.postconf import split_list
from crm_milter.postfix.site import Site
from crm_milter.rules.pattern import Exact
from crm_milter.rules.rule import Rule
from crm_milter.rules.strangers import domains_of

# Asked for in tables that cannot be listed (RFC 2142, and what hosts have).
_USUAL = (
    *("root", "hostmaster", "webmaster", "info", "sales", "support", "security", "noc"),
    *("admin", "administrator", "office", "contact", "marketing", "billing", "www-data"),
)
_NIS = ("yp_last_modified", "yp_master_name")  # keys that postalias(1) adds to a table
_PEOPLE = 1000  # the first user id of a person (adduser.conf)
_NOBODY = 65534


def accounts(site: Site) -> Iterator[Finding]:
    """Every account that Postfix knows is in known_recipients, if a rule is for the unknown."""
    rules = [each for each in site.rules if not each.may_apply(known=True) and each.replaces]
    lost: dict[str, str] = {}
    blind: dict[str, None] = {}
    for domain in dict.fromkeys(each for rule in rules for each in _wide_domains(rule)):
        for table, known in _known(site, domain, blind):
            for address in known:
                if _is_lost(site, rules, address):
                    lost.setdefault(address, table)
    if lost:
        yield Finding(
            "account-unlisted",
            f"Postfix knows {names(lost)} ({names(dict.fromkeys(lost.values()))}), and"
            " known_recipients does not",
            "mail for these accounts goes to the CRM by a rule with apply_to: unknown",
            f"add {names(lost, len(lost))} to a file that known_recipients names in {site.path},"
            " then run systemctl reload crm-milter",
        )
    if blind:
        yield Finding(
            "account-unlisted",
            f"{names(blind)} cannot be listed, so its accounts cannot be compared with"
            " known_recipients",
            "mail for accounts that known_recipients does not list goes to the CRM",
            f"write all its addresses to a file that known_recipients names in {site.path}",
            Severity.WARNING,
        )


def _wide_domains(rule: Rule) -> Iterator[str]:
    """Yield the domains of which a rule takes more than single addresses."""
    for pattern in rule.match:
        if not isinstance(pattern, Exact):
            yield from domains_of(pattern)
    yield from rule.mapped_domains()


def _is_lost(site: Site, rules: list[Rule], address: str) -> bool:
    return any(match.rule in rules for match in site.table.possible(address))


def _known(site: Site, domain: str, blind: dict[str, None]) -> Iterator[tuple[str, Iterable[str]]]:
    """Yield each table of recipients with the addresses of a domain that it has."""
    kind = site.domains.kind(domain)
    own = alias_file.listed(site)
    aliases = split_list(site.postconf.value("virtual_alias_maps"))
    for table in dict.fromkeys([*site.domains.recipient_tables(kind), *aliases]):
        if table == own:
            continue
        if table.endswith("unix:passwd.byname"):
            yield table, [addresses.join(each, domain) for each in _users()]
            continue
        yield table, _listed(site, table, domain, kind, blind)


def _listed(
    site: Site, table: str, domain: str, kind: Kind, blind: dict[str, None]
) -> Iterator[str]:
    entries = site.tables.entries(table, site.domains.tool(table))
    if entries is None:
        yield from _usual(site, table, domain, kind)
        if not table.startswith(("static:", "inline:", "fail:")):
            blind.setdefault(table)
        return
    is_bare = kind is Kind.LOCAL or domain == site.postconf.origin
    for key in entries:
        normal = addresses.normalise(key)
        if normal in _NIS:
            continue
        if normal.strip("@") and "@" not in normal and is_bare and "." not in normal:
            yield addresses.join(normal, domain)
        elif not normal.startswith("@") and addresses.domain_of(normal) == domain:
            yield normal


def _usual(site: Site, table: str, domain: str, kind: Kind) -> Iterator[str]:
    """Yield the usual accounts that a table has, unless it has everybody."""
    unlikely = addresses.join("crm-milter-no-such-user", domain)
    wanted = [addresses.join(each, domain) for each in _USUAL]
    bare = _USUAL if kind is Kind.LOCAL else ()
    found = site.tables.look_up(table, [unlikely, *wanted, *bare])
    if unlikely not in found:
        yield from (each if "@" in each else addresses.join(each, domain) for each in found)


def _users() -> Iterator[str]:
    """Yield the accounts of this host that a person reads."""
    for each in pwd.getpwall():
        if each.pw_uid == 0 or (each.pw_uid >= _PEOPLE and each.pw_uid != _NOBODY):
            yield each.pw_name.lower()


CHECKS = (accounts,)
