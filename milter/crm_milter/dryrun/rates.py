"""How fast each sender wrote at the most, in memory that does not grow with the mail."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_SENDERS = 2000


class Peak(NamedTuple):
    """The most messages of a sender within some seconds."""

    sender: str
    messages: int
    seconds: int


@dataclass(slots=True)
class _Window:
    seconds: int
    times: deque[float] = field(default_factory=deque)
    peak: int = 0

    def add(self, time: float) -> None:
        times = self.times
        if times and time < times[-1]:
            # Another mailbox begins, or clocks differ a little.
            if times[-1] - time > self.seconds:
                times.clear()
            else:
                time = times[-1]
        times.append(time)
        while times[0] <= time - self.seconds:
            times.popleft()
        self.peak = max(self.peak, len(times))


class Rates:
    """The peaks of all senders of one rule; of very many, those with the smallest are forgotten."""

    def __init__(self, windows: tuple[int, ...]) -> None:
        self._windows = windows
        self._senders: dict[str, tuple[_Window, ...]] = {}

    def add(self, sender: str, time: float) -> None:
        """Note a message; messages come in about the order of their times."""
        windows = self._senders.get(sender)
        if windows is None:
            if len(self._senders) >= MAX_SENDERS:
                self._forget()
            windows = self._senders[sender] = tuple(map(_Window, self._windows))
        for window in windows:
            window.add(time)

    def _forget(self) -> None:
        kept = sorted(self._senders.items(), key=lambda item: -item[1][-1].peak)
        self._senders = dict(kept[: MAX_SENDERS // 2])

    def peaks(self, seconds: int) -> Iterator[Peak]:
        """Yield the peak of each sender in one of the windows, the highest first."""
        number = self._windows.index(seconds)
        found = [Peak(name, each[number].peak, seconds) for name, each in self._senders.items()]
        yield from sorted(found, key=lambda peak: (-peak.messages, peak.sender))
