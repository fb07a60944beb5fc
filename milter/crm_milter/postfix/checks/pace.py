"""Check that a CRM that counts mail by time does not get too much at once."""

from collections.abc import Iterator

from crm_milter import address as addresses
from crm_milter.config.crms import Crm, Rate, crm_of
from crm_milter.config.lint.crms import targets
from crm_milter.config.problems import Severity
from crm_milter.postfix.checks import fix
from crm_milter.postfix.checks.finding import Finding
from crm_milter.postfix.nexthop import next_hop
from crm_milter.postfix.postconf import split_list
from crm_milter.postfix.site import Site
from crm_milter.rules.rule import Rule

_NAME = "crm-slow"  # of the transport that is proposed
_MANY = 100  # messages, for the price


def rates(site: Site) -> Iterator[Finding]:
    """A rule limits a flood, or Postfix delivers to the CRM at a pace; each CRM is told once."""
    told: set[str] = set()
    for rule in site.rules:
        for target, crm, rate in _counting(rule):
            if crm.name not in told and not _is_paced(site, target):
                told.add(crm.name)
                yield _finding(site, rule, addresses.domain_of(target), crm.name, rate)


def _counting(rule: Rule) -> Iterator[tuple[str, Crm, Rate]]:
    if rule.flood is not None:
        return
    for target, _ in targets(rule):
        normal = addresses.normalise(target)
        crm = crm_of(addresses.domain_of(normal))
        if crm is not None and crm.rate is not None:
            yield normal, crm, crm.rate


def _is_paced(site: Site, target: str) -> bool:
    """Tell whether the transport of a target has a delay."""
    transport = next_hop(site, target).transport
    delay = site.postconf.value(f"{transport}_destination_rate_delay")
    return delay.rstrip("smhdw").strip("0") != ""


def _finding(site: Site, rule: Rule, domain: str, crm: str, rate: Rate) -> Finding:
    delay = -(-rate.seconds // rate.count)
    minutes = _MANY * delay // 60
    tables = split_list(site.postconf.value("transport_maps"))
    table = tables[0] if tables else "texthash:/etc/postfix/transport"
    commands = [
        site.postconf.command("postconf", "-M", f"{_NAME}/unix={_NAME} unix - - n - - smtp"),
        site.postconf.command("postconf", "-e", f"{_NAME}_destination_rate_delay={delay}s"),
        fix.add_entry(site, table, domain, f"{_NAME}:"),
    ]
    if not tables:
        commands.append(site.postconf.command("postconf", "-e", f"transport_maps={table}"))
    return Finding(
        "delivery-rate",
        f'rule "{rule.name}" has no flood limit, and {crm} takes {rate.count} messages of one'
        f" sender in {rate.seconds} seconds",
        f"mail above that is suspended or lost at {crm}",
        f'set "flood: auto" in rule "{rule.name}" in {site.path}, then run systemctl reload'
        f" crm-milter; or let Postfix wait {delay}s before each message to {crm}, whatever its"
        f" sender, so the last of {_MANY} waits {minutes} minutes: {' && '.join(commands)}",
        Severity.WARNING,
    )


CHECKS = (rates,)
