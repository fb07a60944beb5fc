"""An SMTP client that sends exactly the bytes it is told to; smtplib alters too much."""

import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Self

from lab.base import TIMEOUT, LabError

_QUEUED = re.compile(r"queued as ([0-9A-Za-z]+)")


class Reply(NamedTuple):
    """The code, and the text of all lines of the reply, joined by newlines."""

    code: int
    text: str


@dataclass(frozen=True)
class Sent:
    """What the server said to one transaction: its last reply, and the one to each RCPT."""

    reply: Reply
    rcpt_replies: tuple[Reply, ...]

    @property
    def queue_id(self) -> str:
        """Where the message was queued; LabError where it was not."""
        match = _QUEUED.search(self.reply.text)
        if match is None:
            raise LabError(f"the message was not queued: {self.reply.code} {self.reply.text}")
        return match[1]


class Session:
    """One connection to 127.0.0.1, greeted; with `ehlo` None the caller says EHLO himself."""

    def __init__(self, port: int, ehlo: str | None = "client.example") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self._file = self._socket.makefile("rb")
        self.banner = self._reply()
        self.features = self.cmd(f"EHLO {ehlo}").text if ehlo else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def cmd(self, line: bytes | str) -> Reply:
        """Send `line` and CRLF; the reply. Text is sent as UTF-8."""
        self.send_raw(_bytes(line) + b"\r\n")
        return self._reply()

    def send_raw(self, data: bytes) -> None:
        """Send bytes and read nothing."""
        self._socket.sendall(data)

    def data(self, message: bytes) -> Reply:
        """DATA and `message`, as in content(); the reply to it, or that to a refused DATA."""
        reply = self.cmd(b"DATA")
        return self.content(message) if reply.code == 354 else reply

    def content(self, message: bytes) -> Reply:
        """The message after a reply 354: line ends become CRLF, dots are doubled."""
        lines = re.sub(rb"\r?\n", b"\r\n", message)
        if not lines.endswith(b"\r\n"):
            lines += b"\r\n"
        self.send_raw(re.sub(rb"(?m)^\.", b"..", lines) + b".\r\n")
        return self._reply()

    def transaction(
        self, sender: bytes | str, rcpts: Iterable[bytes | str], message: bytes
    ) -> Sent:
        """MAIL, each RCPT, DATA if one was accepted; what follows their colon is sent raw."""
        reply = self.cmd(b"MAIL FROM:" + _bytes(sender))
        if reply.code != 250:
            return Sent(reply, ())
        replies = tuple(self.cmd(b"RCPT TO:" + _bytes(rcpt)) for rcpt in rcpts)
        accepted = [reply for reply in replies if reply.code // 100 == 2]
        if accepted:
            return Sent(self.data(message), replies)
        return Sent(replies[-1] if replies else reply, replies)

    def quit(self) -> None:
        """Say QUIT and close."""
        self.cmd(b"QUIT")
        self.close()

    def close(self) -> None:
        """Close without a word: in the middle of DATA this is a dropped connection."""
        self._file.close()
        self._socket.close()

    def _reply(self) -> Reply:
        lines: list[str] = []
        while True:
            line = self._file.readline().decode("utf-8", "surrogateescape").rstrip("\r\n")
            if len(line) < 3:
                raise LabError(f"the server closed the connection after {lines!r}")
            lines.append(line[4:])
            if line[3:4] != "-":
                return Reply(int(line[:3]), "\n".join(lines))


def send(port: int, sender: bytes | str, rcpts: Iterable[bytes | str], message: bytes) -> Sent:
    """One message in a session of its own, as Session.transaction()."""
    with Session(port) as session:
        return session.transaction(sender, rcpts, message)


def _bytes(text: bytes | str) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
