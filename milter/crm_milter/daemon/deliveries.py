"""The follower of Postfix's log: a process next to the exporter that counts deliveries.

It has no part in the mail, and stands back behind everything else. What it counted, where it is in
the log and what is under way are saved together, and shown only then: after a restart, even after
a kill, it goes on from there, and no line counts twice.
"""

import contextlib
import json
import os
import select
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crm_milter.config.load import Config
from crm_milter.log import Log
from crm_milter.metrics.catalogue import DELIVERY_SECONDS
from crm_milter.metrics.deliveries import Deliveries
from crm_milter.metrics.memory import Board
from crm_milter.rules.rule import key
from crm_milter.trace import live
from crm_milter.trace.deliveries import Ours, OwnAddresses, Tracker
from crm_milter.trace.file import LogError
from crm_milter.wording import why

_NICENESS = 19  # everything else comes first
_POLL_INTERVAL = 0.5  # seconds between two looks at the end of a log
_SAVED_EVERY = 1.0  # seconds
_LEISURE = 50  # how many times the processor time of saving passes until the next
_LATER = (5.0, 60.0)  # seconds until a log that cannot be read is tried again, doubled each time
_FILE = "deliveries.json"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be followed, and where."""

    logs: tuple[str, ...]
    addresses: OwnAddresses


def wanted(config: Config) -> Wanted:
    """Return what a configuration wants."""
    policy = config.policy
    rules = {
        rule.name: Ours(
            frozenset(key(each.address) for each in rule.copies),
            key(rule.dead_letters or policy.dead_letters or ""),
        )
        for rule in policy.table.rules
    }
    return Wanted(config.deliveries, OwnAddresses(rules))


def run(
    wanted: Wanted,
    folder: Path | None,
    boards: tuple[Board, Board],
    channel: socket.socket,
    log: Log,
) -> int:
    """Follow the log until the supervisor hangs up and return the exit status."""
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.nice(_NICENESS)
    follower = Follower(wanted, Memory(folder, boards[1], log), boards[0], log)
    while not select.select([channel], [], [], follower.pause())[0]:
        follower.step()
    follower.finish()
    return 0


class Memory:
    """What outlives the process: on a board for the next of this service, in a file for later."""

    def __init__(self, folder: Path | None, board: Board, log: Log) -> None:
        self._path = folder / _FILE if folder else None
        self._board = board
        self._log = log
        self._complained = False

    def recall(self, is_usable: Callable[[dict[str, Any], bool], None]) -> bool:
        """Hand over what was saved last, and whether it is that of an earlier service.

        Returns False if it is damaged.
        """
        word = self._board.read()
        is_earlier = word is None
        try:
            if is_earlier and self._path:
                word = json.loads(self._path.read_bytes())
            if word:
                is_usable(word, is_earlier)
        except FileNotFoundError:
            pass
        except (OSError, LookupError, TypeError, ValueError, AttributeError) as error:
            self._log(
                f"warning: {self._path} is not usable, deliveries are counted from now on: "
                f"{why(error) if isinstance(error, OSError) else error}"
            )
            return False
        return True

    def save(self, word: dict[str, Any]) -> None:
        """Save all of it, such that there is the old one or the new one."""
        self._board.write(word)
        if self._path is None:
            return
        try:
            descriptor, name = tempfile.mkstemp(dir=self._path.parent, prefix=".new-")
            try:
                with os.fdopen(descriptor, "w") as stream:
                    json.dump(word, stream)
                Path(name).rename(self._path)
            except OSError:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            if not self._complained:
                self._log(f"warning: cannot save the position in the mail log: {why(error)}")
            self._complained = True


class Follower:
    """Reads, counts, saves and shows, each in its time; ``log`` is told once of each trouble."""

    def __init__(self, wanted: Wanted, memory: Memory, board: Board, log: Log) -> None:
        self._rules = wanted.addresses.rules.keys()
        self._tracker = Tracker(wanted.addresses, DELIVERY_SECONDS.bounds)
        self._logs = wanted.logs
        self._memory = memory
        self._board = board
        self._log = log
        self._positions: dict[str, Any] = {}
        self._sources: list[live.Live] = []
        self._trouble = self._said = ""
        self._wait = 0.0
        self._retry_at = self._save_at = 0.0
        self._is_changed = True
        self._is_busy = True
        if not memory.recall(self._go_on):
            self._tracker = Tracker(wanted.addresses, DELIVERY_SECONDS.bounds)
            self._tracker.dropped += 1  # how many there were is not known

    def pause(self) -> float:
        """Return how many seconds to wait for the next step."""
        return 0.0 if self._is_busy else _POLL_INTERVAL

    def step(self) -> None:
        """Read what there is, up to a limit, and save what was counted if it is time."""
        self._is_busy = False
        if time.monotonic() >= self._retry_at:
            self._read()
        if self._is_changed and time.monotonic() >= self._save_at:
            self._save()

    def finish(self) -> None:
        """Save what was counted, and end what belongs to the sources."""
        if self._is_changed:
            self._save()
        for each in self._sources:
            each.close()

    def _go_on(self, word: dict[str, Any], is_earlier: bool) -> None:
        positions = live.checked(word["positions"])
        self._tracker.restore(word["tracker"])
        self._positions = positions
        if is_earlier:  # rules that are gone have their numbers as long as the service runs
            self._tracker.forget_all_but(self._rules)

    def _read(self) -> None:
        try:
            self._sources = self._sources or live.sources(self._logs, self._positions)
            for source in self._sources:
                for line in source.lines():
                    self._tracker.take(line)
                    self._is_busy = True
            self._wait = 0.0
        except LogError as error:
            self._complain(str(error))
        else:
            self._complain("")
        self._is_changed = self._is_changed or self._is_busy

    def _complain(self, trouble: str) -> None:
        """Say it once, and try again later; or say that the trouble is over."""
        if trouble:
            self._forget_sources()
            self._wait = min(max(2 * self._wait, _LATER[0]), _LATER[1])
            self._retry_at = time.monotonic() + self._wait
        self._is_changed = self._is_changed or trouble != self._trouble
        self._trouble = trouble
        is_auto = self._logs == ("auto",)
        if trouble == self._said or (trouble and is_auto and self._wait < _LATER[1]):
            return  # a log that is not named may be made yet
        if trouble:
            self._log(f"{'' if is_auto else 'warning: '}deliveries are not counted: {trouble}")
        else:
            self._log("deliveries are counted again")
        self._said = trouble

    def _forget_sources(self) -> None:
        for each in self._sources:
            each.close()
            self._positions[each.name] = each.position
        self._sources = []

    def _save(self) -> None:
        began = time.process_time()
        self._positions.update((each.name, each.position) for each in self._sources)
        tracker = self._tracker
        self._memory.save({"tracker": tracker.state(), "positions": self._positions})
        counts = [(*what, number) for what, number in tracker.counts.items()]
        is_readable = bool(self._sources) and not self._trouble
        seen = Deliveries(counts, tracker.seconds, tracker.oldest(), tracker.dropped, is_readable)
        self._board.write(seen.word())
        spent = time.process_time() - began
        self._save_at = time.monotonic() + max(_SAVED_EVERY, _LEISURE * spent)
        self._is_changed = False
