"""What has to change in Postfix for our milter to work there: edits of single parameters.

The same edits are what ``attach`` does and what the findings of ``check --postfix`` tell a
person to do. Each function looks at a site as it is and returns what is missing; [] is good.
"""

import re
from collections.abc import Iterator, Mapping

from crm_milter.postfix import alias_file, patternfile
from crm_milter.postfix.edit import Edit
from crm_milter.postfix.milters import MilterEntry, parse
from crm_milter.postfix.placement import Placement, is_filtered, is_reinjection, options, placement
from crm_milter.postfix.postconf import PostfixError, Service, split_list
from crm_milter.postfix.site import Site
from crm_milter.postfix.traces import expanded
from crm_milter.rules.pattern import AddressList, Exact, InDomain
from crm_milter.rules.rule import OnOversize, OnSpam, Rule

_NO_MAPPINGS = "no_address_mappings"
_NON_SMTPD = re.compile(r"\$[({]?non_smtpd_milters\b")
# Who comes there has an account, and may ask for reports.
_FOR_ACCOUNTS = frozenset({"submission", "submissions", "smtps", "587", "465"})
_DISCARDED = "smtpd_discard_ehlo_keywords"
_ORIGINAL = "enable_original_recipient"


def smtpd_milters(site: Site, when_down: str) -> list[Edit]:
    """Return the edits that put our milter last, once, with our settings, where it belongs."""
    where, name = placement(site), "smtpd_milters"
    values = {
        each: _with_ours(site, name, each, when_down)
        for each in where.wanted
        if not _waits(site, where, each)
    }
    values |= {each: _without_ours(site, name, each) for each in where.early}
    return _scoped(site, name, values)


def opted_in(site: Site, service: Service) -> list[Edit]:
    """Return the edit that gives ours to a service that deliberately has no milter."""
    name = "smtpd_milters"
    return [Edit(service.label, name, _with_ours(site, name, service, "tempfail"))]


def _waits(site: Site, where: Placement, service: Service) -> bool:
    """Tell whether a service has its milters of non_smtpd_milters, which will get ours."""
    raw = expanded(site.postconf, site.postconf.raw("smtpd_milters", service), service, _NON_SMTPD)
    return where.non_smtpd and bool(_NON_SMTPD.search(raw)) and not _has_ours_by_cleanup(site)


def _has_ours_by_cleanup(site: Site) -> bool:
    return any(
        site.ours(site.milters(each, "non_smtpd_milters"))
        for each in site.postconf.running_as("cleanup")
    )


def non_smtpd_milters(site: Site, when_down: str) -> list[Edit]:
    """Return the same for mail from sendmail(1), which only cleanup(8) sees."""
    if not placement(site).non_smtpd:
        return []
    name = "non_smtpd_milters"
    for service in site.postconf.running_as("cleanup"):
        value = _with_ours(site, name, service, when_down)
        if value != site.postconf.raw(name, service):
            scope = service.label if name in service.overrides else ""
            return [Edit(scope, name, value)]
    return []


def _with_ours(site: Site, name: str, service: Service, when_down: str) -> str:
    """Return a list of milters with ours at its end; the same text where it is there already."""
    raw = site.postconf.raw(name, service)
    entries = site.milters(service, name)
    ours = site.ours(entries)
    is_last = ours == [len(entries) - 1]
    if is_last and _is_right(site, entries[-1], service, when_down):
        return raw
    others = _others(site, raw)
    if len(ours) > len(split_list(raw)) - len(others):
        # non_smtpd_milters = $smtpd_milters inherits ours, and is right if that is.
        if is_last:
            return raw
        rest = parse(expanded(site.postconf, ", ".join(others), service))
        if site.ours(rest) == [len(rest) - 1]:
            return ", ".join(others)
        raise PostfixError(
            f'{name} of "{service.label}" includes crm-milter through a variable in'
            f' "{raw}": remove it there first'
        )
    return ", ".join([*others, site.socket.entry(when_down)])


