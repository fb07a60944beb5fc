"""What became of rerouted mail: told by the follower of Postfix's log, shown by the exporter."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from crm_milter.metrics.catalogue import DELIVERY_SECONDS


@dataclass(slots=True)
class Deliveries:
    """Numbers since the log was read first, some of them by rule.

    ``counts`` has rule, kind of recipient, outcome and number, ``seconds`` the cells of a histogram
    and ``oldest`` the Unix times when the oldest undelivered messages came in.
    """

    counts: list[tuple[str, str, str, int]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=lambda: [0.0] * len(DELIVERY_SECONDS.cells))
    oldest: dict[str, float] = field(default_factory=dict)
    dropped: int = 0
    is_readable: bool = False

    def word(self) -> dict[str, Any]:
        """Return it as a Board takes it."""
        return asdict(self)

    def ages(self) -> dict[str, float]:
        """Return how old the oldest messages are."""
        now = time.time()
        return {rule: max(0.0, now - arrived) for rule, arrived in self.oldest.items()}
