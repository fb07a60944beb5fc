"""Reasons not to attach at all: nothing was changed yet."""

from crm_milter.postfix import alias_file, instances, plan
from crm_milter.postfix.checks import socket
from crm_milter.postfix.placement import placement
from crm_milter.postfix.postconf import PostfixError, Service
from crm_milter.postfix.site import Site


def refuse(site: Site, when_down: str) -> bool:
    """Raise PostfixError if attaching would do harm; True if the milter is down and may be."""
    reasons = plan.refusals(site) if when_down == "accept" else []
    if reasons:
        raise PostfixError(f"--when-down accept would lose or change mail: {'; '.join(reasons)}")
    alias_file.wanted(site)
    reason = socket.unreachable(site)
    if reason and not (when_down == "accept" and _is_attached(site)):
        raise PostfixError(f"{reason}; start crm-milter first, or Postfix would answer 451")
    _refuse_hidden(site)
    return bool(reason)


def _is_attached(site: Site) -> bool:
    return any(site.ours(site.milters(each)) for each in placement(site).wanted)


def _refuse_hidden(site: Site) -> None:
    hidden = [each for each in _asking(site) if each.chroot]
    if not hidden or site.socket.in_chroot is not None:
        return
    if not site.socket.address.startswith("unix:"):
        return
    queue = site.postconf.value("queue_directory")
    remedy = f"set milter.listen to unix:{queue}/crm-milter/milter.sock in {site.path}"
    if instances.others_attached(site):
        # They would lose the milter by that.
        services = (f"{each.label}/chroot=n" for each in hidden)
        remedy = f"run {site.postconf.command('postconf', '-F', *services)}"
    raise PostfixError(
        f'"{hidden[0].label}" runs in the chroot {queue} and cannot see {site.socket.address}:'
        f" {remedy}"
    )


def _asking(site: Site) -> list[Service]:
    where = placement(site)
    cleanups = site.postconf.running_as("cleanup") if where.non_smtpd else ()
    return [*where.wanted, *cleanups]
