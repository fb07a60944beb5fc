"""An SMTP server that plays the rest of the world: it records what arrives, to the byte."""

import socketserver
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from lab.base import TIMEOUT, LabError
from lab.delivery import Delivery, Rcpt, Received


@dataclass(frozen=True)
class Options:
    """What the sink offers in its EHLO reply."""

    dsn: bool = True
    smtputf8: bool = True
    eightbitmime: bool = True
    size: int = 50_000_000

    def keywords(self) -> list[str]:
        """The lines of the EHLO reply after the first."""
        offered = [("DSN", self.dsn), ("SMTPUTF8", self.smtputf8), ("8BITMIME", self.eightbitmime)]
        return [*(word for word, wanted in offered if wanted), f"SIZE {self.size}"]


class Sink:
    """A server on a free loopback port, from start() to stop(); safe to ask from any thread.

    `deliveries` holds the accepted transactions in order, `refused` the raw RCPT arguments that
    were not accepted. Refusals can be changed at any time and hold for later commands.
    """

    def __init__(self, options: Options | None = None, **changes: bool | int) -> None:
        self.options = replace(options or Options(), **changes)  # type: ignore[arg-type]
        self._changed = threading.Condition()
        self._deliveries: list[Delivery] = []
        self._refused: list[Rcpt] = []
        self._refusals: dict[str, str] = {}
        self.data_reply = "250 2.0.0 taken"
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.sink = self
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> Self:
        """Accept connections."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """Accept no more, and close what is open."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()
        self._server.close_connections()

    def refuse(self, address: str, reply: str = "550 5.1.1 no such address") -> None:
        """Answer RCPT for `address` (case ignored; "*" is every address) with `reply`."""
        self._refusals[address.lower()] = reply

    def defer(self, address: str, reply: str = "451 4.3.0 try again later") -> None:
        """As refuse(), for a while."""
        self.refuse(address, reply)

    def accept(self, address: str | None = None) -> None:
        """Take back a refusal; without an address all of them."""
        if address is None:
            self._refusals.clear()
        else:
            self._refusals.pop(address.lower(), None)

    @property
    def deliveries(self) -> list[Delivery]:
        """The transactions so far."""
        with self._changed:
            return list(self._deliveries)

    @property
    def received(self) -> list[Received]:
        """The deliveries, one entry a recipient: however Postfix batched them."""
        return [
            Received(rcpt.address, rcpt, delivery.sender, delivery.data, delivery)
            for delivery in self.deliveries
            for rcpt in delivery.rcpts
        ]

    @property
    def recipients(self) -> list[str]:
        """The addresses of `received`, sorted."""
        return sorted(entry.recipient for entry in self.received)

    @property
    def refused(self) -> list[Rcpt]:
        """The RCPT commands that were refused or deferred."""
        with self._changed:
            return list(self._refused)

    def clear(self) -> None:
        """Forget what arrived; refusals stay."""
        with self._changed:
            self._deliveries.clear()
            self._refused.clear()

    def wait(self, count: int, timeout: float = TIMEOUT) -> list[Received]:
        """`received`, once it has `count` entries or more; LabError says what there is instead."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while sum(len(delivery.rcpts) for delivery in self._deliveries) < count:
                if not self._changed.wait(deadline - time.monotonic()):
                    raise LabError(
                        f"waited {timeout:g} s without success for {count} recipients, "
                        f"there are {self.recipients}"
                    )
        return self.received

    def reply_to(self, rcpt: Rcpt) -> str | None:
        """The refusal that is set for this recipient, or None; a refusal is recorded."""
        reply = self._refusals.get(rcpt.address.lower()) or self._refusals.get("*")
        if reply is not None:
            with self._changed:
                self._refused.append(rcpt)
                self._changed.notify_all()
        return reply

    def take(self, delivery: Delivery) -> None:
        """Record a delivery."""
        with self._changed:
            self._deliveries.append(delivery)
            self._changed.notify_all()


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 100
    sink: Sink

    def __init__(self, address: tuple[str, int], handler: type["_Handler"]) -> None:
        self._open: set[_Handler] = set()
        super().__init__(address, handler)

    def register(self, handler: "_Handler") -> None:
        self._open.add(handler)

    def unregister(self, handler: "_Handler") -> None:
        self._open.discard(handler)

    def close_connections(self) -> None:
        for handler in list(self._open):
            self.shutdown_request(handler.request)


class _Handler(socketserver.StreamRequestHandler):
    """One connection. Commands are answered one by one; pipelined ones wait in the buffer."""

    server: _Server
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.server.register(self)
        self.helo = ""
        self.mail_from: str | None = None
        self.rcpts: list[Rcpt] = []

    def finish(self) -> None:
        self.server.unregister(self)
        with suppress(OSError):
            super().finish()

    def handle(self) -> None:
        try:
            self._reply("220 sink.example ESMTP")
            while line := self.rfile.readline():
                if not self._command(line.rstrip(b"\r\n").decode("utf-8", "surrogateescape")):
                    break
        except (OSError, ValueError):
            pass  # the client, or stop(), has closed the connection

    def _command(self, line: str) -> bool:
        verb = line.partition(" ")[0].upper()
        action = {"EHLO": self._ehlo, "HELO": self._ehlo, "MAIL": self._mail, "RCPT": self._rcpt}
        if verb in action:
            action[verb](line)
        elif verb == "DATA":
            self._data()
        elif verb in ("RSET", "NOOP", "QUIT"):
            if verb == "RSET":
                self._reset()
            self._reply("221 2.0.0 bye" if verb == "QUIT" else "250 2.0.0 ok")
        else:
            self._reply("502 5.5.1 not implemented")
        return verb != "QUIT"

    def _ehlo(self, line: str) -> None:
        verb, _, self.helo = line.partition(" ")
        self._reset()
        words = self.server.sink.options.keywords() if verb.upper() == "EHLO" else []
        *lines, last = ["sink.example", *words]
        self._reply("".join(f"250-{word}\r\n" for word in lines) + f"250 {last}")

    def _mail(self, line: str) -> None:
        self._reset()
        self.mail_from = line.partition(":")[2].strip()
        self._reply("250 2.1.0 ok")

    def _rcpt(self, line: str) -> None:
        rcpt = Rcpt(line.partition(":")[2].strip())
        refusal = self.server.sink.reply_to(rcpt)
        if refusal is None:
            self.rcpts.append(rcpt)
        self._reply(refusal or "250 2.1.5 ok")

    def _data(self) -> None:
        if self.mail_from is None or not self.rcpts:
            self._reply("554 5.5.1 no valid recipients")
            return
        self._reply("354 go ahead")
        data = self._read_data()
        sink = self.server.sink
        reply = sink.data_reply
        if reply.startswith("2"):
            sink.take(Delivery(self.mail_from, tuple(self.rcpts), data, sink.port, self.helo))
        self._reset()
        self._reply(reply)

    def _read_data(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            if not line:
                raise ConnectionError("connection lost in DATA")
            lines.append(line[1:] if line.startswith(b".") else line)
        return b"".join(lines)

    def _reset(self) -> None:
        self.mail_from = None
        self.rcpts = []

    def _reply(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")
