"""Checks of the addresses in our rules: whose they are for Postfix, and who else has them."""

from collections.abc import Iterable, Iterator

from crm_milter import address as addresses
from crm_milter.config.problems import Severity
from crm_milter.postfix import alias_file
from crm_milter.postfix.aliases import AliasError
from crm_milter.postfix.checks import fix
from crm_milter.postfix.checks.finding import Finding, names
from crm_milter.postfix.domains import Destination, Kind, members_of
from crm_milter.postfix.lookup import plain
from crm_milter.postfix.postconf import split_list
from crm_milter.postfix.site import Site
from crm_milter.rules.rule import Rule
from crm_milter.rules.strangers import is_public


def domains(site: Site) -> Iterator[Finding]:
    """The domain of each exact matched address is one that Postfix takes mail for."""
    by_domain: dict[str, list[str]] = {}
    for address in [*site.routed, *site.copied]:
        by_domain.setdefault(addresses.domain_of(address), []).append(address)
    for domain, listed in by_domain.items():
        if site.domains.kind(domain) is not Kind.REMOTE or is_public(domain):
            continue
        name = "virtual_alias_domains"
        value = ", ".join([*split_list(site.postconf.raw(name)), domain])
        yield Finding(
            "address-domain",
            f'Postfix does not accept mail for the domain "{domain}" ({names(listed)})',
            'mail is rejected with "Relay access denied"; if the domain\'s mailboxes are'
            " on another host, add it to relay_domains instead",
            fix.setting(site, name, value),
        )


def copied(site: Site) -> Iterator[Finding]:
    """An address that only gets copies stays in the envelope, so it has to be a mailbox."""
    for address in site.copied:
        if site.domains.kind(addresses.domain_of(address)) is Kind.REMOTE:
            continue
        if site.domains.fate(address) is Destination.UNKNOWN:
            yield Finding(
                "address-unknown",
                f'the rule for "{address}" only adds copies, but Postfix knows no such mailbox',
                "mail is rejected: user unknown",
                f'set "unrouted_to" in that rule in {site.path}, then {fix.ours(site, "attach")}',
            )


def accounts(site: Site) -> Iterator[Finding]:
    """A routed address is not an account: its mail would go to the CRM, not to its owner."""
    site.domains.prefetch(site.routed)
    for address in site.routed:
        account = site.domains.account(address)
        if account is None:
            continue
        kind = plain(account.table).partition(":")[0]
        drop = (
            f"remove it from the rule in {site.path}"
            if kind == "unix"
            else f"remove it from the rule in {site.path} or, if that mailbox is not in use: "
            + fix.drop_entry(site, account.table, account.key)
        )
        yield Finding(
            "real-account",
            f'"{address}" is a real account: "{account.key}" in {account.table}'
            f" ({account.parameter})",
            "its owner no longer gets mail: it goes to the CRM or to unrouted_to",
            drop,
        )


def members(site: Site) -> Iterator[Finding]:
    """No other alias leads to a routed address: the milter would only see the alias."""
    own = alias_file.listed(site)
    maps = [each for each in split_list(site.postconf.value("virtual_alias_maps")) if each != own]
    tables = [(each, "postmap") for each in maps]
    tables += [(each, "postalias") for each in split_list(site.postconf.value("alias_maps"))]
    for table, tool in tables:
        for key, value in (site.tables.entries(table, tool) or {}).items():
            for member in members_of(value, site.postconf.origin):
                if member in site.routed and addresses.normalise(key) not in site.routed:
                    yield Finding(
                        "alias-member",
                        f'the alias "{key}" in {table} expands to "{member}"',
                        f'milters see the address before alias expansion: mail for "{key}"'
                        " is never rerouted and goes to unrouted_to",
                        _add_to_rule(site, key, member, value) + fix.drop_entry(site, table, key),
                    )


def _add_to_rule(site: Site, key: str, member: str, value: str) -> str:
    """Return how a rule replaces an alias, whose other members get a copy then."""
    others = [each for each in split_list(value) if addresses.normalise(each) != member]
    copies = f", {names(others)} to its also_deliver_to," if others else ""
    return f'add "{key}" to the rule for "{member}"{copies} in {site.path}, then: '


