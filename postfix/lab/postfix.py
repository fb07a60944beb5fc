"""A private Postfix on loopback, in a scratch folder, that hands every message to a sink."""

import json
import os
import pty
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from lab import config
from lab.base import TIMEOUT, Child, LabError, LogFile, free_port, is_free, scratch, wait_for
from lab.sink import Sink

_QUEUES = ("maildrop", "incoming", "active", "deferred")

_NUDGE = 2.0  # seconds
_LOG_DELAY = 2.0  # seconds

_ACTIVE = re.compile(r"/qmgr\[\d+\]: (\w+): from=<.*\(queue active\)$", re.MULTILINE)
_REMOVED = re.compile(r"/(?:qmgr|postsuper)\[\d+\]: (\w+): removed$", re.MULTILINE)


@dataclass
class Settings:
    """What a test may choose; the rest stands in config.py.

    `smtpd_milters` and `non_smtpd_milters` are as in main.cf; config.milter() writes the braces.
    `virtual_alias_maps` and `transport_maps` are the entries themselves, the first also as the text
    of a table; a transport is a sink or the text of an entry. `services` are more smtpd listeners:
    a name of one's own, and the settings that differ from main.cf. `main` adds to main.cf or
    replaces what stands there, `master` adds lines to master.cf.
    """

    smtpd_milters: str = ""
    non_smtpd_milters: str = ""
    virtual_alias_maps: Mapping[str, str] | str = field(default_factory=dict)
    transport_maps: Mapping[str, Sink | str] = field(default_factory=dict)
    services: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    main: Mapping[str, str] = field(default_factory=dict)
    master: Sequence[str] = ()


