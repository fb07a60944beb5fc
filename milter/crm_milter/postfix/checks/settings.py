"""Checks of single settings of Postfix that our milter depends on."""

import itertools
from collections.abc import Iterator

from crm_milter import address as addresses
from crm_milter.config.problems import Severity
from crm_milter.postfix import plan
from crm_milter.postfix.checks import fix
from crm_milter.postfix.checks.finding import Finding, names
from crm_milter.postfix.placement import placement
from crm_milter.postfix.postconf import Service, split_list
from crm_milter.postfix.site import Site
from crm_milter.rules.rule import Rule

_LISTS = tuple(f"smtpd_{each}_restrictions" for each in ("client", "helo", "sender", "relay"))
_RESTRICTIONS = (*_LISTS, "smtpd_recipient_restrictions")
_DEEPEST = 10
_MAILBOXES = ("mailbox_size_limit", "virtual_mailbox_limit")


def notify_classes(site: Site) -> Iterator[Finding]:
    """If the sender gets no bounce, the postmaster is notified."""
    edits = plan.notify_classes(site)
    if edits:
        yield Finding(
            "notify-classes",
            f'notify_classes ("{site.postconf.value("notify_classes")}") does not include "bounce"',
            "the sender gets no bounce (suppress_bounces), so a rejection by the CRM"
            " goes unnoticed",
            fix.settings(site, edits),
        )


def offered_dsn(site: Site) -> Iterator[Finding]:
    """Strangers cannot ask for a report that shows them the fields that a rule adds."""
    adding = [rule.name for rule in site.rules if rule.add_headers]
    edits = plan.discarded_dsn(site) if adding else []
    if edits:
        yield Finding(
            "dsn-offered",
            f"strangers may ask for delivery reports, and add_headers is set by {names(adding)}",
            "with NOTIFY=SUCCESS RET=HDRS Postfix returns the header as crm-milter edited it, so"
            " any sender can read the added fields",
            fix.settings(site, edits),
            Severity.WARNING,
        )


def original_recipient(site: Site) -> Iterator[Finding]:
    """Postfix keeps the recipient as it came, by which our milter deletes it."""
    name = "enable_original_recipient"
    wrong = [
        each for each in site.postconf.running_as("cleanup") if not site.postconf.is_on(name, each)
    ]
    if wrong:
        yield Finding(
            "original-recipient",
            f"{name} is no",
            "removing a rerouted recipient may also remove another recipient's copy: mail is lost",
            fix.setting(site, name, "yes", wrong),
        )


def delimiter(site: Site) -> Iterator[Finding]:
    """Both agree on what starts an extension."""
    ours, theirs = site.config.recipient_delimiter, site.postconf.value("recipient_delimiter")
    if set(ours) == set(theirs):
        return
    line = f'recipient_delimiter: "{theirs}"'
    yield Finding(
        "delimiter",
        f'recipient_delimiter is "{theirs}" in main.cf and "{ours}" in {site.path}',
        "addresses with an extension are accepted but not rerouted, or matched but not accepted",
        f"sed -i '/^recipient_delimiter:/d; $a {line}' {site.path} && systemctl reload crm-milter",
        Severity.WARNING,
    )


def message_size(site: Site) -> Iterator[Finding]:
    """A rule's limit is below that of Postfix, or it never counts."""
    text = site.postconf.value("message_size_limit")
    limit = int(text) if text.isdigit() else 0
    for rule in site.rules:
        if rule.max_size is not None and 0 < limit < rule.max_size:
            yield Finding(
                "message-size",
                f'max_size of rule "{rule.name}" is {rule.max_size}, above message_size_limit'
                f" ({limit})",
                "Postfix rejects such mail before the rule's max_size can apply",
                _larger(site, rule, limit),
                Severity.WARNING,
            )


