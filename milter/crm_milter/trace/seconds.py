"""How long deliveries took, as a histogram has it."""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

BOUNDS = (0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0, 432000.0)


@dataclass(slots=True)
class Seconds:
    """How many took at most so many seconds, each of BOUNDS and one more for the rest."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    total: float = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds

    def state(self) -> list[Any]:
        """Return it as JSON has it."""
        return [self.buckets, self.total]

    @staticmethod
    def restored(state: list[Any]) -> "Seconds":
        """Return what a state says; raises ValueError if it is of other bounds."""
        buckets, total = [int(each) for each in state[0]], float(state[1])
        if len(buckets) != len(BOUNDS) + 1:
            raise ValueError("other bounds")
        return Seconds(buckets, total)