class Postfix:
    """Every domain, the local ones too, is delivered by SMTP to `sink`.

    `port` is that of the default smtpd, `ports` has those of `Settings.services` by name. Start it
    in a thread that lives as long as it shall live.
    """

    def __init__(self, sink: Sink, settings: Settings | None = None, **changes: Any) -> None:
        self.settings = settings or Settings(**changes)
        self.sink = sink
        self.folder = scratch()
        self.config = self.folder / "config"
        self.maillog = LogFile(self.folder / "log" / "maillog")
        self.port = 0
        self.ports: dict[str, int] = {}
        self._output = self.folder / "log" / "output"
        self._master: Child | None = None

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
        """Return when each smtpd greets; LabError with what Postfix said where it does not."""
        if os.geteuid() != 0:
            raise LabError("a private postfix needs root")
        self._make_folders()
        for _ in range(5):
            self._choose_ports()
            self.write_config()
            self._master = self._run_master()
            try:
                self._wait_ready()
            except LabError as error:
                self.stop_processes()
                # Somebody may have taken a port between our choice and its use.
                if all(map(is_free, self.ports.values())):
                    raise LabError(f"postfix: {error}\n{self._diagnosis()}") from error
            except BaseException:
                self.stop_processes()
                raise
            else:
                return self
        raise LabError("postfix found no free port")

    def stop(self) -> None:
        """End all its processes and remove the folder. Mail in the queue is gone."""
        self.stop_processes()
        shutil.rmtree(self.folder, ignore_errors=True)

    def stop_processes(self) -> None:
        """As stop(), but keep the queue: start() goes on with it, on new ports."""
        if self._master is not None:
            self._master.stop()
            self._master = None

    def processes(self) -> list[int]:
        """The ids of the processes of this instance."""
        return self._master.group() if self._master else []

    def reload(self) -> None:
        """As `postfix reload`, after writing the configuration again from `settings`.

        Returns when no process of before is left, so no SMTP session may be open.
        """
        self.write_config()
        self.take_up()
        self._wait_ready()

    def take_up(self) -> None:
        """As `postfix reload`; returns when no process of before is left, nor the old tables."""
        if self._master is None:
            raise LabError("postfix is not running")
        before = {*self.processes()} - {self._master.pid}
        os.kill(self._master.pid, signal.SIGHUP)
        wait_for("the end of the old processes", lambda: not before & {*self.processes()})

    def write_config(self) -> None:
        """Write main.cf, master.cf and the maps from `settings`."""
        config.write(self.config, self.settings, self.sink.port, self.ports)

    def postconf(self, *arguments: str) -> str:
        """What postconf prints for this instance."""
        return self.run("postconf", *arguments).stdout.decode().strip()

    def queue(self) -> list[dict[str, Any]]:
        """The queue as `postqueue -j` shows it, held mail included."""
        return [json.loads(line) for line in self.run("postqueue", "-j").stdout.splitlines()]

    def flush(self) -> None:
        """Try all deferred mail now."""
        self.run("postqueue", "-f")

    def postsuper(self, *arguments: str) -> None:
        """Hold, release, requeue or delete mail, with the arguments of postsuper."""
        self.run("postsuper", *arguments)

    def sendmail(self, *arguments: str, stdin: bytes) -> subprocess.CompletedProcess[bytes]:
        """Hand in mail as the sendmail command does; LabError where it fails."""
        return self.run("sendmail", *arguments, stdin=stdin)

    def run(
        self, command: str, *arguments: str, stdin: bytes = b"", stderr: int = subprocess.PIPE
    ) -> subprocess.CompletedProcess[bytes]:
        """A Postfix command for this instance; LabError with its messages where it fails."""
        path = config.commands() / command
        done = subprocess.run(
            [path, *arguments],
            input=stdin,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, "MAIL_CONFIG": str(self.config)},
            timeout=30,
            check=False,
        )
        if done.returncode != 0:
            words = ((done.stderr or b"") + done.stdout).decode(errors="replace")
            raise LabError(f"{command} failed with {done.returncode}: {words}")
        return done

    def log(self) -> str:
        """What Postfix logged, or, where it did not come to that, said."""
        output = self._output.read_text(errors="replace") if self._output.exists() else ""
        return output + self.maillog.text()

    def wait_log(self, regex: str, timeout: float = TIMEOUT) -> str:
        """Wait for the regular expression in the log; the text that it matched."""
        return self.maillog.wait(regex, timeout)[0]

    def wait_empty_queue(self, timeout: float = TIMEOUT) -> None:
        """Return when nothing but held mail is in the queue: all else has been dealt with."""
        nudge_at = time.monotonic() + _NUDGE

        def empty() -> bool:
            nonlocal nudge_at
            if self._queue_empty() and self._queue_empty():
                return True
            if time.monotonic() >= nudge_at:
                # qmgr misses word of mail that comes while it is reloaded, and would look by
                # itself after five minutes only.
                self.flush()
                nudge_at = time.monotonic() + _NUDGE
            return False

        try:
            wait_for("an empty queue", empty, timeout)
        except LabError as error:
            raise LabError(f"{error}: {self.queue()}") from None
        with suppress(LabError):
            wait_for("the last lines of the log", self._removals_logged, _LOG_DELAY)

    def _removals_logged(self) -> bool:
        # qmgr removes the file first; the line may come after the next command has read the log.
        log = self.maillog.text()
        return {*_ACTIVE.findall(log)} <= {*_REMOVED.findall(log)}

    def _queue_empty(self) -> bool:
        # A message moves in this order, so looking twice cannot miss one.
        return not any(
            files for name in _QUEUES for _, _, files in os.walk(self.folder / "queue" / name)
        )

    def _run_master(self) -> Child:
        master = str(config.daemons() / "master")
        return Child([master, "-c", str(self.config)], self.folder, self._output)

    def _diagnosis(self) -> str:
        """Why it does not start: the log, and what Postfix only says to a terminal."""
        try:
            ours, theirs = pty.openpty()
        except OSError:
            return self.log()
        os.set_blocking(ours, False)
        try:
            self.run("postfix", "check", stderr=theirs)
        except LabError:
            with suppress(BlockingIOError):
                return self.log() + os.read(ours, 4096).decode(errors="replace")
        finally:
            os.close(ours)
            os.close(theirs)
        return self.log()

    def _choose_ports(self) -> None:
        self.ports = {name: free_port() for name in ("smtp", *self.settings.services)}
        self.port = self.ports["smtp"]

    def _wait_ready(self) -> None:
        wait_for("its greeting", lambda: all(map(self._greets, self.ports.values())))

    def _greets(self, port: int) -> bool:
        """Whether our smtpd, not somebody else's on the same port, is there."""
        if self._master is None or not self._master.running():
            raise LabError("its master process ended")
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as connection:
                connection.settimeout(5)
                greeting = connection.makefile("rb").readline()
        except OSError:
            return False
        return self.folder.name.encode() in greeting

    def _make_folders(self) -> None:
        config.make_folders(self.folder)
        self._output.parent.mkdir(exist_ok=True)
