"""Check that something before crm-milter can write the header fields of the spam filter."""

from collections.abc import Iterator
from typing import Final

from crm_milter.config.problems import Severity
from crm_milter.postfix.checks.finding import Finding, names
from crm_milter.postfix.placement import is_reinjection, placement
from crm_milter.postfix.postconf import Service
from crm_milter.postfix.redirections import destinations, unlisted
from crm_milter.postfix.scanners import Writes, program, writes
from crm_milter.postfix.site import Site
from crm_milter.spam.presets import PRESETS
from crm_milter.spam.verdict import SpamFilter, Stands

_CHECK: Final = "spam-filter"


def absent(site: Site) -> Iterator[Finding]:
    """Each filter that runs on this host is there; a gateway's fields come with the message."""
    texts = list(dict.fromkeys(_all_before(site)))
    for each in site.config.policy.filters:
        if each.name not in PRESETS or Stands.GATEWAY in each.stands:
            continue
        said = {text: writes(text, each) for text in texts}
        if Writes.YES not in said.values():
            unknown = [text for text, what in said.items() if what is Writes.UNKNOWN]
            unknown += _unlisted(site)
            yield _unknown(each, unknown) if unknown else _missing(site, each, texts)


def _unlisted(site: Site) -> list[str]:
    """Return the tables that may send mail to a filter by FILTER, which cannot be seen."""
    services = site.postconf.running_as("smtpd", "cleanup")
    return list(dict.fromkeys(each for one in services for each in unlisted(site, one)))


def _all_before(site: Site) -> Iterator[str]:
    """Yield what looks at mail before crm-milter does, on whichever way."""
    place = placement(site)
    for service in place.wanted:
        yield from before(site, service)
    if not place.wanted:  # the filters hand everything back by sendmail(1)
        for service in place.early:
            yield from destinations(site, service).any


def before(site: Site, service: Service) -> Iterator[str]:
    """Yield the milters and filters that see the mail of a service before crm-milter does."""
    entries = site.milters(service)
    ours = site.ours(entries)
    yield from (each.address for each in entries[: ours[0] if ours else None])
    if not is_reinjection(service):
        return
    for each in site.postconf.running_as("smtpd", "pickup"):
        yield from destinations(site, each).any
        if not is_reinjection(each) and each.command == "smtpd":
            proxy = site.postconf.value("smtpd_proxy_filter", each)
            yield from [f"proxy:{proxy}"] if proxy else []
            yield from _others(site, each)


def _others(site: Site, service: Service) -> Iterator[str]:
    entries = site.milters(service)
    ours = site.ours(entries)
    return (each.address for at, each in enumerate(entries) if at not in ours)


def _unknown(each: SpamFilter, texts: list[str]) -> Finding:
    return Finding(
        _CHECK,
        f"it is unknown whether {names(texts)} is, or sends mail to, the spam filter of"
        f' "spam: {each.name}"',
        "if it does not write those header fields, spam is rerouted to the CRM",
        f'send yourself a message that is spam and look for "{each.tests[0].name}" in its header',
        Severity.WARNING,
    )


def _missing(site: Site, each: SpamFilter, texts: list[str]) -> Finding:
    found = [found.name for text in texts if (found := program(text))]
    there = f", only {names(dict.fromkeys(found))}" if found else ""
    other = next((name for name in PRESETS if _fits(name, texts)), "")
    return Finding(
        _CHECK,
        f'nothing before crm-milter on this host writes the fields of "spam: {each.name}"{there}',
        "spam is rerouted to the CRM, unless a host before this one marks it",
        f"set spam: {other} in {site.path}, then run systemctl reload crm-milter"
        if other
        else "put the milter of the spam filter before crm-milter in smtpd_milters, or set spam:"
        f" in {site.path} to the filter that marks the mail",
        Severity.WARNING,
    )


def _fits(name: str, texts: list[str]) -> bool:
    return any(writes(text, PRESETS[name]) is Writes.YES for text in texts)


def sometimes(site: Site) -> Iterator[Finding]:
    """No filter that gets some mail only comes after crm-milter."""
    filters = [each for each in site.config.policy.filters if Stands.GATEWAY not in each.stands]
    for service in placement(site).wanted:
        later = () if is_reinjection(service) else destinations(site, service).sometimes
        told = [each for each in later if any(_may(each, one) for one in filters)]
        earlier = [text for text in before(site, service) if any(_may(text, f) for f in filters)]
        if told and not earlier:
            yield Finding(
                "content-filter",
                f'FILTER sends some mail of "{service.label}" to {names(told)} after crm-milter',
                "that mail is rerouted before the filter's verdict is known",
                "send all mail to the filter (content_filter), then run crm-milter attach",
                Severity.WARNING,
            )


def _may(text: str, each: SpamFilter) -> bool:
    return writes(text, each) is not Writes.NO


CHECKS = (absent, sometimes)
