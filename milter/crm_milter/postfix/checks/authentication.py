"""Check that a filter before crm-milter writes Authentication-Results, under the id that counts.

And that fields of this id are removed from mail that brings them (RFC 8601 section 5): by
header_checks, which see what comes in and not what milters add, by rspamd's routine, which removes
all instances before it adds its own, or by OpenDKIM with RemoveARAll. What other programs remove
cannot be seen, nor whether a filter checks DMARC at all.
"""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from crm_milter.config.problems import Severity
from crm_milter.postfix import authserv
from crm_milter.postfix.checks import fix
from crm_milter.postfix.checks.finding import Finding, names
from crm_milter.postfix.checks.headers import cleanup_of
from crm_milter.postfix.checks.spam_filters import before
from crm_milter.postfix.edit import Edit
from crm_milter.postfix.placement import is_reinjection, options, placement
from crm_milter.postfix.postconf import Service, split_list
from crm_milter.postfix.scanners import program
from crm_milter.postfix.site import Site
from crm_milter.rules.rule import OnUnauthenticated

_CHECK: Final = "authentication"
_WRITERS = ("OpenDMARC", "rspamd", "MIMEDefang")
# Files of programs that can remove the field, and what there says that they do.
_REMOVERS = {
    "rspamd": (
        ("etc/rspamd/local.d/milter_headers.conf", "etc/rspamd/override.d/milter_headers.conf"),
        re.compile(r"(?m)^[^#\n]*\bauthentication-results\b"),
    ),
    "OpenDKIM": (
        ("etc/opendkim.conf",),
        re.compile(r"(?im)^\s*RemoveARAll\s+(?:yes|true|1|on)\b"),
    ),
}
_REMOVE = ("ignore", "strip", "replace", "reject", "discard")
_NO_CHECKS = "no_header_body_checks"


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
    written = authserv.ids(site, root)
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


def border(site: Site, root: Path = Path("/")) -> Iterator[Finding]:
    """Fields of this host's ids that mail brings are removed; a gateway's have to stay."""
    ids = sorted(authserv.ids(site, root) & site.config.policy.authserv_ids)
    if not _asks(site) or not ids:
        return
    outer = [each for each in site.postconf.running_as("smtpd") if not is_reinjection(each)]
    texts = {text for each in placement(site).wanted for text in before(site, each)}
    if any(_removes(text, root) for text in texts):
        return
    open_ = [each for each in outer if not _is_checked(site, each, ids)]
    if open_:
        unknown = sorted(text for text in texts if program(text) is None)
        yield Finding(
            _CHECK,
            f"no header_checks of {names(each.label for each in open_)} remove the field"
            f" Authentication-Results of {names(ids)} that a message brings"
            + (f"; whether {names(unknown)} removes it cannot be seen" if unknown else ""),
            "its dmarc=fail counts as if a filter of this host had written it, and its dmarc=pass"
            " deceives other programs that read the field (RFC 8601 section 5)",
            _removal(site, open_, ids),
            Severity.WARNING,
        )


def _removes(text: str, root: Path) -> bool:
    """Tell whether the configuration of a program says that it removes such fields."""
    found = program(text, root)
    paths, said = _REMOVERS.get(found.name if found else "", ((), re.compile("")))
    return any(said.search(each) for each in authserv.texts(root, paths))


def _is_checked(site: Site, service: Service, ids: list[str]) -> bool:
    """Tell whether header_checks remove the field from mail that a service takes."""
    if _NO_CHECKS in options(site.postconf, service):
        return False
    lines = [f"Authentication-Results: {each}; dmarc=fail" for each in ids]
    tables = split_list(site.postconf.value("header_checks", cleanup_of(site, service)))
    answers = [site.tables.look_up(table, lines) for table in tables]
    return all(
        any(answer.get(line, "").lower().startswith(_REMOVE) for answer in answers)
        for line in lines
    )


def _prepended(site: Site, table: str, cleanup: Service | None) -> Edit:
    name = "header_checks"
    now = split_list(site.postconf.raw(name, cleanup))
    scope = cleanup.label if cleanup and name in cleanup.overrides else ""
    return Edit(scope, name, ", ".join([table, *(each for each in now if each != table)]))


def _removal(site: Site, services: list[Service], ids: list[str]) -> str:
    """Return the commands that remove the field, and spare what comes back from a filter."""
    path = site.postconf.directory / "authentication_checks"
    own = f"regexp:{path}"
    quoted = [re.sub(r"[^a-z0-9_-]", r"[\g<0>]", each) for each in ids]
    patterns = [f"/^Authentication-Results:[[:space:]]*{each}/ IGNORE" for each in quoted]
    cleanups = [cleanup_of(site, each) for each in services]
    edits = list(dict.fromkeys(_prepended(site, own, each) for each in cleanups))
    for each in site.postconf.running_as("smtpd"):
        now = options(site.postconf, each)
        then = [word for word in now if word != _NO_CHECKS]
        then += [_NO_CHECKS] if is_reinjection(each) else []
        if {*now} != {*then} and (each in services or is_reinjection(each)):
            edits.append(Edit(each.label, "receive_override_options", ", ".join(then)))
    words = " ".join(map(shlex.quote, patterns))
    return f"printf '%s\\n' {words} >> {shlex.quote(str(path))} && {fix.settings(site, edits)}"


CHECKS = (written, identity, border)
