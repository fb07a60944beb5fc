"""What arrives at a sink."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Rcpt:
    """One RCPT command: what stood after "TO:", raw."""

    raw: str

    @property
    def address(self) -> str:
        """The address as it came, without its angle brackets."""
        return _path(self.raw)

    @property
    def notify(self) -> str | None:
        """The value of NOTIFY, raw; None where it was not given."""
        return _parameter(self.raw, "NOTIFY")

    @property
    def orcpt(self) -> str | None:
        """The value of ORCPT, raw; None where it was not given."""
        return _parameter(self.raw, "ORCPT")


@dataclass(frozen=True)
class Delivery:
    """One accepted transaction. `mail_from` is what stood after "FROM:", raw; `data` has CRLF."""

    mail_from: str
    rcpts: tuple[Rcpt, ...]
    data: bytes
    port: int
    helo: str

    @property
    def sender(self) -> str:
        """The envelope sender without its angle brackets; empty for the null sender."""
        return _path(self.mail_from)

    @property
    def message(self) -> bytes:
        """The data without the topmost Received field, which the Postfix before us has added."""
        return re.sub(rb"\AReceived:[^\n]*\n([ \t][^\n]*\n)*", b"", self.data)


@dataclass(frozen=True)
class Received:
    """One recipient of one delivery."""

    recipient: str
    rcpt: Rcpt
    sender: str
    data: bytes
    delivery: Delivery


def _path(argument: str) -> str:
    match = re.match(r"<((?:[^\">]|\"(?:[^\"\\]|\\.)*\")*)>", argument)
    return match[1] if match else argument.partition(" ")[0]


def _parameter(argument: str, name: str) -> str | None:
    rest = argument[len(_path(argument)) :]
    match = re.search(rf"(?i)\s{name}=(\S+)", rest)
    return match[1] if match else None
