"""A sink, a milter and a Postfix that belong together, and what becomes of a message there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Self

from lab import smtp
from lab.delivery import Received
from lab.milter import Milter
from lab.postfix import Postfix, Settings
from lab.sink import Sink


@dataclass(frozen=True)
class Outcome:
    """One message: the server's replies, what reached the sink, what the milter logged of it.

    `received` includes bounces and notifications that the message gave rise to.
    """

    sent: smtp.Sent
    received: list[Received]
    log: list[str]

    @property
    def queue_id(self) -> str:
        """Under which Postfix queued it."""
        return self.sent.queue_id

    @property
    def recipients(self) -> list[str]:
        """Who got it, sorted; an address that got it twice is there twice."""
        return sorted(entry.recipient for entry in self.received)

    def of(self, recipient: str) -> Received:
        """What this recipient got; KeyError unless that is exactly one."""
        found = [entry for entry in self.received if entry.recipient == recipient]
        if len(found) != 1:
            raise KeyError(f"{recipient} got {len(found)}, the recipients are {self.recipients}")
        return found[0]


class Lab:
    """Postfix in front of a sink and, where `config` is given, with the milter.

    The milter is the last of smtpd_milters and non_smtpd_milters, after those that the settings
    name, with the settings `milter_settings`. `sink` is one that runs already, instead of a new
    one with the options `sink_options`. All other arguments are those of postfix.Settings.
    """

    def __init__(
        self,
        config: str | None = None,
        *,
        sink: Sink | None = None,
        sink_options: dict[str, Any] | None = None,
        milter_settings: dict[str, str] | None = None,
        milter_inet: bool = False,
        milter_command: Sequence[str] | None = None,
        **settings: Any,
    ) -> None:
        self._own_sink = sink is None
        self.sink = sink or Sink(**(sink_options or {}))
        self._milter: Milter | None = None
        chosen = Settings(**settings)
        if config is not None:
            self._milter = Milter(config, inet=milter_inet, command=milter_command)
            entry = self._milter.setting(**(milter_settings or {}))
            chosen = replace(
                chosen,
                smtpd_milters=f"{chosen.smtpd_milters} {entry}".strip(),
                non_smtpd_milters=f"{chosen.non_smtpd_milters} {entry}".strip(),
            )
        self.postfix = Postfix(self.sink, chosen)
        self._running = ExitStack()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def milter(self) -> Milter:
        """The milter; it must have been asked for."""
        assert self._milter is not None, "this lab has no milter"
        return self._milter

    def start(self) -> Self:
        """All parts run when it returns, none when it raises."""
        with ExitStack() as parts:
            if self._own_sink:
                parts.enter_context(self.sink)
            if self._milter:
                parts.enter_context(self._milter)
            parts.enter_context(self.postfix)
            self._running = parts.pop_all()
        return self

    def stop(self) -> None:
        """Postfix, then the milter, then the sink. Mail in the queue is gone."""
        self._running.close()

    def send(
        self,
        sender: bytes | str,
        rcpts: Iterable[bytes | str],
        message: bytes,
        *,
        service: str = "smtp",
        wait: bool = True,
    ) -> Outcome:
        """One message in a session of its own, followed until nothing of it is left in the queue.

        The arguments are those of smtp.send(). Without `wait` the outcome has the replies only:
        that is for mail that stays deferred. `service` is one of postfix.ports.
        """
        before = len(self.sink.received)
        sent = smtp.send(self.postfix.ports[service], sender, rcpts, message)
        if not wait or sent.reply.code != 250:
            return Outcome(sent, [], [])
        self.postfix.wait_empty_queue()
        return Outcome(sent, self.sink.received[before:], self._log_of(sent.queue_id))

    def fresh(self) -> None:
        """Forget what was: the sink accepts all and has none, queue and logs are empty."""
        self.sink.accept()
        self.sink.data_reply = "250 2.0.0 taken"
        if self.postfix.queue():
            self.postfix.postsuper("-d", "ALL")
        self.sink.clear()
        self.mark_logs()

    def mark_logs(self) -> None:
        """Let logs() tell only what comes from here on."""
        self.postfix.maillog.mark()
        if self._milter:
            self._milter.logfile.mark()

    def logs(self) -> dict[str, str]:
        """The logs since the last mark_logs(), by a title each."""
        found = {f"postfix on port {self.postfix.port}": self.postfix.log()}
        if self._milter:
            found["crm-milter"] = self._milter.log()
        return found

    def _log_of(self, queue_id: str) -> list[str]:
        return self._milter.lines(f"{queue_id}: ") if self._milter else []
