"""Checks of the ways around crm-milter: mail that reaches a routed address, or leaves a target,
by a table that rewrites addresses after the milters were asked.
"""  # noqa: D205

from collections.abc import Iterator

from crm_milter import address as addresses
from crm_milter.config.lint.mailboxes import KEYS, DeadEnds
from crm_milter.config.problems import Severity
from crm_milter.postfix import alias_file
from crm_milter.postfix.checks import fix
from crm_milter.postfix.checks.addresses import new_mailbox
from crm_milter.postfix.checks.finding import Finding, names
from crm_milter.postfix.domains import Destination, Kind, members_of
from crm_milter.postfix.postconf import split_list
from crm_milter.postfix.site import Site
from crm_milter.rules.strangers import domains_of, is_public

_CANONICAL = ("canonical_maps", "recipient_canonical_maps")
_BCC_MAPS = ("recipient_bcc_maps", "sender_bcc_maps")


def foreign(site: Site) -> Iterator[Finding]:
    """Each domain that a pattern takes is one that this Postfix accepts mail for."""
    for rule in site.rules:
        wanted = {each for part in rule.match for each in domains_of(part)}
        wanted.update(rule.mapped_domains())
        exact = {addresses.domain_of(each) for each in rule.addresses()}
        told = {each for each in exact if not is_public(each)}  # by address-domain
        for domain in sorted(wanted):
            if site.domains.kind(domain) is not Kind.REMOTE or domain in told:
                continue
            yield Finding(
                "foreign-domain",
                f'rule "{rule.name}" matches mail for "{domain}", and Postfix does not accept mail'
                " for that domain",
                "mail that users of this host send to that domain would go to the CRM",
                f'remove "{domain}" from rule "{rule.name}" in {site.path}, then run'
                " systemctl reload crm-milter",
            )


def tested(site: Site) -> Iterator[Finding]:
    """An address of a test rule is one that Postfix accepts without crm-milter's table."""
    for rule in site.tested:
        for address in rule.addresses():
            known = address in site.aliases or site.domains.fate(address) is not Destination.UNKNOWN
            if known or not address.isascii():
                continue
            mailbox = rule.unrouted_to or site.config.unrouted_to or "postmaster"
            yield Finding(
                "test-address",
                f'"{address}" is only in rule "{rule.name}", which has "mode: test", and Postfix'
                " knows no such mailbox",
                "a test rule changes nothing, so mail for the address is rejected: user unknown",
                fix.add_entry(site, _own_table(site), address, mailbox),
                Severity.WARNING,
            )


def _own_table(site: Site) -> str:
    """Return the administrator's first table of virtual aliases."""
    maps = split_list(site.postconf.value("virtual_alias_maps"))
    return next((each for each in maps if each != alias_file.listed(site)), "virtual_alias_maps")


def dead_ends(site: Site) -> Iterator[Finding]:
    """What is kept from a target does not get there by an alias."""
    ends = DeadEnds(site.config.recipient_delimiter)
    for rule in site.rules:
        ends.add(rule)
    for key in KEYS:
        named = [getattr(each, key, None) for each in (site.config, *site.rules)]
        for mailbox in dict.fromkeys(filter(None, named)):
            way = site.domains.on_the_way(addresses.normalise(mailbox))
            target = next((each for each in sorted(way) if ends.target_of(each)), "")
            if target:
                yield Finding(
                    "dead-end-target",
                    f'"{mailbox}" ({key}) is an alias that leads to "{target}", a target of rule'
                    f' "{ends.target_of(target)}"',
                    "spam that is kept from the CRM gets there, and a bounce shows its address",
                    f"set {key} to another mailbox in {site.path}, then run"
                    f" {fix.ours(site, 'map', '--write')} && systemctl reload crm-milter",
                )


def copies(site: Site) -> Iterator[Finding]:
    """Each address of a copy exists: the copy would be lost without a word (NOTIFY=NEVER)."""
    listed = (copy.address for rule in site.rules for copy in rule.copies)
    for copy in dict.fromkeys(listed):
        normal = addresses.normalise(copy)
        if site.domains.fate(normal) is Destination.UNKNOWN:
            yield Finding(
                "copy-unknown",
                f'"{copy}" (also_deliver_to) is unknown',
                "each copy bounces without notice",
                new_mailbox(site, normal, "also_deliver_to"),
            )


def rewritten(site: Site) -> Iterator[Finding]:
    """No table sends a target elsewhere."""
    targets = (target for rule in site.rules for target in rule.known_targets())
    for target in dict.fromkeys(filter(None, targets)):
        normal = addresses.normalise(target)
        for name in (*_CANONICAL, "virtual_alias_maps", "smtp_generic_maps"):
            tables = split_list(site.postconf.value(name))
            found = site.tables.first(tables, [*site.domains.keys(normal)])
            members = members_of(found[2], site.postconf.origin) if found else []
            if found and members != [normal]:
                yield Finding(
                    "target-rewritten",
                    f'the target "{target}" is rewritten to "{found[2]}" by "{found[1]}" in'
                    f" {found[0]} ({name})",
                    "mail for the CRM goes elsewhere",
                    _spare(site, found[0], found[1], normal),
                )
        yield from _masqueraded(site, target, addresses.domain_of(normal))