def _larger(site: Site, rule: Rule, limit: int) -> str:
    """Return how both limits agree: no mailbox may be smaller than a message (local(8))."""
    lower = f'set max_size of rule "{rule.name}" to at most {limit} in {site.path}'
    values = [site.postconf.value(name) for name in _MAILBOXES]
    if any(0 < int(each) < (rule.max_size or 0) for each in values if each.isdigit()):
        return f"{lower}, then run systemctl reload crm-milter"
    return fix.setting(site, "message_size_limit", str(rule.max_size))


def unverified(site: Site) -> Iterator[Finding]:
    """Recipient verification, which probes unrouted_to instead of the CRM, spares our addresses."""
    seen: set[tuple[str, str]] = set()
    for service in placement(site).wanted:
        for name in _RESTRICTIONS:
            where = (name, fix.origin(name, service))
            items = split_list(site.postconf.value(name, service))
            _prefetch(site, service, items)
            probed = [
                each
                for each in site.routed
                if where not in seen and _probes(site, service, items, each) == "probe"
            ]
            seen.add(where)
            if probed:
                yield _probed(site, service, name, probed)


def _probed(site: Site, service: Service, name: str, probed: list[str]) -> Finding:
    check = "reject_unverified_recipient"
    pairs = ",".join(f"{each}=OK" for each in probed)
    exempt = f"check_recipient_access inline:{{{pairs}}}"
    raw = site.postconf.raw(name, service)
    right = raw.replace(check, f"{exempt}, {check}", 1)
    return Finding(
        "unverified-recipient",
        f"{name} in {fix.origin(name, service)} verifies {names(probed)} ({check})",
        "Postfix probes unrouted_to, not the CRM: while that mailbox is unreachable, mail"
        " for the CRM is rejected",
        fix.setting(site, name, right, [service])
        if check in raw
        else f"put {exempt} before {check} in {name}",
        Severity.WARNING,
    )


def _probes(
    site: Site, service: Service, items: list[str], address: str, depth: int = _DEEPEST
) -> str:
    """Return "probe" where the restrictions verify an address, "end" where they decide, or ""."""
    classes = split_list(site.postconf.value("smtpd_restriction_classes", service))
    queue = iter(items if depth else ())
    for item in queue:
        word = item.lower()
        answer = ""
        if word == "warn_if_reject":
            next(queue, None)
        elif word == "check_recipient_access":
            answer = _access(site, service, next(queue, ""), address, depth)
        elif word.startswith("check_"):
            next(queue, None)
        elif item in classes:
            inner = split_list(site.postconf.value(item, service))
            answer = _probes(site, service, inner, address, depth - 1)
        elif word == "reject_unverified_recipient":
            answer = "probe"
        elif word in ("permit", "reject", "defer"):
            answer = "end"
        if answer:
            return answer
    return ""


def _prefetch(site: Site, service: Service, items: list[str]) -> None:
    """Ask each table about all addresses at once: a postmap for each would take seconds."""
    classes = split_list(site.postconf.value("smtpd_restriction_classes", service))
    inner = [word for each in classes for word in split_list(site.postconf.value(each, service))]
    words = [*items, *inner]
    for word, table in itertools.pairwise(words):
        if word.lower() == "check_recipient_access":
            site.tables.look_up(table, [key for each in site.routed for key in _keys(each)])


def _keys(address: str) -> list[str]:
    """Return what access(5) looks up for a recipient, in order."""
    domains = addresses.with_parents(addresses.domain_of(address))
    return [address, *domains, f"{addresses.local_of(address)}@"]


def _access(site: Site, service: Service, table: str, address: str, depth: int) -> str:
    found = site.tables.first([table], _keys(address))
    action = found[2] if found else "dunno"
    first = action.split(None, 1)[0].lower() if action.split() else "dunno"
    if first == "dunno":
        return ""
    if first == "ok" or first.isdigit():
        return "end"
    return _probes(site, service, split_list(action), address, depth - 1)


CHECKS = (notify_classes, offered_dsn, original_recipient, delimiter, message_size, unverified)
