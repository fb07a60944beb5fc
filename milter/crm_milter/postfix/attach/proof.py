"""Proof that a session of Postfix reaches our milter: a new connection to its socket.

Postfix connects to its milters before it greets. On the Unix socket the kernel lists what was
accepted, on TCP what our host has connected to. Together with a session that is not told to try
again later this holds for tempfail and for accept alike. Where a port does not talk to this host
nothing is proved, which is not the same as a milter that cannot be reached.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from crm_milter.config.listen import InetSocket
from crm_milter.postfix.doors import Door, doors, talk
from crm_milter.postfix.placement import placement
from crm_milter.postfix.postconf import Service, split_list
from crm_milter.postfix.site import Site
from crm_milter.wording import why

PATIENCE = 5.0  # seconds; smtpd processes from before a reload end with their session
_AGAIN_LATER = (421, 451)
_ESTABLISHED = "01"
_CONNECTED = "03"


class SessionState(Enum):
    """What sessions with a service showed."""

    REACHED = "reached"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Result:
    """What was found out about a service, and why it is not good."""

    service: Service
    state: SessionState
    reason: str = ""


def prove(site: Site, *, is_down: bool = False) -> list[Result]:
    """Try each smtpd that has our milter; with ``is_down`` that it accepts mail without it."""
    deadline = time.monotonic() + PATIENCE
    services = [each for each in placement(site).wanted if site.ours(site.milters(each))]
    return [_prove(site, each, deadline, is_down) for each in services]


def _prove(site: Site, service: Service, deadline: float, is_down: bool) -> Result:
    result = Result(service, SessionState.UNKNOWN, "no port leads to it")
    while True:
        for door in doors(site.postconf, service):
            result = _try(site, service, door, is_down)
            if result.state is SessionState.REACHED:
                return result
        if time.monotonic() > deadline or not doors(site.postconf, service):
            return result
        time.sleep(0.1)


def _try(site: Site, service: Service, door: Door, is_down: bool) -> Result:
    before = _connections(site)
    try:
        with door.open() as connection:
            code, text = talk(connection)
            reached = bool(_connections(site) - before)
    except (OSError, ValueError) as error:
        return Result(
            service, SessionState.UNKNOWN, f"no SMTP session with {door.where}: {why(error)}"
        )
    if code in _AGAIN_LATER:
        return Result(service, SessionState.FAILED, f'"{service.label}" answered {code} {text}')
    if reached or (is_down and code == 250):
        return Result(service, SessionState.REACHED)
    if code // 100 == 5:
        return Result(
            service, SessionState.UNKNOWN, f"{door.where} answered {code} {text} to this host"
        )
    return _missed(site, service, door)


def _missed(site: Site, service: Service, door: Door) -> Result:
    """Return why a session that went well did not come to the milter."""
    exempt = next(_exemptions(site, service, door), "")
    if exempt:
        reason = f"smtpd_milter_maps ({exempt}) has milters of its own for {door.client}"
        return Result(service, SessionState.UNKNOWN, reason)
    if door.label != service.label:
        reason = f'"{door.label}" answered by itself and did not pass the session on'
        return Result(service, SessionState.UNKNOWN, reason)
    reason = f'"{service.label}" did not connect to {site.socket.address}'
    return Result(service, SessionState.FAILED, reason)


def _exemptions(site: Site, service: Service, door: Door) -> Iterator[str]:
    for table in split_list(site.postconf.value("smtpd_milter_maps", service)):
        if site.tables.look_up(table, [door.client]):
            yield table


def _connections(site: Site) -> set[str]:
    """Return what identifies each open connection to our socket."""
    listen = site.config.milter.listen
    if isinstance(listen, InetSocket):
        return _tcp(listen.port)
    lines = (line.split() for line in _lines("unix"))
    return {
        words[6]
        for words in lines
        if len(words) == 8 and words[5] == _CONNECTED and words[7] == listen.path
    }


def _tcp(port: int) -> set[str]:
    remote = re.compile(rf":{port:04X}$")
    lines = (line.split() for name in ("tcp", "tcp6") for line in _lines(name))
    return {
        words[1]
        for words in lines
        if len(words) > 3 and remote.search(words[2]) and words[3] == _ESTABLISHED
    }


def _lines(name: str) -> list[str]:
    try:
        return Path("/proc/net", name).read_text(errors="replace").splitlines()
    except OSError:
        return []