def _spare(site: Site, table: str, key: str, target: str) -> str:
    """Return the commands that keep a target as it is; an entry for a whole domain stays."""
    if key == target:
        return fix.drop_entry(site, table, key)
    return fix.add_entry(site, table, target, target)


def _masqueraded(site: Site, target: str, domain: str) -> Iterator[Finding]:
    classes = split_list(site.postconf.value("masquerade_classes"))
    if "envelope_recipient" not in classes:
        return
    for item in split_list(site.postconf.value("masquerade_domains")):
        if domain.endswith(f".{item.removeprefix('!').lower()}"):
            if item.startswith("!"):
                return
            kept = ", ".join(each for each in classes if each != "envelope_recipient")
            yield Finding(
                "target-rewritten",
                f'the target "{target}" is rewritten to the domain "{item}" (masquerade_domains)',
                "mail for the CRM goes elsewhere",
                fix.setting(site, "masquerade_classes", kept),
            )
            return


def alias_domains(site: Site) -> Iterator[Finding]:
    """No domain is an alias of one with routed addresses: the milter only sees the alias."""
    for name in ("virtual_alias_maps", *_CANONICAL):
        tables = split_list(site.postconf.value(name))
        for domain in _domains(site, tables):
            found = site.tables.first(tables, [f"@{domain}"])
            for member in split_list(found[2]) if found else []:
                missed = _missed(site, member.lower().removeprefix("@"), domain)
                if found and member.startswith("@") and missed:
                    yield Finding(
                        "alias-domain",
                        f'"@{domain}" in {found[0]} ({name}) is an alias of "{member}"',
                        "milters see the address before it is rewritten: mail for"
                        f" {names(missed)} is never rerouted and goes to unrouted_to",
                        f"add {names(missed, len(missed))} to the rules for {names([member])} in"
                        f" {site.path}, then run {fix.ours(site, 'map', '--write')}"
                        " && systemctl reload crm-milter",
                    )


def _domains(site: Site, tables: list[str]) -> list[str]:
    """Return the domains of this host, as far as they can be listed."""
    listed = [
        key[1:] for each in tables for key in site.tables.entries(each) or {} if key[:1] == "@"
    ]
    return list(dict.fromkeys([*site.domains.listed(), *listed]))


def _missed(site: Site, domain: str, alias: str) -> list[str]:
    """Return the routed addresses of a domain as they are in its alias, without a rule there."""
    table = site.table
    routed = (each for each in site.routed if addresses.domain_of(each) == domain)
    same = (addresses.join(addresses.local_of(each), alias) for each in routed)
    return [each for each in same if not any(table.possible(each))]


def canonical(site: Site) -> Iterator[Finding]:
    """No entry of a canonical map leads to a routed address."""
    table = site.table
    for name in _CANONICAL:
        for each in split_list(site.postconf.value(name)):
            for key, value in (site.tables.entries(each) or {}).items():
                (member, *_) = members_of(value, site.postconf.origin) or [""]
                source = _qualified(site, key)
                if member in site.routed and "@" in source and not any(table.possible(source)):
                    yield Finding(
                        "alias-member",
                        f'"{key}" in {each} ({name}) is rewritten to "{member}"',
                        f'milters see the address before it is rewritten: mail for "{source}" is'
                        " never rerouted and goes to unrouted_to",
                        f'add "{source}" to the rule for "{member}" in {site.path}, then run'
                        f" {fix.ours(site, 'map', '--write')} && systemctl reload crm-milter",
                    )


def _qualified(site: Site, key: str) -> str:
    normal = addresses.normalise(key)
    if normal.startswith("@"):
        return ""  # a whole domain, found as such
    return normal if "@" in normal else addresses.join(normal, site.postconf.origin)


def bcc(site: Site) -> Iterator[Finding]:
    """No automatic copy goes to a routed address: Postfix adds it after the milters."""
    always = site.postconf.value("always_bcc")
    for member in members_of(always, site.postconf.origin):
        if member in site.routed:
            yield Finding(
                "bcc-member",
                f'always_bcc is "{member}", which a rule matches',
                "Postfix adds the copy after it has asked milters: it goes to unrouted_to",
                fix.setting(site, "always_bcc", site.routed[member]),
            )
    for name in _BCC_MAPS:
        for each in split_list(site.postconf.value(name)):
            for key, value in (site.tables.entries(each) or {}).items():
                (member, *_) = members_of(value, site.postconf.origin) or [""]
                if member in site.routed:
                    yield Finding(
                        "bcc-member",
                        f'the copy for "{key}" in {each} ({name}) goes to "{member}", which a rule'
                        " matches",
                        "Postfix adds the copy after it has asked milters: it goes to unrouted_to",
                        fix.replace_entry(site, each, key, site.routed[member]),
                    )


CHECKS = (foreign, tested, dead_ends, copies, rewritten, alias_domains, canonical, bcc)
