"""Checks of where our milter stands in this Postfix, and of what happens when it is down."""

import re
from collections.abc import Callable, Iterator

from crm_milter.config.problems import Severity
from crm_milter.postfix import plan
from crm_milter.postfix import plan as eligible
from crm_milter.postfix.checks import fix
from crm_milter.postfix.checks.finding import CheckName, Finding, names
from crm_milter.postfix.edit import Edit
from crm_milter.postfix.milters import MilterEntry
from crm_milter.postfix.placement import placement, takes_back
from crm_milter.postfix.postconf import PostfixError, Service
from crm_milter.postfix.site import Site

_SMTPD, _LOCAL = "smtpd_milters", "non_smtpd_milters"
_INHERITS = re.compile(r"\$[({]?smtpd_milters\b")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
# Seconds. A client waits 5 minutes for most replies and 10 for the last (RFC 5321 section
# 4.5.3.2); less than the lower bound and a busy host is taken for a dead one.
_SANE = {
    "connect_timeout": (1, 120),
    "command_timeout": (5, 300),
    "content_timeout": (30, 600),
}


def missing(site: Site) -> Iterator[Finding]:
    """Our milter is asked wherever mail comes in, master.cf overrides included, once and last."""
    for name, services in _places(site):
        for check, what, why, concerned in _faults(site, name, services):
            for origin, group in _by_origin(name, concerned).items():
                yield Finding(
                    check,
                    f"{name} of {names(each.label for each in group)} in {origin} {what}",
                    why,
                    _fix(site, name, group),
                )


def opted_out(site: Site) -> Iterator[Finding]:
    """A service that master.cf deliberately gives no milter is at least known of."""
    for service in placement(site).opted_out:
        yield Finding(
            "milter-missing",
            f'smtpd_milters of "{service.label}" is empty in master.cf',
            "mail accepted there is never rerouted, which may be intended: attach leaves it so",
            fix.settings(site, plan.opted_in(site, service)),
            Severity.WARNING,
        )


def _places(site: Site) -> list[tuple[str, tuple[Service, ...]]]:
    """Return both parameters, each with the services that have to find us there."""
    where = placement(site)
    cleanups = site.postconf.running_as("cleanup") if where.non_smtpd else ()
    return [(_SMTPD, where.wanted), (_LOCAL, cleanups)]


def _faults(
    site: Site, name: str, services: tuple[Service, ...]
) -> Iterator[tuple[CheckName, str, str, list[Service]]]:
    absent, twice, early = [], [], []
    for service in services:
        if name == _LOCAL and _INHERITS.search(site.postconf.raw(name, service)):
            continue  # what is wrong there was found in smtpd_milters
        entries = site.milters(service, name)
        ours = site.ours(entries)
        if not ours:
            absent.append(service)
        elif len(ours) > 1:
            twice.append(service)
        elif ours[0] != len(entries) - 1:
            early.append(service)
    kind = "received by SMTP" if name == _SMTPD else "from sendmail(1), for example from web forms,"
    lacks = f"does not include crm-milter ({site.socket.address})"
    yield "milter-missing", lacks, f"mail {kind} is never rerouted", absent
    yield "milter-order", "lists crm-milter twice", "a message may be routed twice", twice
    yield (
        "milter-order",
        "does not list crm-milter last",
        "recipients that a later milter rejects would still be rerouted, and a later spam"
        " filter's verdict is not seen",
        early,
    )


def _by_origin(name: str, services: list[Service]) -> dict[str, list[Service]]:
    groups: dict[str, list[Service]] = {}
    for each in services:
        groups.setdefault(fix.origin(name, each), []).append(each)
    return groups


def _fix(site: Site, name: str, services: list[Service]) -> str:
    """Return the commands that put our milter where it belongs in these services."""
    make: Callable[[Site, str], list[Edit]] = (
        plan.smtpd_milters if name == _SMTPD else plan.non_smtpd_milters
    )
    try:
        edits = make(site, eligible.wanted_action(site))
    except PostfixError as error:
        return str(error)
    scopes = {each.label for each in services}
    if any(name not in each.overrides for each in services):
        scopes.add("")
    return fix.settings(site, [each for each in edits if each.scope in scopes])


def early(site: Site) -> Iterator[Finding]:
    """Our milter does not decide before the content filter has given its verdict."""
    services = [each for each in placement(site).early if site.ours(site.milters(each))]
    for origin, group in _by_origin(_SMTPD, services).items():
        yield Finding(
            "content-filter",
            f"content_filter of {names(each.label for each in group)} runs after"
            f" crm-milter in {origin}",
            "mail is rerouted before the filter's verdict is known: attach crm-milter to"
            " the smtpd that gets mail back from the filter",
            _fix(site, _SMTPD, group),
        )


