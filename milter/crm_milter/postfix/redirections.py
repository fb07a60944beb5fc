"""Where mail goes after it was queued: content_filter, and FILTER in access tables and checks.

A FILTER action (access(5), header_checks(5)) takes precedence over content_filter. One that
matches every message is like content_filter; another concerns some mail only.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crm_milter.postfix.lookup import plain
from crm_milter.postfix.postconf import Service, split_list
from crm_milter.postfix.scanners import program
from crm_milter.postfix.site import Site

_LISTS = ("client", "helo", "sender", "relay", "recipient", "data", "end_of_data")
# Each answers for one key at a time.
_ASKED = frozenset({"ldap", "mysql", "pgsql", "sqlite", "mongodb", "tcp", "socketmap", "memcache"})
_FILTER = re.compile(r"(?<![\w-])FILTER\s+([\w-]+:[^\s,}]*)", re.IGNORECASE)
# A pattern or network that takes all there is, as administrators write it.
_ALL = re.compile(r"^\s*(?:/\^?(?:\.[*+]?)?\$?/\w*|!/\^\$/|0\.0\.0\.0/0|::/0)\s")


@dataclass(frozen=True, slots=True)
class Destinations:
    """Transports and next hops, with the command where a transport runs one."""

    always: tuple[str, ...]
    sometimes: tuple[str, ...]

    @property
    def any(self) -> tuple[str, ...]:
        """Return all of them."""
        return (*self.always, *self.sometimes)


def destinations(site: Site, service: Service) -> Destinations:
    """Return where mail that a service takes is sent by way of filtering."""
    always: list[str] = []
    sometimes: list[str] = []
    content_filter = site.postconf.value("content_filter", service)
    if content_filter:
        always.append(content_filter)
    for table in _tables(site, service):
        for line in entries(site, table):
            found = _FILTER.search(line)
            if found:
                (always if _ALL.match(line) else sometimes).append(found[1])
    return Destinations(
        *(tuple(_told(site, each) for each in some) for some in (always, sometimes))
    )


def unlisted(site: Site, service: Service) -> Iterator[str]:
    """Yield what may answer FILTER and cannot be listed: tables (LDAP, SQL), policy services."""
    words = _words(site, service)
    for word, server in itertools.pairwise(words):
        # Greylisting and SPF do not filter content.
        if word.lower() == "check_policy_service" and not _is_other(server):
            yield server
    for table in _tables(site, service):
        kind = plain(table).partition(":")[0]
        if kind in _ASKED and site.tables.entries(table) is None:
            yield table


def _is_other(server: str) -> bool:
    found = program(server)
    return found is not None and found.fields == frozenset()


def _tables(site: Site, service: Service) -> list[str]:
    words = _words(site, service)
    servers = {
        server
        for word, server in itertools.pairwise(words)
        if word.lower() == "check_policy_service"
    }
    return [word for word in dict.fromkeys(words) if ":" in word and word not in servers]


def _words(site: Site, service: Service) -> list[str]:
    """Return the words of all restrictions, of their classes (RESTRICTION_CLASS_README), checks."""
    names = ["header_checks", "body_checks"]
    if service.command == "smtpd":
        names += [f"smtpd_{each}_restrictions" for each in _LISTS]
        names += split_list(site.postconf.value("smtpd_restriction_classes", service))
    return [word for name in names for word in split_list(site.postconf.value(name, service))]


def entries(site: Site, table: str) -> list[str]:
    """Return the entries of a table with their keys; what cannot be listed has none."""
    kind, _, path = plain(table).partition(":")
    if kind == "static":
        return [f"/^/ {path.strip('{} ')}"]
    if path.startswith("{"):
        return [each.strip("{} ") for each in split_list(path[1:-1])]
    if kind in ("regexp", "pcre", "cidr"):
        try:
            text = Path(path).read_text("utf-8", "replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    entries = site.tables.entries(table) or {}
    return [f"{key} {value}" for key, value in entries.items()]


def _told(site: Site, destination: str) -> str:
    """Return a destination with what the arguments of its pipe(8) say."""
    transport = destination.partition(":")[0]
    return " ".join([destination, *site.postconf.arguments(transport)])
