"""A listening socket, opened by libmilter, with the mode and group asked for."""

import contextlib
import grp
import os
import socket
import stat
from pathlib import Path
from typing import Any

import milter

from crm_milter.config.listen import InetSocket, UnixSocket
from crm_milter.wording import why

BACKLOG = 512  # connections that wait while all workers are busy; libmilter's own is 20


class ListenError(Exception):
    """The socket cannot be opened; the text says why."""


def resolved(listen: InetSocket) -> tuple[int, tuple[Any, ...]]:
    """Return the family and the socket address of a host and port; raises ListenError."""
    family = socket.AF_INET6 if listen.family == "inet6" else socket.AF_INET
    try:
        found = socket.getaddrinfo(listen.host, listen.port, family, socket.SOCK_STREAM)
    except OSError as error:
        raise ListenError(f"cannot listen on {place(listen)}: {why(error)}") from error
    return family, found[0][4]


def place(listen: InetSocket) -> str:
    """Return a host and port as messages name them."""
    return f"{listen.host} port {listen.port}"


def address(listen: UnixSocket | InetSocket) -> Any:
    """Return what getsockname() says of a socket at this address; raises ListenError."""
    return listen.path if isinstance(listen, UnixSocket) else resolved(listen)[1]


def opened(listen: UnixSocket | InetSocket, mode: int) -> socket.socket:
    """Return a new socket that listens at an address; raises ListenError."""
    family = socket.AF_UNIX if isinstance(listen, UnixSocket) else resolved(listen)[0]
    opened = socket.socket(family)
    umask = os.umask(0o777 & ~mode)
    try:
        if isinstance(listen, UnixSocket):
            Path(listen.path).unlink(missing_ok=True)
        else:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            # libmilter sends each edit in a packet of its own: with Nagle's algorithm every
            # matching message would wait 44 ms for the other side's delayed ACK.
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.bind(address(listen))
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        raise ListenError(f'cannot listen on "{listen.libmilter}": {why(error)}') from error
    finally:
        os.umask(umask)
    return opened


def reserved(listen: UnixSocket | InetSocket) -> int:
    """Return the descriptor from which libmilter accepts; another socket takes its place there."""
    if isinstance(listen, InetSocket):
        host = "::1" if listen.family == "inet6" else "127.0.0.1"
        return _opened_by_libmilter(f"{listen.family}:0@{host}")
    folder = os.open(Path(listen.path).parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    name = Path(f"/proc/self/fd/{folder}/.opening")  # a long path would not fit
    try:
        return _opened_by_libmilter(f"unix:{name}")
    finally:
        name.unlink(missing_ok=True)
        os.close(folder)


def _opened_by_libmilter(connection: str) -> int:
    before = _listening()
    milter.register("crm-milter")  # opensocket() wants a filter; session.py fills it in
    milter.setconn(connection)
    try:
        milter.opensocket(1)
    except milter.error as error:
        raise ListenError(f'cannot listen on "{connection}": {error}') from error
    (descriptor,) = _listening() - before
    return descriptor


def _listening() -> set[int]:
    return {int(each.name) for each in os.scandir("/proc/self/fd") if is_listening(int(each.name))}


def is_listening(descriptor: int) -> bool:
    """Tell whether a descriptor is a listening socket."""
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            return False
        with socket.socket(fileno=os.dup(descriptor)) as duplicate:
            return bool(duplicate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:
        return False


def give_to_group(path: str, group: str) -> None:
    """Give a socket to a group, if there is one of that name."""
    # Where the group is not there or we may not, Postfix's own rights decide.
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(path, -1, grp.getgrnam(group).gr_gid)