def bypassed(site: Site) -> Iterator[Finding]:
    """Behind a before-queue filter there is an smtpd that asks our milter."""
    where = placement(site)
    if not where.proxied or any(map(takes_back, (*where.wanted, *where.opted_out))):
        return  # that one was looked at
    for origin, group in _by_origin("smtpd_proxy_filter", list(where.proxied)).items():
        yield Finding(
            "proxy-filter",
            f"smtpd_proxy_filter of {names(each.label for each in group)} in {origin}"
            " hides message content from milters, and no smtpd on a loopback address takes"
            " the filtered mail back",
            "crm-milter sees only a session aborted at DATA, so nothing is rerouted",
            "let the filter hand mail back to an smtpd on a loopback address"
            " (SMTPD_PROXY_README), then run crm-milter attach",
            Severity.WARNING,
        )


def overrides(site: Site) -> Iterator[Finding]:
    """receive_override_options neither keeps milters off nor expands aliases at the wrong place."""
    for edit in plan.receive_overrides(site):
        check: CheckName
        scope = f'"{edit.scope}"' if edit.scope else "main.cf"
        now = site.postconf.raw("receive_override_options", _service(site, edit.scope))
        then = edit.value or ""
        if "no_milters" in now and "no_milters" not in then:
            what, check = "has no_milters", "milter-missing"
            why = "mail received by this service is never rerouted"
        elif "no_address_mappings" in then:
            what, check = "lacks no_address_mappings", "address-mappings"
            why = "the content filter gets the unrouted_to mailbox instead of the original address"
        else:
            what, check = "has no_address_mappings", "address-mappings"
            why = "virtual aliases are not expanded here: mail that is not rerouted has no mailbox"
        found = f"receive_override_options of {scope} {what}"
        yield Finding(check, found, why, fix.settings(site, [edit]))


def _service(site: Site, label: str) -> Service | None:
    return next((each for each in site.postconf.services if each.label == label), None)


def _ours(site: Site) -> Iterator[tuple[str, Service, MilterEntry]]:
    """Yield each parameter and service with its entry of ours, where it has one."""
    for name, services in _places(site):
        for service in services:
            entries = site.milters(service, name)
            for at in site.ours(entries)[:1]:
                yield name, service, entries[at]


def _setting(site: Site, service: Service, entry: MilterEntry, name: str) -> str:
    return entry.settings.get(name) or site.postconf.value(f"milter_{name}", service)


def default_action(site: Site) -> Iterator[Finding]:
    """While our milter is down mail waits, or is accepted where that loses nothing."""
    refusals = eligible.refusals(site)
    groups: dict[tuple[str, str, str], list[Service]] = {}
    for name, service, entry in _ours(site):
        action = _setting(site, service, entry, "default_action")
        if action in ("tempfail", "shutdown") or (action == "accept" and not refusals):
            continue
        groups.setdefault((action, name, fix.origin(name, service)), []).append(service)
    # One entry that both lists inherit is one mistake.
    actions = {action for action, _, _ in groups}
    for action in sorted(actions):
        mine = {key: value for key, value in groups.items() if key[0] == action}
        where = ", ".join(f"{name} in {origin}" for _, name, origin in mine)
        reason = f": {refusals[0]}" if action == "accept" and refusals else ""
        yield Finding(
            "default-action",
            f'default_action of crm-milter is "{action}" ({where}){reason}',
            "while crm-milter is down or busy, mail is rejected, held or delivered without"
            " it, instead of being retried by the sender",
            " && ".join(_fix(site, name, services) for (_, name, _), services in mine.items()),
        )


def timeouts(site: Site) -> Iterator[Finding]:
    """Postfix waits long enough for our milter, and not longer than a client waits for Postfix."""
    seen: set[tuple[str, str]] = set()
    for name, service, entry in _ours(site):
        for setting, (least, most) in _SANE.items():
            text = _setting(site, service, entry, setting)
            if least <= _seconds(text) <= most or (setting, text) in seen:
                continue
            seen.add((setting, text))
            right = {**entry.settings, setting: f"{max(least, min(_seconds(text), most))}s"}
            words = ",".join([entry.address, *(f"{key}={value}" for key, value in right.items())])
            raw = site.postconf.raw(name, service)
            value = raw.replace(entry.source, f"{{{words}}}")
            yield Finding(
                "timeout",
                f"{setting} of crm-milter is {text}, expected {least}s to {most}s",
                "if it is too short, a busy milter looks dead; if it is too long, the"
                " client gives up before Postfix does",
                fix.setting(site, name, value, [service]),
                Severity.WARNING,
            )


def _seconds(text: str) -> int:
    match = re.fullmatch(r"(\d+)([smhdw]?)", text.lower())
    return int(match[1]) * _UNITS[match[2]] if match else 0


def by_client(site: Site) -> Iterator[Finding]:
    """smtpd_milter_maps, which replaces smtpd_milters for some clients, is at least known of."""
    for service in placement(site).wanted:
        maps = site.postconf.value("smtpd_milter_maps", service)
        if maps:
            yield Finding(
                "milter-maps",
                f"smtpd_milter_maps is {maps}",
                "smtpd_milters is ignored for clients listed there, and their mail is not rerouted"
                " unless their entry also has crm-milter",
                f"add {site.socket.address} to each entry, but to none that exempts a client on"
                " purpose, such as by DISABLE",
                Severity.WARNING,
            )
            return


CHECKS = (missing, opted_out, early, bypassed, overrides, default_action, timeouts, by_client)
