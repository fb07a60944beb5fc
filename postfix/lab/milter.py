"""The milter as a child: "crm-milter serve" with a configuration, next to a private Postfix."""

import re
import shutil
import signal
import socket
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from lab import config
from lab.base import TIMEOUT, Child, LabError, LogFile, free_port, scratch, wait_for


def program() -> list[str]:
    """The command crm-milter of the environment that runs us."""
    return [str(Path(sys.executable).with_name("crm-milter"))]


class Milter:
    """`text` is the YAML file without milter.listen: the lab chooses it, and no exporter.

    Where the text has a section "milter" or "metrics" of its own it is left alone; the word
    LISTEN in it stands for the listener. `command` replaces program(); it is called with the
    arguments "serve --config FILE" all the same. Standard output and error are the log.
    """

    def __init__(
        self, text: str, *, inet: bool = False, command: Sequence[str] | None = None
    ) -> None:
        self.folder = scratch()
        self.config = self.folder / "crm-milter.yaml"
        self.logfile = LogFile(self.folder / "log")
        self.port = free_port() if inet else None
        self._command = [*(command or program())]
        self._child: Child | None = None
        self.configure(text)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        # Not stop(): a milter that drains would wait for a session that a failed test left open.
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def socket(self) -> Path:
        """Where the Unix socket is."""
        return self.folder / "milter.sock"

    @property
    def address(self) -> str:
        """The listener as main.cf writes it."""
        return f"inet:127.0.0.1:{self.port}" if self.port else f"unix:{self.socket}"

    @property
    def listen(self) -> str:
        """The listener as milter.listen writes it."""
        return f"inet:{self.port}@127.0.0.1" if self.port else f"unix:{self.socket}"

    @property
    def pid(self) -> int:
        """The process id; LabError where it does not run."""
        if self._child is None:
            raise LabError("the milter is not running")
        return self._child.pid

    def setting(self, **settings: str) -> str:
        """The entry for smtpd_milters; default_action is tempfail unless told otherwise."""
        return config.milter(self.address, **{"default_action": "tempfail", **settings})

    def configure(self, text: str) -> None:
        """Write the configuration file; a milter that runs does not know of it yet."""
        head = ""
        if not re.search(r"(?m)^milter:", text):
            head += 'milter:\n  listen: LISTEN\n  socket_mode: "0666"\n'
        if not re.search(r"(?m)^metrics:", text):
            head += "metrics:\n  listen: none\n"
        self.config.write_text((head + text).replace("LISTEN", self.listen))

    def start(self) -> Self:
        """Return when it accepts connections; LabError with what it said where it ends instead."""
        self._child = Child(
            [*self._command, "serve", "--config", str(self.config)],
            self.folder,
            self.logfile.path,
        )
        try:
            wait_for("the milter", self._accepts)
        except LabError as error:
            status = self.stop()
            raise LabError(f"{error}, exit status {status}\n{self.log()}") from error
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self, number: int = signal.SIGTERM) -> int | None:
        """Send the signal and wait: the exit status, -9 if killed for not ending in time.

        None where it was not running.
        """
        child, self._child = self._child, None
        return child.stop(first=number) if child else None

    def kill(self) -> None:
        """End it without a warning, as the kernel does when memory is short."""
        self.stop(signal.SIGKILL)

    def signal(self, number: int) -> None:
        """Send a signal and wait for nothing."""
        if self._child is None:
            raise LabError("the milter is not running")
        self._child.process.send_signal(number)

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._child is not None and self._child.running()

    def log(self) -> str:
        """What it printed (see LogFile.mark)."""
        return self.logfile.text()

    def lines(self, word: str = "") -> list[str]:
        """The lines of log() that contain `word`, say a queue id."""
        return [line for line in self.log().splitlines() if word in line]

    def wait_log(self, regex: str, timeout: float = TIMEOUT) -> str:
        """Wait for the regular expression in the log; the text that it matched."""
        return self.logfile.wait(regex, timeout)[0]

    def _accepts(self) -> bool:
        if self._child is None or not self._child.running():
            raise LabError("the milter ended")
        family = socket.AF_INET if self.port else socket.AF_UNIX
        with socket.socket(family, socket.SOCK_STREAM) as connection:
            try:
                connection.connect(("127.0.0.1", self.port) if self.port else str(self.socket))
            except OSError:
                return False
        # Root may connect before the mode is set, smtpd may not.
        return bool(self.port) or bool(self.socket.stat().st_mode & stat.S_IWOTH)
