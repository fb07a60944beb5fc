"""The exporter: a process of its own that serves the metrics over HTTP, apart from the mail.

It owns its socket, so that a port that is taken or an exporter that dies has no part in the
mail; the supervisor starts another. A page is kept for fifty times the CPU time that it
took, or until other rules, pauses or workers are in force: however many requests come, pages take
no more than a fiftieth of one CPU.
"""

import contextlib
import os
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn
from threading import Lock
from typing import Any, BinaryIO

from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from crm_milter.log import Log, error_line
from crm_milter.metrics import overview
from crm_milter.metrics.catalogue import RELOAD_GOOD, RELOADED_AT, SOCKET_BOUND, WORKERS
from crm_milter.metrics.collector import Collector, Generation
from crm_milter.metrics.memory import ServiceState, SharedCounters
from crm_milter.wording import counted, why

_TAKEN = 5.0  # seconds that a port may stay taken by our predecessor
_LEISURE = 50  # how many times the processor time that it took a page is kept
_NICENESS = 10  # the mail comes first
_EX_NO = 1
MAX_CLIENTS = 16
PATIENCE = 5.0
_LONGEST_REQUEST = 8192


def run(
    address: tuple[str, int],
    socket_path: str,
    numbers: SharedCounters,
    channel: socket.socket,
    hear: Callable[[], bool],
    log: Log,
    directory: Path | None = None,
) -> int:
    """Serve until it is over and return the exit status.

    ``hear`` is called when the channel can be read, reads what the supervisor says there, and
    returns whether it is over; ``directory`` is the state directory of the service.
    """
    with contextlib.suppress(OSError):  # a sandbox may forbid it; mail comes first all the same
        os.nice(_NICENESS)
    deadline = time.monotonic() + _TAKEN
    while True:
        try:
            server = Server(*address, PageSet(numbers, log, socket_path, directory).page)
        except OSError as error:
            if time.monotonic() > deadline:
                where = f"{address[0]} port {address[1]}"
                log(f"error: cannot listen for metrics on {where}: {why(error)}")
                return _EX_NO
        else:
            server.run(channel, hear)
            return 0
        if select.select([channel], [], [], 0.1)[0] and hear():
            return 0


@dataclass(frozen=True, slots=True)
class Page:
    """An answer to a request."""

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: int = 200


@dataclass(frozen=True, slots=True)
class _Kept:
    until: float
    generation: Generation
    page: Page


Pages = Callable[[str, str], Page]  # of a path, for what the client accepts


class PageSet:
    """The pages."""

    def __init__(
        self,
        numbers: SharedCounters,
        log: Log,
        socket_path: str = "",
        directory: Path | None = None,
    ) -> None:
        self._numbers = numbers
        self._socket = Path(socket_path) if socket_path else None
        self._log = log
        self._collector: Any = Collector(numbers, directory)
        self._lock = Lock()
        self._kept: dict[Callable[[], Page], _Kept] = {}

    def page(self, path: str, accept: str) -> Page:
        """Return the page of a path, as the client's Accept wants it."""
        try:
            with self._lock:
                return self._page(path, accept)
        except Exception as fault:  # whatever it is, the next page may be good
            self._log(error_line("metrics", fault))
            return Page(b"internal error, see the log\n", status=500)

    def _page(self, path: str, accept: str) -> Page:
        if path == "/metrics":
            is_open = "application/openmetrics-text" in accept
            return self._cheaply(self._openmetrics if is_open else self._metrics)
        if path == "/healthz":
            return health(self._numbers.state(), self._lost_socket())
        if path == "/rules":
            return self._cheaply(self._rules)
        if path == "/":
            return self._cheaply(self._overview)
        return Page(b"not found\n", status=404)

    def _lost_socket(self) -> str:
        """Return where the milter socket should be if there is none, "" if there is."""
        return "" if self._socket is None or self._socket.is_socket() else str(self._socket)

    def _cheaply(self, make: Callable[[], Page]) -> Page:
        began, now = time.process_time(), time.monotonic()
        generation = self._collector.generation()
        kept = self._kept.get(make)
        if kept and now < kept.until and kept.generation == generation:
            return kept.page
        page = make()
        spent = time.process_time() - began
        self._kept[make] = _Kept(now + _LEISURE * spent, generation, page)
        return page

    def _metrics(self) -> Page:
        body = generate_latest(self._collector)
        return Page(body, "text/plain; version=0.0.4; charset=utf-8")

    def _openmetrics(self) -> Page:
        body = openmetrics.generate_latest(self._collector)  # type: ignore[no-untyped-call]
        return Page(body, openmetrics.CONTENT_TYPE_LATEST)

    def _rules(self) -> Page:
        return Page(overview.as_json(self._collector.seen()), "application/json")

    def _overview(self) -> Page:
        return Page(overview.html(self._collector.seen()), "text/html; charset=utf-8")


