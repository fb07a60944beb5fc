"""Check that nothing is refused behind an after-queue filter: Postfix would bounce it.

The message was accepted before, so that the refusal becomes a bounce to the sender in the
envelope, which spam forges (FILTER_README, "Advanced content filter").
"""

from collections.abc import Iterator

from crm_milter.postfix.checks.finding import Finding, names
from crm_milter.postfix.placement import is_reinjection, placement
from crm_milter.postfix.redirections import destinations
from crm_milter.postfix.site import Site
from crm_milter.rules.rule import OnOversize, OnSpam


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
    return any(destinations(site, each).any for each in services)


CHECKS = (rejects,)
