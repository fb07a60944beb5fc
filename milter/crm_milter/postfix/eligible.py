"""Whether mail may go on without us while we are down (``--when-down accept``).

Only where nothing is lost by it: every matched address is in the table of virtual aliases, so
that its mail lands in ``unrouted_to``, and no rule counts on refusing or discarding.
"""

from crm_milter.pattern import AddressList, Exact, InDomain
from crm_milter.postfix.site import Site, exact_addresses
from crm_milter.rules import OnOversize, OnSpam, Rule


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
            return str(getattr(pattern, "source", "*"))
    keys = exact_addresses(rule)
    if rule.address_map is not None:
        keys += [key for key in rule.address_map.targets if key.startswith("@")]
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
