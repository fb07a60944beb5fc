"""The exporter: a process of its own that serves the numbers over HTTP, and hurts nobody.

It owns its socket, so that a port that is taken or an exporter that dies has no part in the
mail; the supervisor starts another. A page is kept for fifty times the processor time that it
took: whoever asks, and however often, pages take no more than a fiftieth of one processor.
"""

import contextlib
import os
import select
import socket
import time
from html import escape
from pathlib import Path
from typing import Any

from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from crm_milter import __version__
from crm_milter.families import Collector
from crm_milter.log import Log, counted, fault_line
from crm_milter.metrics import Numbers, State
from crm_milter.web import Page, Server

_TAKEN = 5.0  # seconds that a port may stay taken by our predecessor
_LEISURE = 50  # how many times the processor time that it took a page is kept
_NICENESS = 10  # the mail comes first
_EX_NO = 1


def run(
    address: tuple[str, int],
    socket_path: str,
    numbers: Numbers,
    channel: socket.socket,
    log: Log,
) -> int:
    """Serve until the supervisor hangs up and return the exit status."""
    with contextlib.suppress(OSError):  # a sandbox may forbid it; mail comes first all the same
        os.nice(_NICENESS)
    deadline = time.monotonic() + _TAKEN
    while True:
        try:
            server = Server(*address, Site(numbers, log, socket_path).page)
        except OSError as error:
            if time.monotonic() > deadline:
                where = f"{address[0]} port {address[1]}"
                reason = (error.strerror or str(error)).lower()
                log(f"error: cannot listen for metrics on {where}: {reason}")
                return _EX_NO
        else:
            server.run(channel)
            return 0
        if select.select([channel], [], [], 0.1)[0]:
            return 0


class Site:
    """The pages."""

    def __init__(self, numbers: Numbers, log: Log, socket_path: str = "") -> None:
        self._numbers = numbers
        self._socket = Path(socket_path) if socket_path else None
        self._log = log
        self._collector: Any = Collector(numbers)
        self._kept: dict[bool, tuple[float, Page]] = {}  # by format: until when, and what

    def page(self, path: str, accept: str) -> Page:
        """Return the page of a path, as the client's Accept wants it."""
        try:
            return self._page(path, accept)
        except Exception as fault:  # whatever it is, the next page may be good
            self._log(fault_line("metrics", fault))
            return Page(b"internal error, see the log\n", status=500)

    def _page(self, path: str, accept: str) -> Page:
        if path == "/metrics":
            return self._metrics("application/openmetrics-text" in accept)
        if path == "/healthz":
            return health(self._numbers.state(), self._lost_socket())
        if path == "/":
            return index(self._numbers.state())
        return Page(b"not found\n", status=404)

    def _lost_socket(self) -> str:
        """Return where the milter socket should be if there is none, "" if there is."""
        return "" if self._socket is None or self._socket.is_socket() else str(self._socket)

    def _metrics(self, as_openmetrics: bool) -> Page:
        began, now = time.process_time(), time.monotonic()
        until, page = self._kept.get(as_openmetrics, (0.0, Page(b"")))
        if now < until:
            return page
        if as_openmetrics:
            body = openmetrics.generate_latest(self._collector)  # type: ignore[no-untyped-call]
            page = Page(body, openmetrics.CONTENT_TYPE_LATEST)
        else:
            body = generate_latest(self._collector)
            page = Page(body, "text/plain; version=0.0.4; charset=utf-8")
        spent = time.process_time() - began
        self._kept[as_openmetrics] = (now + _LEISURE * spent, page)
        return page


def health(state: State, lost_socket: str = "") -> Page:
    """Return whether mail is accepted. After a failed reload it is, by the previous rules."""
    if not state.serving:
        return Page(b"no worker is accepting mail\n", status=503)
    if lost_socket or not state.bound:
        text = f"the milter socket is gone: {lost_socket}" if lost_socket else "the socket is gone"
        return Page(f"{text}\n".encode(), status=503)
    lines = [f"ok, {counted(state.serving, 'worker')} accepting mail"]
    if not state.reload_good:
        since = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(state.reloaded_at))
        lines.append(f"last reload failed, still using the rules loaded at {since}")
    return Page("".join(f"{line}\n" for line in lines).encode())


def index(state: State) -> Page:
    """Return the page for a person who looks what is on this port."""
    text = f"""<!DOCTYPE html>
<html lang="en"><title>crm-milter</title>
<h1>crm-milter {escape(__version__)}</h1>
<p>{counted(state.rules, "rule")}, {counted(state.serving, "worker")}</p>
<ul><li><a href="/metrics">metrics</a></li><li><a href="/healthz">health</a></li></ul>
</html>
"""
    return Page(text.encode(), "text/html; charset=utf-8")