def unrouted(site: Site) -> Iterator[Finding]:
    """What is left arrives: each ``unrouted_to`` is a mailbox, here or elsewhere."""
    if isinstance(site.alias_lines, AliasError):
        yield Finding(
            "unrouted",
            str(site.alias_lines),
            "Postfix needs a mailbox for mail that is not rerouted (spam, a loop, milter down)",
            f"set unrouted_to in {site.path}, then {fix.ours(site, 'attach')}",
        )
    routed = frozenset(site.routed)
    for mailbox in dict.fromkeys(site.routed.values()):
        normal = addresses.normalise(mailbox)
        fate = site.domains.fate(normal, routed)
        if fate in (Destination.UNKNOWN, Destination.LOOP):
            yield Finding(
                "unrouted",
                f'"{mailbox}" (unrouted_to) {fate.value}',
                "mail that is not rerouted bounces after Postfix has accepted it",
                new_mailbox(site, normal),
            )


def new_mailbox(site: Site, address: str, key: str = "unrouted_to") -> str:
    """Return the command that makes a mailbox, by the class of its domain."""
    local, domain = addresses.local_of(address), addresses.domain_of(address)
    kind = site.domains.kind(domain)
    tables = site.domains.recipient_tables(kind)
    table = next((each for each in tables if plain(each).startswith(("hash:", "lmdb:"))), "")
    other = f"set {key} to another mailbox in {site.path}"
    if kind is Kind.LOCAL and any(each.endswith("unix:passwd.byname") for each in tables):
        return f"useradd --create-home {local}"
    values = {Kind.MAILBOX: f"{domain}/{local}/", Kind.RELAY: "OK", Kind.LOCAL: "x"}
    table = table or next(iter(tables), "")
    if table and kind in values and not fix.is_local_aliases(site, table):
        return fix.add_entry(site, table, address, values[kind])
    return other


def targets(site: Site) -> Iterator[Finding]:
    """The domain of a target is not ours: mail for the CRM has to leave this host."""
    routed = frozenset(site.routed)
    seen: set[str] = set()
    for rule in site.rules:
        for target in _targets(rule):
            normal = addresses.normalise(target)
            domain = addresses.domain_of(normal)
            kind = site.domains.kind(domain) if normal not in seen else Kind.REMOTE
            seen.add(normal)
            if kind in (Kind.REMOTE, Kind.UNSURE):
                continue
            fate = (
                site.domains.fate(normal, routed)
                if addresses.local_of(normal)
                else Destination.UNKNOWN
            )
            yield Finding(
                "target-local",
                f'the target "{target}" of rule "{rule.name}" is in the local domain'
                f' "{domain}" ({kind.value}): it {fate.value}',
                "mail for the CRM stays on this host instead of being sent to the CRM",
                _elsewhere(site, rule, domain, kind),
                Severity.WARNING if fate is Destination.MAILBOX else Severity.ERROR,
            )


def _elsewhere(site: Site, rule: Rule, domain: str, kind: Kind) -> str:
    """Return how mail for a target leaves this host; a domain with other mail stays here."""
    other = f'replace the target of rule "{rule.name}" in {site.path} by an address of the CRM'
    without = _without(site, kind.value, domain)
    listed = ", ".join(split_list(site.postconf.raw(kind.value)))
    if without == listed or _is_used(site, domain, kind):
        return f"{other}, then run systemctl reload crm-milter"
    command = fix.setting(site, kind.value, without)
    return f"remove {domain} from {kind.value}: {command}"


def _is_used(site: Site, domain: str, kind: Kind) -> bool:
    """Tell whether this host has, or may have, other addresses in a domain."""
    copies = (copy.address for rule in site.rules for copy in rule.copies)
    ours = [*site.routed, *site.routed.values(), *site.copied, *copies]
    if any(addresses.domain_of(addresses.normalise(each)) == domain for each in ours):
        return True
    tables = site.domains.recipient_tables(kind)
    listed = [site.tables.entries(each, site.domains.tool(each)) for each in tables]
    return any(each is None or any(key.endswith(f"@{domain}") for key in each) for each in listed)


def _targets(rule: Rule) -> Iterable[str]:
    """Return the targets of a rule; ``@domain`` where only their domain is known."""
    if rule.address_map is not None:
        for listed in rule.address_map.targets.values():
            yield from listed
    template = rule.replace_with
    if template is None:
        return
    if template.constant is not None:
        yield template.constant
    elif template.domain is not None and "\\" not in template.domain:
        yield f"@{addresses.ascii_domain(template.domain)}"


def _without(site: Site, name: str, domain: str) -> str:
    items = split_list(site.postconf.raw(name))
    return ", ".join(item for item in items if not f".{domain}".endswith(f".{item.lower()}"))


CHECKS = (domains, copied, accounts, members, unrouted, targets)
