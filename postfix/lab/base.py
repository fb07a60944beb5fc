"""What every part of the lab needs: scratch folders, free ports, waiting, children that end."""

import atexit
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

TIMEOUT = 10.0  # seconds that anything here may take before it counts as broken


class LabError(Exception):
    """The lab, not what is tried on it, does not work; the message says what and why."""


def scratch() -> Path:
    """A new folder directly under /tmp, since paths of Unix sockets must be short.

    It can be entered by other users: smtpd runs as user postfix. It is removed at exit.
    """
    folder = Path(tempfile.mkdtemp(prefix="lab-", dir="/tmp"))
    folder.chmod(0o755)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def free_port() -> int:
    """A loopback port that is free now, below those that outgoing connections take."""
    for _ in range(100):
        port = random.randrange(10_000, 30_000)
        if is_free(port):
            return port
    raise LabError("no free port found")


def is_free(port: int) -> bool:
    """Whether this loopback port is free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def wait_for(what: str, condition: Callable[[], T | None], timeout: float = TIMEOUT) -> T:
    """The first true value of `condition`; LabError with `what` after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise LabError(f"waited {timeout:g} s without success for {what}")
        time.sleep(0.005)


class LogFile:
    """A log that another process writes: its text, from a mark on, and waiting for a line of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mark = 0

    def mark(self) -> None:
        """Let text() and wait() see only what is written from now on."""
        self._mark = self.path.stat().st_size if self.path.exists() else 0

    def text(self) -> str:
        """What was written since the mark."""
        if not self.path.exists():
            return ""
        return self.path.read_bytes()[self._mark :].decode("utf-8", "surrogateescape")

    def wait(self, regex: str, timeout: float = TIMEOUT) -> re.Match[str]:
        """The first match of `regex` (multi-line) since the mark, as soon as it is there."""
        pattern = re.compile(regex, re.MULTILINE)
        return wait_for(
            f"{regex!r} in {self.path.name}", lambda: pattern.search(self.text()), timeout
        )


# $1 is the child's process group and $2 its folder. A line on standard input says that the child
# was stopped in good order, the end of the input that the interpreter was killed. The signal that
# the kernel can send when a parent dies will not do: master loses it when it changes its user.
_WATCHDOG = """
read -r line && exit
kill -s TERM -- "-$1"
sleep 0.5
kill -s KILL -- "-$1"
rm -rf -- "$2"
"""


class Child:
    """A process in a session of its own, which ends with us in any case.

    SIGINT of a terminal does not reach it. stop() ends its whole process group, so does the end of
    the interpreter, and a watchdog does it should the interpreter be killed; that also removes
    `folder`, where the output goes to the file `output`.
    """

    def __init__(self, argv: list[str], folder: Path, output: Path) -> None:
        with output.open("ab") as stream:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        self.pid = self.process.pid
        self._watchdog = subprocess.Popen(
            ["/bin/sh", "-c", _WATCHDOG, "sh", str(self.pid), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        atexit.register(self.stop, timeout=2.0)

    def running(self) -> bool:
        """Whether the process itself has not ended yet."""
        return self.process.poll() is None

    def stop(self, timeout: float = TIMEOUT, first: int = signal.SIGTERM) -> int:
        """Send `first`, wait for the end, then make sure of the process group; the exit status."""
        if self.running():
            self.process.send_signal(first)
        try:
            status = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._signal_group(signal.SIGKILL)
            status = self.process.wait()
        self._end_group(timeout=2.0)
        self._watchdog.communicate(b"stopped\n")
        atexit.unregister(self.stop)
        return status

    def group(self) -> list[int]:
        """The ids of the processes, other than zombies, in the group that this one leads."""
        return [pid for pid, group in _processes() if group == self.pid]

    def _end_group(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while self.group():
            if time.monotonic() > deadline:
                self._signal_group(signal.SIGKILL)
            time.sleep(0.005)

    def _signal_group(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.pid, number)


def _processes() -> list[tuple[int, int]]:
    found = []
    for process in [each for each in Path("/proc").iterdir() if each.name.isdigit()]:
        try:
            text = (process / "stat").read_text(errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = text.rpartition(")")[2].split()
        if fields[0] != "Z":
            found.append((int(process.name), int(fields[2])))
    return found


def postfix_version() -> tuple[int, ...]:
    """Return the version of the installed Postfix, such as (3, 7, 11)."""
    said = subprocess.run(
        ["postconf", "-dh", "mail_version"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=True,
    )
    return tuple(int(part) for part in re.findall(r"\d+", said.stdout)[:3])
