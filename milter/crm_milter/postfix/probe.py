"""Proof that a session of Postfix reaches our milter: a new connection to its socket.

Postfix connects to its milters before it greets. On the Unix socket the kernel lists what was
accepted, on TCP what our host has connected to. Together with a session that is not told to try
again later this holds for tempfail and for accept alike.
"""

import re
import smtplib
import socket
import ssl
import time
from pathlib import Path

from crm_milter.postfix.placement import placement
from crm_milter.postfix.postconf import Service, split_list
from crm_milter.postfix.site import Site
from crm_milter.values import InetSocket

PATIENCE = 5.0  # seconds; smtpd processes from before a reload end with their session
_TIMEOUT = 15.0  # seconds for one reply; postscreen takes six to greet
_ESTABLISHED = "01"
_CONNECTED = "03"


def failure(site: Site) -> str:
    """Open sessions until one reaches the milter; return why none did, "" for success."""
    services = [each for each in placement(site).wanted if _is_asked(site, each)]
    if not services:
        return "no smtpd that listens on a TCP port uses crm-milter"
    deadline = time.monotonic() + PATIENCE
    while True:
        reason = _try(site, services[0])
        if not reason or time.monotonic() > deadline:
            return reason
        time.sleep(0.1)


def _is_asked(site: Site, service: Service) -> bool:
    return service.kind == "inet" and bool(site.ours(site.milters(service)))


def _try(site: Site, service: Service) -> str:
    host, port = _address(site, service)
    before = _connections(site)
    try:
        with _session(site, service, host, port) as session:
            session.ehlo("localhost")
            code, text = session.mail("")
            reached = _connections(site) - before
    except (OSError, smtplib.SMTPException) as error:
        return f"no SMTP session with {host} port {port}: {error}"
    if code in (421, 451):
        return f'"{service.label}" answered {code} {text.decode(errors="replace")}'
    return "" if reached else f'"{service.label}" did not connect to {site.socket.address}'


def _session(site: Site, service: Service, host: str, port: int) -> smtplib.SMTP:
    if not site.postconf.is_on("smtpd_tls_wrappermode", service):
        return smtplib.SMTP(host, port, timeout=_TIMEOUT)
    context = ssl.create_default_context()
    context.check_hostname = False  # we talk to ourselves, by a number
    context.verify_mode = ssl.CERT_NONE
    return smtplib.SMTP_SSL(host, port, timeout=_TIMEOUT, context=context)


def _address(site: Site, service: Service) -> tuple[str, int]:
    host, _, port = service.name.rpartition(":")
    if not host:
        interfaces = split_list(site.postconf.value("inet_interfaces", service))
        loopback = {"all", "loopback-only", "localhost", "127.0.0.1"} & set(interfaces)
        ipv6 = site.postconf.value("inet_protocols", service) == "ipv6"
        host = ("::1" if ipv6 else "127.0.0.1") if loopback else next(iter(interfaces), "localhost")
    number = int(port) if port.isdigit() else socket.getservbyname(port, "tcp")
    return host.strip("[]"), number


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