def _without_ours(site: Site, name: str, service: Service) -> str:
    raw = site.postconf.raw(name, service)
    others = _others(site, raw)
    return raw if len(others) == len(split_list(raw)) else ", ".join(others)


def _others(site: Site, raw: str) -> list[str]:
    return [item for item in split_list(raw) if not any(map(site.socket.is_ours, parse(item)))]


def _is_right(site: Site, entry: MilterEntry, service: Service, when_down: str) -> bool:
    action = entry.settings.get("default_action") or site.postconf.value(
        "milter_default_action", service
    )
    # From 3.11 on "shutdown" is Postfix's own way to say tempfail.
    meant = {"tempfail", "shutdown"} if when_down == "tempfail" else {when_down}
    return action in meant and site.socket.is_reached(entry, service)


def _scoped(site: Site, name: str, values: Mapping[Service, str]) -> list[Edit]:
    """Return the edits for new values of some smtpd services: in main.cf where all agree."""
    smtpds = site.postconf.running_as("smtpd")
    inheriting = [each for each in smtpds if name not in each.overrides]
    in_main = {values.get(each) for each in inheriting}
    shared = next(iter(in_main)) if len(in_main) == 1 else None
    edits = []
    if shared is not None and shared != site.postconf.raw(name):
        edits.append(Edit("", name, shared))
    for service, value in values.items():
        if service in inheriting and shared is not None:
            continue
        if value != site.postconf.raw(name, service):
            edits.append(Edit(service.label, name, value))
    return edits


def receive_overrides(site: Site) -> list[Edit]:
    """Return the edits that let ours be asked, and let it see addresses before their aliases."""
    where = placement(site)
    name = "receive_override_options"
    values = {}
    for service in site.postconf.running_as("smtpd"):
        now = options(site.postconf, service)
        then = _overrides(site, service, where)
        same = set(now) == set(then)
        values[service] = site.postconf.raw(name, service) if same else ", ".join(then)
    return _scoped(site, name, values)


def _overrides(site: Site, service: Service, where: Placement) -> list[str]:
    then = options(site.postconf, service)
    if service in where.wanted:
        unwanted = {"no_milters"}
        # Before its filter an smtpd may rightly leave aliases to the one behind.
        if not is_filtered(site, service):
            unwanted.add(_NO_MAPPINGS)
        return [each for each in then if each not in unwanted]
    if service in where.early and _NO_MAPPINGS not in then:
        return [*then, _NO_MAPPINGS]
    return then


def virtual_aliases(site: Site) -> list[Edit]:
    """Return the edit that adds our table, unless Postfix knows all its entries already."""
    if not site.aliases or not alias_file.missing(site):
        return []
    return _with_table(site, alias_file.table(site))


def patterns(site: Site) -> list[Edit]:
    """Return the edit that adds our table for patterns, unless Postfix accepts their addresses."""
    if not patternfile.wanted(site) or not patternfile.refused(site):
        return []
    return _with_table(site, patternfile.table(site))


def _with_table(site: Site, table: str) -> list[Edit]:
    raw = site.postconf.raw("virtual_alias_maps")
    items = split_list(raw) if site.postconf.value("virtual_alias_maps") else []
    if table in split_list(site.postconf.value("virtual_alias_maps")):
        return []
    return [Edit("", "virtual_alias_maps", ", ".join([*items, table]))]


def notify_classes(site: Site) -> list[Edit]:
    """Return the edit that has the postmaster told of bounces that the sender is spared."""
    if not suppresses_bounces(site):
        return []
    classes = split_list(site.postconf.value("notify_classes"))
    if "bounce" in classes:
        return []
    value = ", ".join([*split_list(site.postconf.raw("notify_classes")), "bounce"])
    return [Edit("", "notify_classes", value)]


def suppresses_bounces(site: Site) -> bool:
    """Tell whether some rule asks for NOTIFY=NEVER."""
    return any(
        (rule.replaces and rule.suppress_bounces) or any(c.suppress_bounces for c in rule.copies)
        for rule in site.rules
    )


