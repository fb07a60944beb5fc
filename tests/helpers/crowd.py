"""Clients that send mail without a pause, and what became of each message, by its Message-ID."""

import itertools
import re
import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from lab import smtp
from lab.base import LabError, wait_for
from lab.whole import Lab

_numbers = itertools.count(1)


def new_id() -> str:
    """A Message-ID that no other message of this run has."""
    return f"{next(_numbers)}@crowd.example"


def message(message_id: str) -> bytes:
    """A message with this Message-ID."""
    return (
        f"From: anna@customer.example\r\nMessage-ID: <{message_id}>\r\n"
        "Subject: kaputt\r\nX-Spam-Flag: NO\r\n\r\nIt is broken.\r\n"
    ).encode()


def delivered(lab: Lab) -> dict[str, Counter[str]]:
    """Who got each message, and how often; once nothing is left in the queue."""
    lab.postfix.wait_empty_queue(30)
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in lab.sink.received:
        message_id = re.search(rb"(?m)^Message-ID: <(.+)>", entry.data)
        found[message_id[1].decode() if message_id else "none"][entry.recipient] += 1
    return found


@dataclass
class Crowd:
    """So many clients, each with one session after the other, from start to stop().

    With `retry`, what was refused for now is sent again until it is accepted. `accepted` are
    Message-IDs, `refused` the replies in the 400s, `broken` all else that went wrong.
    """

    lab: Lab
    size: int = 4
    messages: int = 3  # a session
    retry: bool = False
    recipients: tuple[str, ...] = ("<help@solarmora.com>",)
    accepted: list[str] = field(default_factory=list)
    refused: list[smtp.Reply] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(self.size)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Let each client finish its message, or get it accepted, and go."""
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)

    def wait_for_more(self, count: int = 1) -> None:
        """Return when so many more messages have been accepted."""
        goal = len(self.accepted) + count
        wait_for(f"{count} more messages", lambda: len(self.accepted) >= goal, 30)

    def _run(self) -> None:
        pending = new_id()
        while not self._stopping.is_set() or (self.retry and pending):
            try:
                with smtp.Session(self.lab.postfix.port) as session:
                    for _ in range(self.messages):
                        if not self._send(session, pending):
                            pending = pending if self.retry else new_id()
                            break
                        pending = "" if self._stopping.is_set() else new_id()
                        if not pending:
                            break
            except (LabError, OSError) as error:
                self.broken.append(repr(error))
                return

    def _send(self, session: smtp.Session, message_id: str) -> bool:
        start = time.monotonic()
        sent = session.transaction("<anna@customer.example>", self.recipients, message(message_id))
        self.seconds.append(time.monotonic() - start)
        if sent.reply.code == 250:
            self.accepted.append(message_id)
            return True
        if sent.reply.code // 100 == 4:
            self.refused.append(sent.reply)
        else:
            self.broken.append(str(sent.reply))
        return False