def health(state: ServiceState, lost_socket: str = "") -> Page:
    """Return whether mail is accepted. After a failed reload it is, by the previous rules."""
    if not state[WORKERS]:
        return Page(b"no worker is accepting mail\n", status=503)
    if lost_socket or not state[SOCKET_BOUND]:
        text = f"the milter socket is gone: {lost_socket}" if lost_socket else "the socket is gone"
        return Page(f"{text}\n".encode(), status=503)
    lines = [f"ok, {counted(int(state[WORKERS]), 'worker')} accepting mail"]
    if not state[RELOAD_GOOD]:
        since = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(state[RELOADED_AT]))
        lines.append(f"last reload failed, still using the rules loaded at {since}")
    return Page("".join(f"{line}\n" for line in lines).encode())


class Server(ThreadingMixIn, HTTPServer):
    """Serves pages on a port; raises OSError where it cannot be had.

    A client has ``PATIENCE`` seconds from its connection to the end of the answer, however it
    spreads its bytes; ``MAX_CLIENTS`` are served at a time, and of more than that the oldest is
    dropped. So silent, slow and numerous clients cost others nothing.
    """

    daemon_threads = True
    timeout = 0  # of handle_request, which is called when there is something to accept

    def __init__(self, host: str, port: int, pages: Pages) -> None:
        # As bytes: the codec for names beyond ASCII would be loaded for a string.
        name = host.encode() if host.isascii() else host
        family, *_, address = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)[0]
        super().__init__((host, port), _Request, bind_and_activate=False)
        self.socket.close()
        self.socket = socket.create_server(address, family=family, backlog=128)
        self.pages = pages
        self._clients: dict[socket.socket, float] = {}  # until when, the oldest first

    def run(self, channel: socket.socket, hear: Callable[[], bool]) -> None:
        """Serve until it is over, as ``hear`` says when the channel can be read."""
        while True:
            ready, _, _ = select.select([channel, self.socket], [], [], self._seconds())
            if channel in ready and hear():
                return
            if self.socket in ready:
                self.handle_request()
            self._drop_the_late()

    def process_request(self, request: Any, client_address: Any) -> None:
        if len(self._clients) >= MAX_CLIENTS:
            self._drop(next(iter(self._clients)))
        self._clients[request] = time.monotonic() + PATIENCE
        super().process_request(request, client_address)

    def close_request(self, request: Any) -> None:
        self._clients.pop(request, None)
        super().close_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that have gone."""

    def _seconds(self) -> float | None:
        oldest = next(iter(list(self._clients.values())), None)
        return None if oldest is None else max(0.0, oldest - time.monotonic())

    def _drop_the_late(self) -> None:
        now = time.monotonic()
        for client, deadline in list(self._clients.items()):
            if deadline <= now:
                self._drop(client)

    def _drop(self, client: socket.socket) -> None:
        self._clients.pop(client, None)
        with contextlib.suppress(OSError):  # it has gone by itself
            client.shutdown(socket.SHUT_RDWR)  # its thread wakes and ends


class _FirstBytes:
    """What a client sends, by lines, and not more of it than a request may have."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = _LONGEST_REQUEST

    def readline(self, most: int) -> bytes:
        if self._left <= 0:
            raise LineTooLong("request")
        line = self._stream.readline(min(most, self._left))
        self._left -= len(line)
        return line

    def close(self) -> None:
        self._stream.close()


class _Request(BaseHTTPRequestHandler):
    server: Server
    server_version, sys_version = "crm-milter", ""

    def setup(self) -> None:
        super().setup()
        self.rfile: Any = _FirstBytes(self.rfile)

    def finish(self) -> None:
        super().finish()
        # Closed only when the client has read all: it might lose the end otherwise.
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            while self.connection.recv(_LONGEST_REQUEST):
                pass

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        self._answer(self.server.pages(path, self.headers.get("Accept", "")))

    def do_HEAD(self) -> None:
        self.do_GET()

    def send_error(self, *_: object, **__: object) -> None:
        """Answer what is neither GET nor HEAD, or no request at all."""
        self.request_version = self.protocol_version  # it has a header, whatever was asked
        self._answer(Page(b"only GET and HEAD are supported\n", status=400))

    def _answer(self, page: Page) -> None:
        self.send_response(page.status)
        self.send_header("Content-Type", page.kind)
        self.send_header("Content-Length", str(len(page.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(page.body)

    def log_request(self, *_: object, **__: object) -> None:
        """Log no requests."""
