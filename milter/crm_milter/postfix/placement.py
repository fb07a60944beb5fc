"""Which smtpd ought to have our milter: those where the verdict is there and mail passes once.

Without a content filter that is every smtpd. A before-queue filter (smtpd_proxy_filter) hides
DATA from the milters of the smtpd before it, so ours belongs to the one behind. With an
after-queue filter (content_filter) the verdict is there on the way back only, unless a spam milter
gives it before: then as well the smtpd behind the filter is the place, and the one before it must
not expand virtual aliases, or the filter would get the alias's mailbox instead of help@.
"""

from dataclasses import dataclass

from crm_milter.postfix.milters import MilterEntry
from crm_milter.postfix.postconf import Postconf, Service, split_list
from crm_milter.postfix.redirections import destinations
from crm_milter.postfix.scanners import Writes, writes
from crm_milter.postfix.site import Site
from crm_milter.spam.verdict import Stands

_LOOPBACK = ("127.", "[127.", "localhost:", "[::1]", "::1")
_TRAITS = frozenset(
    {"content_filter", "smtpd_proxy_filter", "smtpd_authorized_xforward_hosts", "mynetworks"}
)


@dataclass(frozen=True, slots=True)
class Placement:
    """``wanted``: the smtpd services that need ours; ``early``: those that a content filter
    follows, where it would come too early; ``proxied``: those before a before-queue filter;
    ``opted_out``: those that master.cf deliberately gives no milter.
    """  # noqa: D205

    wanted: tuple[Service, ...]
    early: tuple[Service, ...]
    proxied: tuple[Service, ...]
    non_smtpd: bool  # whether mail from sendmail(1) needs ours before it is queued
    opted_out: tuple[Service, ...] = ()


def placement(site: Site) -> Placement:
    """Return where our milter belongs in this Postfix."""
    postconf = site.postconf
    smtpds = postconf.running_as("smtpd")
    proxied = tuple(each for each in smtpds if postconf.value("smtpd_proxy_filter", each))
    filtered = [each for each in smtpds if each not in proxied and is_filtered(site, each)]
    early = tuple(each for each in filtered if _is_early(site, each, site.milters(each)))
    timely = [each for each in filtered if each not in early]
    plain = [each for each in smtpds if each not in proxied and each not in filtered]
    if timely and not early and not proxied:
        # The filter hands back what ours has already dealt with.
        plain = [each for each in plain if not is_reinjection(each)]
    is_behind = bool(early or proxied)
    opted_out = [each for each in (*plain, *timely) if _opts_out(each, is_behind=is_behind)]
    wanted = {*plain, *timely} - {*opted_out}
    pickups = postconf.running_as("pickup")
    local = [_is_early(site, each, _local(site)) for each in pickups if is_filtered(site, each)]
    return Placement(
        wanted=tuple(each for each in smtpds if each in wanted),
        early=early,
        proxied=proxied,
        non_smtpd=not any(local),
        opted_out=tuple(each for each in smtpds if each in opted_out),
    )


def _opts_out(service: Service, *, is_behind: bool) -> bool:
    """Tell whether a service has no milter on purpose; the stock one behind a filter has not."""
    if is_behind and is_reinjection(service):
        return False
    return service.overrides.get("smtpd_milters", "-").strip() == ""


def is_filtered(site: Site, service: Service) -> bool:
    """Tell whether all that a service takes goes to a content filter after it was queued.

    Behind a filter a FILTER action of main.cf would be a loop: it is not in effect there.
    """
    if is_reinjection(service):
        return bool(site.postconf.value("content_filter", service))
    return bool(destinations(site, service).always)


def _is_early(site: Site, service: Service, entries: list[MilterEntry]) -> bool:
    """Tell whether the verdict comes after these milters: none of them can have given it.

    A milter that may be anything is taken for the spam filter unless the content filter is one.
    """
    filters = [each for each in site.config.policy.filters if each.stands is not Stands.GATEWAY]
    if not filters:
        return False
    ours = site.ours(entries)
    milters = [each.address for at, each in enumerate(entries) if at not in ours]
    behind = destinations(site, service).always
    if any(each.stands is Stands.REINJECTION for each in filters):
        return True
    before = {writes(text, each) for text in milters for each in filters}
    after = {writes(text, each) for text in behind for each in filters}
    if Writes.YES in before or after == {Writes.NO}:
        return False
    return Writes.UNKNOWN not in before or Writes.YES in after


def _local(site: Site) -> list[MilterEntry]:
    cleanup = next(iter(site.postconf.running_as("cleanup")), None)
    return site.milters(cleanup, "non_smtpd_milters") if cleanup else []


def is_reinjection(service: Service) -> bool:
    """Tell whether a service looks like the one behind a filter (FILTER_README, amavis)."""
    return service.name.startswith(_LOOPBACK) and not _TRAITS.isdisjoint(service.overrides)


def takes_back(service: Service) -> bool:
    """Tell whether a service may be behind a before-queue filter: there any option is a sign."""
    own = bool(service.overrides) and not service.overrides.get("smtpd_proxy_filter")
    return is_reinjection(service) or (service.name.startswith(_LOOPBACK) and own)


def options(postconf: Postconf, service: Service) -> list[str]:
    """Return the receive_override_options of a service."""
    return [
        each.lower() for each in split_list(postconf.value("receive_override_options", service))
    ]
