"""Check that a filter before crm-milter writes Authentication-Results, under the id that counts.

What cannot be checked: whether that filter checks DMARC at all (rspamd writes the field only if
milter_headers says so), and whether it removes fields that a message brings with the same id. Those
gain a forger nothing: a "pass" means no more than no result, and a "fail" hurts the mail it is in.
"""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

from crm_milter.config.problems import Severity
from crm_milter.postfix.checks.finding import Finding, names
from crm_milter.postfix.checks.spam_filters import before
from crm_milter.postfix.placement import placement
from crm_milter.postfix.scanners import program
from crm_milter.postfix.site import Site
from crm_milter.rules.rule import OnUnauthenticated

_CHECK = "authentication"
_WRITERS = ("OpenDMARC", "rspamd", "MIMEDefang")
_OPENDMARC = ("etc/opendmarc.conf", "etc/opendmarc/opendmarc.conf")
_ID = re.compile(r"(?im)^\s*AuthservID\s+(\S+)")


def _asks(site: Site) -> bool:
    return any(each.on_unauthenticated is not OnUnauthenticated.ROUTE for each in site.rules)


def written(site: Site) -> Iterator[Finding]:
    """Something before crm-milter may write the field."""
    if not _asks(site):
        return
    texts = dict.fromkeys(t for each in placement(site).wanted for t in before(site, each))
    found = [program(text) for text in texts]
    if any(each is None or each.name in _WRITERS for each in found):
        return
    there = f", only {names(dict.fromkeys(each.name for each in found if each))}" if found else ""
    yield Finding(
        _CHECK,
        "nothing before crm-milter on this host writes a DMARC result into Authentication-Results"
        f"{there}",
        "on_unauthenticated has no effect, unless a host before this one writes the field",
        "put the milter of OpenDMARC or rspamd before crm-milter in smtpd_milters",
        Severity.WARNING,
    )


def identity(site: Site, root: Path = Path("/")) -> Iterator[Finding]:
    """The authserv-id is the one that the filters of this host write."""
    configured = site.config.policy.authserv_ids
    if not _asks(site) or not configured:
        return
    services = placement(site).wanted
    written = {site.postconf.value("myhostname", each).lower() for each in services}
    written |= {each.lower() for each in _opendmarc(root)}
    if written and not written & configured:
        yield Finding(
            _CHECK,
            f"authentication: is {names(sorted(configured))}, and the filters of this host write"
            f" {names(sorted(written))}",
            "fields with another authserv-id are ignored, so that on_unauthenticated has no effect",
            f"set authentication: {min(written)} in {site.path}, or to the first word of"
            " Authentication-Results in a delivered message, then run systemctl reload crm-milter",
            Severity.WARNING,
        )


def _opendmarc(root: Path) -> Iterator[str]:
    for name in _OPENDMARC:
        try:
            found = _ID.findall((root / name).read_text("utf-8", "replace"))
        except OSError:
            continue
        yield from (socket.gethostname() if each == "HOSTNAME" else each for each in found)


CHECKS = (written, identity)
