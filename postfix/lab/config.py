"""The configuration and the folders of a private Postfix."""

from __future__ import annotations

import functools
import grp
import os
import pwd
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lab.postfix import Settings

# Mail is treated as a stranger's: nothing is added to its header or rewritten in it, and nothing
# slows a client down. Every domain goes to the sink; the local ones differ only in their class.
_MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log/maillog
maillog_file_prefixes = {folder}/log
myhostname = mail.lab.example
mydestination = localhost, $myhostname
mynetworks = 127.0.0.0/8
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_banner = $myhostname ESMTP {folder.name}
default_transport = smtp:[127.0.0.1]:{sink}
local_transport = smtp:[127.0.0.1]:{sink}
relay_transport = smtp:[127.0.0.1]:{sink}
virtual_transport = smtp:[127.0.0.1]:{sink}
local_recipient_maps =
alias_maps =
alias_database =
append_dot_mydomain = no
biff = no
disable_dns_lookups = yes
smtp_tls_security_level = none
smtpd_tls_security_level = none
smtpd_peername_lookup = no
smtputf8_enable = yes
strict_rfc821_envelopes = no
local_header_rewrite_clients =
smtpd_client_restrictions =
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_client_connection_count_limit = 0
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1000
in_flow_delay = 0
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 2s
maximal_queue_lifetime = 1h
bounce_queue_lifetime = 1h
"""

_MASTER = """
smtp inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
proxywrite unix - - n - 1 proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
showq unix n - n - - showq
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def milter(address: str, **settings: str) -> str:
    """An entry of smtpd_milters, such as { unix:/x, default_action=tempfail }."""
    words = [address, *(f"{name}={value}" for name, value in settings.items())]
    return "{ " + ", ".join(words) + " }"


def write(folder: Path, settings: Settings, sink: int, ports: Mapping[str, int]) -> None:
    """Write main.cf, master.cf, virtual and transport into the folder of the configuration."""
    transports = {
        key: value if isinstance(value, str) else f"smtp:[127.0.0.1]:{value.port}"
        for key, value in settings.transport_maps.items()
    }
    _write_map(folder / "virtual", settings.virtual_alias_maps)
    _write_map(folder / "transport", transports)
    main = dict(
        line.split(" =", 1)
        for line in _MAIN.format(folder=folder.parent, sink=sink).strip().splitlines()
    )
    main["virtual_alias_maps"] = f"texthash:{folder}/virtual"
    main["transport_maps"] = f"texthash:{folder}/transport"
    main["smtpd_milters"] = settings.smtpd_milters
    main["non_smtpd_milters"] = settings.non_smtpd_milters
    main.update(settings.main)
    text = "".join(f"{key} = {value.strip()}\n" for key, value in main.items())
    _write(folder / "main.cf", text)
    _write(folder / "master.cf", _master(settings, ports))


def make_folders(folder: Path) -> None:
    """The folders that Postfix expects to exist, with the owners and modes that it insists on."""
    postfix, postdrop = pwd.getpwnam("postfix").pw_uid, grp.getgrnam("postdrop").gr_gid
    for name in ("config", "log", "queue", "queue/pid"):
        (folder / name).mkdir(exist_ok=True)
    owned = {"data": (0o700, -1), "queue/maildrop": (0o1730, postdrop)}
    owned["queue/public"] = (0o2710, postdrop)
    for name in ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming"):
        owned[f"queue/{name}"] = (0o700, -1)
    for name in ("private", "saved", "trace"):
        owned[f"queue/{name}"] = (0o700, -1)
    for name, (mode, group) in owned.items():
        path = folder / name
        path.mkdir(exist_ok=True)
        os.chown(path, postfix, group)
        path.chmod(mode)


@functools.cache
def daemons() -> Path:
    """Where master(8) and the other daemons are."""
    return _default("daemon_directory")


@functools.cache
def commands() -> Path:
    """Where postconf(1) and the other commands are."""
    return _default("command_directory")


def _default(name: str) -> Path:
    """A built-in default, which asks no configuration."""
    command = ["/usr/sbin/postconf", "-d", "-h", name]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Path(done.stdout.strip())


def _master(settings: Settings, ports: Mapping[str, int]) -> str:
    lines = _MASTER.strip().splitlines()
    lines[0] = f"127.0.0.1:{ports['smtp']} inet n - n - - smtpd"
    for name, options in settings.services.items():
        lines.append(f"127.0.0.1:{ports[name]} inet n - n - - smtpd")
        lines += [f"  -o {{ {key} = {value} }}" for key, value in options.items()]
    return "\n".join([*lines, *settings.master]) + "\n"


def _write_map(path: Path, entries: Mapping[str, str] | str) -> None:
    if not isinstance(entries, str):
        entries = "".join(f"{key} {value}\n" for key, value in entries.items())
    _write(path, entries)


def _write(path: Path, text: str) -> None:
    """Write a file that looks a minute old: Postfix waits until a file is two seconds old."""
    path.write_text(text)
    a_minute_ago = time.time() - 60
    os.utime(path, (a_minute_ago, a_minute_ago))
