"""What goes wrong while mail flows: each fault is brought about, waited for, and mended again.

A fault ends when mail is served as before. None waits for a time: only for what follows from it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from model import CONFIG
from procs import descriptors, workers
from traffic import Book

from lab.base import LabError, wait_for
from lab.milter import Milter
from lab.whole import Lab

TIMEOUT = 3  # seconds that Postfix waits for the milter
# Mail from slow@ takes longer than that at its end, deaths come closer together than the
# supervisor would put up with, and where the file "full" is there the log is on a full disk.
_PROGRAM = f"""
import sys, time
from crm_milter.cli import main as cli
from crm_milter.daemon import child as children
from crm_milter.routing.memory import Memory
children.RestartBackoff.WINDOW = 0.0
resolve = Memory.resolve
def slow(self, envelope, facts):
    if envelope.sender.startswith("slow@"):
        time.sleep({TIMEOUT + 1})
    return resolve(self, envelope, facts)
Memory.resolve = slow
sys.exit(cli.main())
"""


class Trouble:
    """The faults for one lab; ``done`` are the names of those that happened, in order."""

    def __init__(self, random: Random, metrics: int, full: Path) -> None:
        self._random = random
        self._text = CONFIG.replace("METRICS", f"127.0.0.1:{metrics}")
        self._full = full
        self.done: list[str] = []
        self.faults: tuple[Callable[[Lab, Book], None], ...] = (
            worker_killed, worker_killed, worker_stopped, self.good_reload, self.bad_reload,
            supervisor_killed, restarted, exporter_killed, socket_removed, self.disk_full,
        )  # fmt: skip

    def strike(self, lab: Lab, book: Book) -> None:
        """One fault; all kinds come before one comes again."""
        if len(self.done) % len(self.faults) == 0:
            self._round = self._random.sample(self.faults, len(self.faults))
        fault = self._round[len(self.done) % len(self.faults)]
        self.done.append(fault.__name__)
        fault(lab, book)
        wait_for("both workers", lambda: len(serving(lab.milter)) >= 2, 20)

    def good_reload(self, lab: Lab, book: Book) -> None:
        lab.milter.configure(f"{self._text}# {len(self.done)}\n")
        lab.milter.signal(signal.SIGHUP)
        book.wait("accepted", 3)

    def bad_reload(self, lab: Lab, book: Book) -> None:
        bad = self._random.choice(("rules: [", self._text + "ruels: []\n", "\0", "&a [*a]"))
        lab.milter.configure(bad)
        lab.milter.signal(signal.SIGHUP)
        book.wait("accepted", 3)
        lab.milter.configure(self._text)

    def disk_full(self, lab: Lab, book: Book) -> None:
        self._full.touch()
        restarted(lab, book)
        book.wait("accepted", 3)
        self._full.unlink()
        restarted(lab, book)


def command(full: Path) -> tuple[str, ...]:
    """How the milter is started here; its log is lost while the file ``full`` is there."""
    shell = f'test -e {full} && exec 2>/dev/full; exec "$0" "$@"'
    return ("/bin/sh", "-c", shell, sys.executable, "-c", _PROGRAM)


def serving(milter: Milter) -> list[int]:
    """The children of the supervisor that accept mail: those that hold the milter's socket."""
    lines = Path("/proc/net/unix").read_text().splitlines()
    inodes = {f"socket:[{each.split()[6]}]" for each in lines if each.endswith(str(milter.socket))}
    return [pid for pid in workers(milter.pid) if inodes & {*descriptors(pid)}]


def worker_killed(lab: Lab, book: Book) -> None:
    victim = serving(lab.milter)[0]
    os.kill(victim, signal.SIGKILL)
    wait_for("its end", lambda: victim not in workers(lab.milter.pid))


def worker_stopped(lab: Lab, book: Book) -> None:
    """Until somebody whom it served got tired of waiting."""
    victim = serving(lab.milter)[0]
    os.kill(victim, signal.SIGSTOP)
    with suppress(LabError):
        wait_for("impatience", lambda: "Connection timed out" in lab.postfix.log(), TIMEOUT + 1)
    os.kill(victim, signal.SIGCONT)


def supervisor_killed(lab: Lab, book: Book) -> None:
    lab.milter.kill()
    book.counts["down"] += 1
    lab.milter.start()


def restarted(lab: Lab, book: Book) -> None:
    lab.milter.stop()
    lab.milter.start()


def exporter_killed(lab: Lab, book: Book) -> None:
    others = {*workers(lab.milter.pid)} - {*serving(lab.milter)}
    for each in others:
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
    book.wait("accepted", 3)


def socket_removed(lab: Lab, book: Book) -> None:
    lab.milter.socket.unlink()
    with suppress(LabError):  # under "accept" nobody is refused
        book.wait("refused for now", 3, TIMEOUT)
    restarted(lab, book)
