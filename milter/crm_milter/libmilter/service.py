"""What a worker's sessions share."""

import milter

from crm_milter.config.paused import Pauses
from crm_milter.libmilter.recipients import Recipients
from crm_milter.log import Log
from crm_milter.metrics.counting import WorkerCounters
from crm_milter.routing.decide import Policy
from crm_milter.routing.floodguard import Meter
from crm_milter.routing.memory import Memory

# What we never look at, and what we never answer: each is a round trip saved.
UNWANTED_STEPS: int = milter.P_NOHELO | milter.P_NOUNKNOWN
# NOREPLY is right whatever is offered: libmilter answers for us where the other side waits.
# EOH stays, unanswered: without it libmilter forgets the end of a message that has no header.
SILENT_STEPS: int = (
    milter.P_NR_CONN | milter.P_NR_MAIL | milter.P_NR_RCPT | milter.P_NR_HDR | milter.P_NR_EOH
)


class Service:
    """What all sessions of a process share, worked out once."""

    def __init__(
        self,
        policy: Policy,
        log: Log,
        tally: WorkerCounters,
        pauses: Pauses,
        meter: Meter | None = None,
    ) -> None:
        self.policy = policy
        self.memory = Memory(policy, meter)
        self.log = log
        self.tally = tally
        self.pauses = pauses
        self.judges = bool(policy.filters)
        self.authenticates = policy.authenticates
        self.asks_for_users = policy.depends_on_client
        self.measures_size = policy.measures_size
        self.recipients = Recipients(policy.table, measures_size=policy.measures_size)
        body = 0 if self.measures_size else milter.P_NOBODY
        self.steps = UNWANTED_STEPS | SILENT_STEPS | body  # to leave out, or not to answer
