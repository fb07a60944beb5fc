"""The exporter: a process of its own that serves the numbers over HTTP, and hurts nobody.

It owns its socket, so that a port that is taken or an exporter that dies has no part in the
mail; the supervisor starts another. A page is kept for fifty times the processor time that it
took: whoever asks, and however often, pages take no more than a fiftieth of one processor.
"""

import contextlib
import os
import re
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus
from pathlib import Path
from typing import Any

from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from crm_milter import __version__
from crm_milter.log import Log, fault_line
from crm_milter.metrics.collector import Collector
from crm_milter.metrics.memory import Numbers, State
from crm_milter.wording import counted

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


# A web server for a handful of pages: one loop, no threads, and nobody can keep it busy.
#
# It answers GET and HEAD and closes. A client has ``PATIENCE`` seconds from its connection to its
# last byte, however it spreads them; ``MOST_CLIENTS`` are served at a time, and of more than that
# the oldest is dropped. So silent, slow and numerous clients cost others nothing. A thread for each
# request, as http.server has it, would take four times the processor time of a scrape.


@dataclass(frozen=True, slots=True)
class Page:
    """An answer to a request."""

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: int = 200


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


MOST_CLIENTS = 16
PATIENCE = 5.0
_LONGEST_REQUEST = 8192
_CHUNK = 4096
_REQUEST = re.compile(rb"(GET|HEAD) (/[^\s?]*)\S* HTTP/1\.[01]\r?\n")
_ACCEPT = re.compile(rb"\naccept:([^\r\n]*)", re.IGNORECASE)
_END = re.compile(rb"\n\r?\n")

Pages = Callable[[str, str], Page]  # of a path, for what the client accepts


@dataclass(slots=True)
class _Client:
    connection: socket.socket
    deadline: float
    request: bytes = b""
    unsent: list[memoryview] = field(default_factory=list)
    answered: bool = False


class Server:
    """Serves pages on a port; raises OSError where it cannot be had."""

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        self._listener = socket.create_server(address, family=family, backlog=128)
        self._listener.setblocking(False)
        self._pages = pages
        self._clients: dict[int, _Client] = {}  # by descriptor, the oldest first
        self._poll = select.poll()
        self._poll.register(self._listener, select.POLLIN)

    def run(self, told: socket.socket) -> None:
        """Serve until something can be read from ``told``."""
        self._poll.register(told, select.POLLIN)
        while True:
            ready = self._poll.poll(self._milliseconds())
            for descriptor, _ in ready:
                if descriptor == told.fileno():
                    return
                if descriptor == self._listener.fileno():
                    self._accept()
                elif client := self._clients.get(descriptor):
                    self._attend(client)
            now = time.monotonic()
            for client in [each for each in self._clients.values() if each.deadline <= now]:
                self._drop(client)

    def _milliseconds(self) -> float | None:
        oldest = next(iter(self._clients.values()), None)
        return max(0.0, oldest.deadline - time.monotonic()) * 1000 + 1 if oldest else None

    def _accept(self) -> None:
        with suppress(OSError):  # it has gone, or there are no descriptors left
            connection, _ = self._listener.accept()
            connection.setblocking(False)
            if len(self._clients) >= MOST_CLIENTS:
                self._drop(next(iter(self._clients.values())))
            client = _Client(connection, time.monotonic() + PATIENCE)
            self._clients[connection.fileno()] = client
            self._poll.register(connection, select.POLLIN)

    def _attend(self, client: _Client) -> None:
        try:
            if client.unsent:
                self._send(client)
            elif chunk := client.connection.recv(_CHUNK):
                self._read(client, chunk)
            else:
                self._drop(client)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(client)

    def _read(self, client: _Client, chunk: bytes) -> None:
        if client.answered:
            return  # what comes after the request is of no interest
        client.request += chunk
        if _END.search(client.request):
            client.unsent = _answer(client.request, self._pages)
        elif len(client.request) > _LONGEST_REQUEST:
            client.unsent = _answer(b"", self._pages)
        else:
            return
        client.answered = True
        self._poll.modify(client.connection, select.POLLOUT)
        self._send(client)

    def _send(self, client: _Client) -> None:
        sent = client.connection.sendmsg(client.unsent)
        while client.unsent and sent >= len(client.unsent[0]):
            sent -= len(client.unsent.pop(0))
        if client.unsent:
            client.unsent[0] = client.unsent[0][sent:]
            return
        # Closed only when the client has read all: it might lose the end otherwise.
        client.connection.shutdown(socket.SHUT_WR)
        self._poll.modify(client.connection, select.POLLIN)

    def _drop(self, client: _Client) -> None:
        descriptor = client.connection.fileno()
        self._poll.unregister(descriptor)
        del self._clients[descriptor]
        client.connection.close()


def _answer(request: bytes, pages: Pages) -> list[memoryview]:
    """Return the bytes of the response to a request."""
    found = _REQUEST.match(request)
    if found:
        accept = _ACCEPT.search(request)
        page = pages(found[2].decode("latin-1"), accept[1].decode("latin-1") if accept else "")
    else:
        page = Page(b"only GET and HEAD are supported\n", status=400)
    now = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
    head = (
        f"HTTP/1.1 {page.status} {HTTPStatus(page.status).phrase}\r\nDate: {now}\r\n"
        f"Content-Type: {page.kind}\r\nContent-Length: {len(page.body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    body = b"" if found and found[1] == b"HEAD" else page.body
    return [memoryview(each) for each in (head.encode(), body) if each]
