"""Messages counted as a session does it."""

from crm_milter.metrics.counting import WorkerCounters
from crm_milter.routing.authentication import Dmarc
from crm_milter.routing.decision import Decision


def count(
    tally: WorkerCounters,
    decision: Decision,
    judged: bool,
    seconds: float,
    dmarc: Dmarc | None = None,
) -> None:
    """Count a message that was decided."""
    tally.add(tally.counts(decision, judged), seconds, dmarc)
