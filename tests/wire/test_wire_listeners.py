"""Where it listens: Unix sockets with mode and group, TCP by IPv4 and IPv6."""

import grp
import os
import socket
import stat

import pytest
from mta import Mta
from serving import HAM, HELP, RULES, Serve, option, reachable

from lab.base import free_port

LISTEN = {"inet": "inet:{}@127.0.0.1", "inet6": "inet6:{}@::1", "a name": "inet:{}@localhost"}


@pytest.mark.parametrize("kind", LISTEN)
def test_tcp(kind):
    with Serve(listen=LISTEN[kind].format(free_port())) as serve:
        address = serve.address.replace("[localhost]", "127.0.0.1")
        with Mta(address) as mta:
            # Otherwise each edit waits for the acknowledgement of the one before: 44 ms a message.
            mta.connect("mail.example", "2001:db8::1")
            assert option(serve.pid, mta.socket, socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0
            assert mta.message([HELP], HAM).of("delete") == [("help@solarmora.com",)]
        other = "inet:[::1]:" if kind == "inet6" else "inet6:[::1]:"
        assert kind == "inet6" or not reachable(other + address.rpartition(":")[2])


MODES = {
    "the default": ("", 0o660, "postfix"),
    "closed": ("socket_mode: '0600'", 0o600, "postfix"),
    "open": ("socket_mode: '0666'", 0o666, "postfix"),
    "another group": ("socket_mode: '0620', socket_group: daemon", 0o620, "daemon"),
    "a group that is not there": ("socket_group: no-such-group", 0o660, None),
}


@pytest.mark.parametrize("case", MODES)
def test_unix_socket(case):
    keys, mode, group = MODES[case]
    umask = os.umask(0o077 if case == "open" else 0o000)
    try:
        serve = Serve(f"milter: {{listen: 'LISTEN', {keys}}}\n{RULES}")
        with serve:
            status = serve.socket.stat()
    finally:
        os.umask(umask)
    assert stat.S_IMODE(status.st_mode) == mode
    assert status.st_gid == (grp.getgrnam(group).gr_gid if group else os.getgid())
