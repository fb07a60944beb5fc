"""crm-milter as a process that is started, signalled and waited for."""

import ctypes
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mta import Mta

from lab.base import Child, LogFile, scratch, wait_for
from lab.milter import program

CONFIG = """
unrouted_to: it@solarmora.com
spam: amavis
rules:
  - name: support
    match: [help@solarmora.com, hilfe@grüße.example]
    replace_with: support@crm.example
    also_deliver_to: [team@solarmora.com]
  - name: sales
    match: sales@solarmora.com
    replace_with: sales@crm.example
  - name: boxes
    match: box-*@solarmora.com
    replace_with: \\1@crm.example
  - name: open
    match: open@solarmora.com
    replace_with: open@crm.example
    bypass_spam_filter: true
  - {name: reject, match: reject@solarmora.com, replace_with: r@crm.example, on_spam: reject}
  - {name: hold, match: hold@solarmora.com, replace_with: h@crm.example, on_spam: quarantine}
  - {name: discard, match: discard@solarmora.com, replace_with: d@crm.example, on_spam: discard}
"""
RULES = """
unrouted_to: it@solarmora.com
dead_letters: lost@solarmora.com
spam: amavis
rules:
  - {name: support, match: help@solarmora.com, replace_with: support@crm.example}
"""
HELP = "<help@solarmora.com>"
HAM = [("X-Spam-Flag", "NO")]

# Imports all that it needs as root, in case the checkout is where nobody else may look.
_AS_NOBODY = """
import importlib, os, pkgutil, sys
import crm_milter
for each in pkgutil.walk_packages(crm_milter.__path__, "crm_milter."):
    importlib.import_module(each.name)
from crm_milter.cli import main as cli
os.setgroups([]); os.setresgid(*[65534] * 3); os.setresuid(*[65534] * 3)
sys.exit(cli.main(sys.argv[1:]))
"""


def run(*arguments: str | Path, as_nobody: bool = False) -> subprocess.CompletedProcess[str]:
    """A command that ends by itself."""
    command = [sys.executable, "-c", _AS_NOBODY] if as_nobody else program()
    return subprocess.run(
        [*command, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )


class Serve:
    """`crm-milter serve` with its files in a scratch folder; LISTEN in the text is the socket."""

    def __init__(self, text: str = RULES, *, listen: str = "", environment: str = "") -> None:
        self.folder = scratch()
        self.socket = self.folder / "milter.sock"
        self.listen = listen or f"unix:{self.socket}"
        self.config = self.folder / "crm-milter.yaml"
        self.log = LogFile(self.folder / "log")
        head = "" if "milter:" in text else "milter: {listen: 'LISTEN'}\n"
        head += "metrics: {listen: none}\n"
        self.config.write_text((head + text).replace("LISTEN", self.listen))
        command = ["env", environment, *program()] if environment else program()
        self._argv = [*command, "serve", "--config", str(self.config)]
        self._child: Child | None = None

    def __enter__(self) -> "Serve":
        return self.start().ready()

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def address(self) -> str:
        """Where it listens, as Mta() takes it."""
        kind, _, rest = self.listen.partition(":")
        port, _, host = rest.partition("@")
        return self.listen if kind == "unix" else f"{kind}:[{host}]:{port}"

    @property
    def pid(self) -> int:
        """Of the process that was started; its process group has the same number."""
        assert self._child is not None
        return self._child.pid

    def start(self) -> "Serve":
        """Start it and wait for nothing."""
        self._child = Child(self._argv, self.folder, self.log.path)
        return self

    def ready(self) -> "Serve":
        """Wait until it says that it serves."""
        self.log.wait(r"(?m)^serving ")
        return self

    def signal(self, number: int) -> None:
        """To the process that was started, as systemd's KillMode=mixed does."""
        os.kill(self.pid, number)

    def status(self, timeout: float = 10.0) -> int:
        """Wait for its end; the exit status."""
        assert self._child is not None
        return self._child.process.wait(timeout)

    def running(self) -> bool:
        """Whether it has not ended."""
        return self._child is not None and self._child.running()

    def kill(self) -> None:
        """End it, if it has not, as the kernel does when memory is short."""
        child, self._child = self._child, None
        if child is not None:
            child.stop(first=9)

    def session(self) -> Mta:
        """A connection in the middle of a message: half of its envelope is there."""
        mta = Mta(self.address)
        mta.connect()
        mta.mail()
        mta.rcpt(HELP)
        return mta


def finishes(mta: Mta) -> bool:
    """Whether the message of session() is routed."""
    mta.rcpt("<alice@solarmora.com>")
    return mta.finish(HAM).of("delete") == [("help@solarmora.com",)]


def reachable(address: str) -> bool:
    """Whether somebody listens there."""
    with suppress(OSError), Mta(address):
        return True
    return False


def refused(serve: Serve) -> None:
    """Wait until new connections are refused."""
    wait_for("the end of the listener", lambda: not reachable(serve.address))


def option(pid: int, ours: socket.socket, level: int, name: int) -> int:
    """A socket option of the other end of a TCP connection, in the process group `pid`."""
    for connection in _sockets(pid):
        with suppress(OSError):
            if connection.getpeername() == ours.getsockname():
                return connection.getsockopt(level, name)
    raise LookupError("nobody has the other end")


def _sockets(group: int) -> Iterator[socket.socket]:
    """Duplicates of all sockets of a process group, each closed after its turn."""
    libc = ctypes.CDLL(None, use_errno=True)
    for process in [int(each.name) for each in Path("/proc").glob("[0-9]*")]:
        with suppress(ProcessLookupError, FileNotFoundError):
            if os.getpgid(process) != group:
                continue
            handle = os.pidfd_open(process)
            for entry in Path(f"/proc/{process}/fd").iterdir():
                if str(entry.readlink()).startswith("socket:"):
                    copy = libc.syscall(438, handle, int(entry.name), 0)  # pidfd_getfd
                    if copy >= 0:
                        with socket.socket(fileno=copy) as connection:
                            yield connection
            os.close(handle)