def original_recipient(site: Site) -> list[Edit]:
    """Return the edits without which a deletion could hit another recipient's copy."""
    scopes = [
        each.label for each in site.postconf.running_as("cleanup") if _ORIGINAL in each.overrides
    ]
    edits = [Edit(each, _ORIGINAL, "yes") for each in scopes if _is_off(site, each)]
    return edits if site.postconf.is_on(_ORIGINAL) else [Edit("", _ORIGINAL, "yes"), *edits]


def _is_off(site: Site, label: str) -> bool:
    return any(
        each.label == label and not site.postconf.is_on(_ORIGINAL, each)
        for each in site.postconf.services
    )


def discarded_dsn(site: Site) -> list[Edit]:
    """Return the edits that keep strangers from asking for a report with the edited header."""
    values = {
        each: ", ".join([*split_list(site.postconf.raw(_DISCARDED, each)), "dsn"])
        for each in _offering_dsn(site)
    }
    return _scoped(site, _DISCARDED, values)


def _offering_dsn(site: Site) -> list[Service]:
    return [
        each
        for each in site.postconf.running_as("smtpd")
        if not is_reinjection(each)
        and each.name.rpartition(":")[2] not in _FOR_ACCOUNTS
        and "dsn" not in split_list(site.postconf.value(_DISCARDED, each).lower())
    ]


def remarks(site: Site, *, discard_dsn: bool) -> Iterator[str]:
    """Yield what a person should know of this Postfix, changed as it will be."""
    if not site.rules and site.tested:
        yield (
            "all rules are in test mode: no mail changes its way, and the log of crm-milter says"
            ' what would be rerouted; when a rule loses "mode: test", run crm-milter attach again'
        )
    for service in placement(site).opted_out:
        yield f'"{service.label}" has smtpd_milters= in master.cf: its mail is not routed'
    maps = {site.postconf.value("smtpd_milter_maps", each) for each in placement(site).wanted}
    for table in sorted({item for value in maps for item in split_list(value)}):
        yield f"smtpd_milter_maps has {table}: its clients are routed only if it names crm-milter"
    if not discard_dsn and _offering_dsn(site):
        yield (
            "anyone may ask Postfix for a report with the header after the edits (NOTIFY=SUCCESS"
            " RET=HDRS): attach --discard-dsn stops offering that to strangers"
        )


# Whether mail may go on without us while we are down (``--when-down accept``).
#
# Only where nothing is lost by it: every matched address is in the table of virtual aliases, so
# that its mail lands in ``unrouted_to``, and no rule counts on refusing or discarding.


def refusals(site: Site) -> list[str]:
    """Return the reasons against it, [] if there are none."""
    found = []
    for rule in site.rules:
        if rule.on_spam in (OnSpam.REJECT, OnSpam.DISCARD):
            found.append(f'rule "{rule.name}" has on_spam: {rule.on_spam.value}')
        if rule.max_size is not None and rule.on_oversize is OnOversize.REJECT:
            found.append(f'rule "{rule.name}" has on_oversize: reject')
        unmapped = _unmapped(site, rule)
        if unmapped:
            found.append(
                f'rule "{rule.name}" matches "{unmapped}", which is not in the virtual alias table'
            )
    return found


def _unmapped(site: Site, rule: Rule) -> str:
    """Return something that a rule matches and the table has not, "" if it has all."""
    for pattern in rule.match:
        if isinstance(pattern, InDomain):
            if f"@{pattern.domain}" not in site.aliases:
                return f"@{pattern.domain}"
        elif not isinstance(pattern, Exact | AddressList):
            return str(pattern)
    keys = (*rule.addresses(), *(f"@{domain}" for domain in rule.mapped_domains()))
    return next((key for key in keys if key not in site.aliases), "")


def wanted_action(site: Site) -> str:
    """Return what our entry says now, if that is right, else "tempfail"."""
    for service in site.postconf.running_as("smtpd"):
        entries = site.milters(service)
        for at in site.ours(entries):
            default = site.postconf.value("milter_default_action", service)
            action = entries[at].settings.get("default_action") or default
            if action == "accept" and not refusals(site):
                return action
    return "tempfail"
