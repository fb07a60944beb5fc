"""The exporter: a process of its own that serves the numbers over HTTP, and hurts nobody.

It owns its socket, so that a port that is taken or an exporter that dies has no part in the
mail; the supervisor starts another. A client has a few seconds from connecting to its last
byte, and only so many are served at a time: of more, the oldest is dropped. A page is kept for
twenty times the processor time that it took: pages never cost more than a twentieth of one.
"""

import contextlib
import os
import select
import socket
import threading
import time
from dataclasses import dataclass
from html import escape
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from crm_milter import __version__
from crm_milter.families import Collector
from crm_milter.log import Log, counted, fault_line
from crm_milter.metrics import Numbers, State

Address = tuple[str, int]

_MOST_CLIENTS = 16
_PATIENCE = 5.0  # seconds that a client has, and that a port may stay taken by our predecessor
_LEISURE = 20  # how many times the processor time that it took a page is kept
_NICENESS = 10  # the mail comes first
_TEXT = "text/plain; charset=utf-8"
_EX_NO = 1


@dataclass(frozen=True, slots=True)
class Page:
    """An answer to a request."""

    body: bytes
    kind: str
    status: int = 200


def run(address: Address, numbers: Numbers, channel: socket.socket, log: Log) -> int:
    """Serve until the supervisor hangs up and return the exit status."""
    os.nice(_NICENESS)
    server = _bound(address, Site(numbers, log), channel, log)
    if server is None:
        return _EX_NO
    threading.Thread(target=server.serve_forever, daemon=True).start()
    channel.recv(1)
    return 0


def _bound(address: Address, site: "Site", channel: socket.socket, log: Log) -> "_Server | None":
    """Return the server, None if there is none to be had or nobody wants it any more."""
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return _Server(address, site)
        except OSError as error:
            if time.monotonic() > deadline:
                where = f"{address[0]}, port {address[1]}"
                reason = (error.strerror or str(error)).lower()
                log(f"error: cannot serve metrics on {where}: {reason}")
                return None
        if select.select([channel], [], [], 0.1)[0]:
            return None


class Site:
    """The pages."""

    def __init__(self, numbers: Numbers, log: Log) -> None:
        self._numbers = numbers
        self._log = log
        self._collector: Any = Collector(numbers)
        self._one_at_a_time = threading.Lock()
        self._kept: dict[bool, tuple[float, Page]] = {}  # by format: until when, and what

    def page(self, path: str, accept: str) -> Page:
        """Return the page of a path, as the client's Accept wants it."""
        try:
            return self._page(path, accept)
        except Exception as fault:  # whatever it is, the next page may be good
            self._log(fault_line("metrics", fault))
            return Page(b"internal error, see the log\n", _TEXT, 500)

    def _page(self, path: str, accept: str) -> Page:
        if path == "/metrics":
            return self._metrics("application/openmetrics-text" in accept)
        if path == "/healthz":
            return health(self._numbers.state())
        if path == "/":
            return index(self._numbers.state())
        return Page(b"not found\n", _TEXT, 404)

    def _metrics(self, as_openmetrics: bool) -> Page:
        with self._one_at_a_time:
            began, now = time.thread_time(), time.monotonic()
            until, page = self._kept.get(as_openmetrics, (0.0, Page(b"", "")))
            if now < until:
                return page
            if as_openmetrics:
                body = openmetrics.generate_latest(self._collector)  # type: ignore[no-untyped-call]
                page = Page(body, openmetrics.CONTENT_TYPE_LATEST)
            else:
                body = generate_latest(self._collector)
                page = Page(body, "text/plain; version=0.0.4; charset=utf-8")
            spent = time.thread_time() - began
            self._kept[as_openmetrics] = (now + _LEISURE * spent, page)
            return page


def health(state: State) -> Page:
    """Return whether mail is accepted. With a reload that failed it is, by the rules of before."""
    if not state.serving:
        return Page(b"no worker accepts mail\n", _TEXT, 503)
    accept = "accepts" if state.serving == 1 else "accept"
    lines = [f"ok, {counted(state.serving, 'worker')} {accept} mail"]
    if not state.reload_good:
        since = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(state.reloaded_at))
        lines.append(f"but the last reload failed, the rules are those read at {since}")
    return Page("".join(f"{line}\n" for line in lines).encode(), _TEXT)


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


class _Handler(BaseHTTPRequestHandler):
    server: "_Server"
    timeout = _PATIENCE

    def do_GET(self) -> None:
        page = self.server.site.page(self.path.partition("?")[0], self.headers.get("Accept", ""))
        self.send_response(page.status)
        self.send_header("Content-Type", page.kind)
        self.send_header("Content-Length", str(len(page.body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(page.body)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def version_string(self) -> str:
        return "crm-milter"

    def log_message(self, *_: Any) -> None:
        """Log nothing: the log is about mail, and what a client sends could be anything."""


class _Server(ThreadingMixIn, TCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: Address, site: Site) -> None:
        family, _, _, _, where = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)[0]
        self.address_family = family
        self.site = site
        self._since: dict[Any, float] = {}  # the open connections, the oldest first
        super().__init__((str(where[0]), int(where[1])), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        for oldest in list(self._since)[: 1 - _MOST_CLIENTS]:
            self._cut(oldest)
        self._since[request] = time.monotonic()
        super().process_request(request, client_address)

    def service_actions(self) -> None:
        """Cut off who had time enough; serve_forever() calls this twice a second."""
        for request, since in list(self._since.items()):
            if time.monotonic() - since > _PATIENCE:
                self._cut(request)

    def _cut(self, request: socket.socket) -> None:
        """End a connection; the thread that serves it finds out and cleans up."""
        self._since.pop(request, None)
        with contextlib.suppress(OSError):  # it has ended meanwhile
            request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: Any) -> None:
        self._since.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that hangs up or is cut off is no error of ours."""
