"""Before a test message is sent: whether the log shows the session with the server."""

import socket
import time

from crm_milter.trace.file import LogError
from crm_milter.trace.lines import Line
from crm_milter.trace.sources import Source

_POLL_INTERVAL = 0.1  # seconds between two looks at the log
_TIMEOUT = 10.0  # seconds until a line is written, because journald and syslog may be late
_CONNECT = "connect from "


def look_for_session(server: tuple[str, int], sources: list[Source]) -> None:
    """Wait until the log tells of the session that has begun; raises LogError before mail is sent.

    Only a server on this host can be looked for: smtpd(8) and postscreen(8) log each connection.
    """
    if not _is_here(server[0]):
        return
    deadline = time.monotonic() + _TIMEOUT
    while not any(_tells(line) for each in sources for line in each.lines([_CONNECT], fold=True)):
        if time.monotonic() > deadline:
            names = ", ".join(each.name for each in sources)
            raise LogError(
                f"nothing was sent: the session with {server[0]}:{server[1]} is not in {names};"
                " name the log of that server with --log, or its instance with --config-directory"
            )
        time.sleep(_POLL_INTERVAL)


def _tells(line: Line) -> bool:
    return line.text.lower().startswith(_CONNECT)


def _is_here(host: str) -> bool:
    """Tell whether a server is on this host: an address that a socket can be bound to."""
    try:
        for family, kind, _, _, place in socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM):
            with socket.socket(family, kind) as probe:
                probe.bind(place)
    except OSError:
        return False
    return True
