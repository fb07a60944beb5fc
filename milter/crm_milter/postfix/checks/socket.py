"""Checks that Postfix can reach our socket: it is there, it listens, and access rights allow it."""

import grp
import os
import pwd
import shlex
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from crm_milter.config.listen import InetSocket, UnixSocket
from crm_milter.postfix.checks import fix
from crm_milter.postfix.checks.finding import Finding, names
from crm_milter.postfix.placement import placement
from crm_milter.postfix.site import Site
from crm_milter.wording import why

_TIMEOUT = 5.0
_UNREACHED = "Postfix cannot reach the milter: all mail gets 451, or none is rerouted"


def listens(site: Site) -> Iterator[Finding]:
    """A process listens on the milter's socket, and the user postfix may connect to it."""
    listen = site.config.milter.listen
    reason = unreachable(site)
    if reason:
        yield Finding("socket", reason, _UNREACHED, "systemctl restart crm-milter")
    elif isinstance(listen, UnixSocket):
        yield from _access(site, Path(listen.path))


def unreachable(site: Site) -> str:
    """Return why no process can connect to the socket at all, "" if one can."""
    listen = site.config.milter.listen
    try:
        if isinstance(listen, InetSocket):
            socket.create_connection((listen.host, listen.port), _TIMEOUT).close()
            return ""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_TIMEOUT)
            connection.connect(listen.path)
    except PermissionError:
        return ""  # we may not; whether postfix may is another question
    except BlockingIOError:
        return ""  # it listens, and others wait to be accepted (connect(2), EAGAIN)
    except OSError as error:
        return f"nothing listens on {listen.libmilter}: {why(error)}"
    return ""


def _access(site: Site, path: Path) -> Iterator[Finding]:
    owner = site.postconf.value("mail_owner")
    try:
        account = pwd.getpwnam(owner)
        # smtpd has the supplementary groups of its user as well (chroot_uid.c).
        groups = set(os.getgrouplist(owner, account.pw_gid))
        blocked = _blocked(path, account.pw_uid, groups)
    except (KeyError, OSError):
        return
    if blocked is None:
        return
    group = shlex.quote(grp.getgrgid(account.pw_gid).gr_name)
    bits = "g+x" if blocked.is_dir() else "g+rw"
    yield Finding(
        "socket",
        f'the user "{owner}" may not {"search" if blocked.is_dir() else "write to"} "{blocked}"',
        _UNREACHED,
        f"chgrp {group} {shlex.quote(str(blocked))} && chmod {bits} {shlex.quote(str(blocked))}",
    )


def _blocked(path: Path, user: int, groups: set[int]) -> Path | None:
    """Return the directory or socket on the way that a user is kept from, or None."""
    for each in [*reversed(path.parents), path]:
        status = each.stat()
        needed = 1 if stat.S_ISDIR(status.st_mode) else 2
        if _has_acl(each) or user == 0:
            continue  # the mode does not tell
        shift = 6 if status.st_uid == user else 3 if status.st_gid in groups else 0
        if not status.st_mode >> shift & needed:
            return each
    return None


def _has_acl(path: Path) -> bool:
    try:
        return "system.posix_acl_access" in os.listxattr(path)
    except OSError:
        return False


def chroot(site: Site) -> Iterator[Finding]:
    """The path in main.cf leads to our socket, also inside the chroot of smtpd."""
    lost = []
    for service in placement(site).wanted:
        entries = site.milters(service)
        lost += [
            service for at in site.ours(entries) if not site.socket.is_reached(entries[at], service)
        ]
    if not lost:
        return
    if site.socket.in_chroot is None and any(each.chroot for each in lost):
        command = _move(site)
    else:
        command = fix.ours(site, "attach")
    yield Finding(
        "socket-path",
        f"{names(each.label for each in lost)} cannot see {site.config.milter.listen.libmilter}:"
        + (" it runs in a chroot" if lost[0].chroot else " main.cf has a different path"),
        _UNREACHED,
        command,
    )


def _move(site: Site) -> str:
    """Return how to move the socket into the chroot."""
    folder = Path(site.postconf.value("queue_directory")) / "crm-milter"
    path = shlex.quote(str(folder))
    made = f"run install -d -m 2750 -o crm-milter -g postfix {path}, then "
    return (
        f"{'' if folder.is_dir() else made}set milter.listen to unix:{folder}/milter.sock"
        f" in {site.path}, restart crm-milter, then {fix.ours(site, 'attach')}"
    )


CHECKS = (listens, chroot)
