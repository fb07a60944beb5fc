"""Check that nothing is refused behind an after-queue filter: Postfix would bounce it.

The message was accepted before, so that the refusal becomes a bounce to the sender in the
envelope, which spam forges (FILTER_README, "Advanced content filter").
"""

import re
from collections.abc import Iterator
from pathlib import Path

from crm_milter.postfix.checks.finding import Finding, names
from crm_milter.postfix.lookup import plain
from crm_milter.postfix.placement import is_filtered, is_reinjection, placement
from crm_milter.postfix.postconf import Service, split_list
from crm_milter.postfix.site import Site
from crm_milter.rules.rule import OnOversize, OnSpam

_LISTS = ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data")
_FILTER = re.compile(r"(?<![\w-])FILTER\s+[\w-]+:", re.IGNORECASE)


def rejects(site: Site) -> Iterator[Finding]:
    """No rule rejects where a content filter hands mail back."""
    where = placement(site)
    behind = [each for each in where.wanted if is_reinjection(each)]
    if not (behind or where.early) or not _is_filtered(site):
        return
    for rule in site.rules:
        keys = ["on_spam"] if rule.on_spam is OnSpam.REJECT else []
        if rule.on_oversize is OnOversize.REJECT and rule.max_size is not None:
            keys.append("on_oversize")
        for key in keys:
            place = names(each.label for each in behind) if behind else "the filter's way back"
            yield Finding(
                "reject-after-queue",
                f'rule "{rule.name}" has "{key}: reject", and {place} gets mail that Postfix has'
                " already accepted",
                "the refusal becomes a bounce to the sender in the envelope, which spam forges",
                f'set {key}: leave in rule "{rule.name}" in {site.path}, then run'
                " systemctl reload crm-milter",
            )


def _is_filtered(site: Site) -> bool:
    services = site.postconf.running_as("smtpd", "pickup")
    return any(is_filtered(site.postconf, each) or _by_access(site, each) for each in services)


def _by_access(site: Site, service: Service) -> bool:
    """Tell whether an access(5) table, or a table of checks, sends mail to a filter."""
    parameters = [f"smtpd_{each}_restrictions" for each in _LISTS]
    checks = ("header_checks", "body_checks")
    words = (
        word
        for name in (*parameters, *checks)
        for word in split_list(site.postconf.value(name, service))
    )
    return any(_FILTER.search(_text(site, word)) for word in words if ":" in word)


def _text(site: Site, table: str) -> str:
    kind, _, path = plain(table).partition(":")
    if kind in ("inline", "regexp", "pcre", "cidr", "texthash") and path.startswith("{"):
        return path
    if kind in ("regexp", "pcre", "cidr"):
        try:
            lines = Path(path).read_text("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return "\n".join(line for line in lines if not line.startswith("#"))
    return "\n".join((site.tables.entries(table) or {}).values())
