"""A web server for a handful of pages: one loop, no threads, and nobody can keep it busy.

It answers GET and HEAD and closes. A client has ``PATIENCE`` seconds from its connection to its
last byte, however it spreads them; ``MOST_CLIENTS`` are served at a time, and of more than that
the oldest is dropped. So silent, slow and numerous clients cost others nothing. A thread for each
request, as http.server has it, would take four times the processor time of a scrape.
"""

import re
import select
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus

MOST_CLIENTS = 16
PATIENCE = 5.0
_LONGEST_REQUEST = 8192
_CHUNK = 4096
_REQUEST = re.compile(rb"(GET|HEAD) (/[^\s?]*)\S* HTTP/1\.[01]\r?\n")
_ACCEPT = re.compile(rb"\naccept:([^\r\n]*)", re.IGNORECASE)
_END = re.compile(rb"\n\r?\n")


@dataclass(frozen=True, slots=True)
class Page:
    """An answer to a request."""

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: int = 200


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
