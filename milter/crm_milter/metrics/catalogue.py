"""Every metric, declared once: name, type, unit, help, label, and the part where it is counted.

A part gives out the cells, ``collector`` shows what is declared, and a test compares the table in
docs/monitoring.md. The only labels with words of a person are names of rules, ``[a-z0-9._-]``.
"""

from dataclasses import dataclass, field

from crm_milter.routing.authentication import Dmarc
from crm_milter.routing.decision import Reason
from crm_milter.spam.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Metric:
    """``name`` is without the prefix and without the suffix that the kind brings.

    There is a cell for each value of the label. A histogram has one for each of its ``bounds``, in
    seconds, one for what is above them, and one for the sum.
    """

    name: str
    kind: str
    unit: str
    help: str
    label: str
    values: tuple[str, ...]
    bounds: tuple[float, ...]
    is_latest: bool  # of several workers' values the largest counts, not the sum
    first: int

    @property
    def cells(self) -> range:
        count = len(self.bounds) + 2 if self.bounds else len(self.values)
        return range(self.first, self.first + count)

    def cell(self, value: str = "") -> int:
        return self.first + self.values.index(value)


@dataclass(slots=True)
class Part:
    """Cells of the shared memory, given out one after another; the first have another use."""

    size: int = 0
    metrics: list[Metric] = field(default_factory=list)

    def add(
        self,
        name: str,
        kind: str,
        unit: str,
        text: str,
        *,
        label: str = "",
        values: tuple[str, ...] = ("",),
        bounds: tuple[float, ...] = (),
        is_latest: bool = False,
    ) -> Metric:
        """Declare a metric and give it the next cells."""
        metric = Metric(name, kind, unit, text, label, values, bounds, is_latest, self.size)
        self.size = metric.cells.stop
        self.metrics.append(metric)
        return metric


WORKER = Part(1)  # a row for each worker
RULE = Part()  # a block for each rule, in the row of each worker
SERVICE = Part(2)  # what the supervisor says
LOG = Part()  # what the follower of Postfix's log has counted, see memory.Board
EXPORTER = Part()  # worked out when the page is asked for, see collector

# For a message with several outcomes the first that applies: one that could be said of the whole
# message, then what was done, then what was not.
MESSAGE_OUTCOMES = (
    "tempfailed",
    "rejected",
    "quarantined",
    "rerouted",  # a recipient was replaced, or a copy was added
    "discarded",  # nothing but that: for all recipients, or for some
    "left",  # matched, and nothing was done
    "passed",  # no recipient matched
    "aborted",  # the client gave it up; what it gives up before DATA, we are seldom told
)
MESSAGES = WORKER.add(
    "messages",
    "counter",
    "messages",
    "Messages by outcome. A message with several outcomes counts once, as the first of:"
    f" {', '.join(MESSAGE_OUTCOMES)}.",
    label="outcome",
    values=MESSAGE_OUTCOMES,
)
RECIPIENTS = RULE.add(
    "recipients",
    "counter",
    "recipients",
    "Matched recipients by rule and outcome. In test mode they count only as test. insured:"
    " replaced, and dead_letters got a copy at once.",
    label="outcome",
    values=(
        "replaced",
        "insured",
        "kept_with_copies",
        *(f"left_{reason.value}" for reason in Reason),
        "rejected",
        "quarantined",
        "discarded",
        "merged",
        "tempfailed",
        "test",
    ),
)
COPIES = RULE.add(
    "copies",
    "counter",
    "copies",
    "Copies added, or withheld because the message is spam.",
    label="outcome",
    values=("added", "withheld_spam"),
)
FLOOD = RULE.add(
    "flood_recipients",
    "counter",
    "recipients",
    "Matched recipients over the limit of the rule's flood guard, whatever was done.",
)
UNCOUNTED = WORKER.add(
    "flood_uncounted_messages",
    "counter",
    "messages",
    "Messages that the flood guard did not count, and routed, because too many senders are busy.",
)
SPAM_VERDICTS = WORKER.add(
    "spam_verdicts",
    "counter",
    "verdicts",
    "Spam filter verdicts on messages with a matched recipient. none: no verdict"
    " although the filter marks ham. Not counted if no filter is configured.",
    label="verdict",
    values=tuple(verdict.value for verdict in Verdict),
)
AUTHENTICATION = WORKER.add(
    "dmarc_results",
    "counter",
    "results",
    "DMARC results in Authentication-Results of messages with a matched recipient. none: no such"
    " field, or neither pass nor fail. Not counted if no rule has on_unauthenticated.",
    label="result",
    values=tuple(result.value for result in Dmarc),
)
LAST_REROUTED = RULE.add(
    "last_rerouted_timestamp_seconds",
    "gauge",
    "seconds",
    "Unix time when the rule last replaced a recipient; 0 if not since the service started.",
    is_latest=True,
)
PROCESSING = WORKER.add(
    "processing_seconds",
    "histogram",
    "seconds",
    "Time spent in milter callbacks per message, in seconds, except callbacks that only"
    " store a header field or count body bytes. Aborted messages are not included.",
    bounds=(
        *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
        *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
    ),
)
SESSIONS = WORKER.add("sessions", "gauge", "sessions", "Open connections from the mail server.")
ERRORS = WORKER.add(
    "errors",
    "counter",
    "errors",
    "Internal errors by stage; table: a table in SQLite cannot be read. Each is logged, and the"
    " message is answered with 451, or left as it is if it came from sendmail(1).",
    label="stage",
    values=("negotiation", "recipient", "end_of_message", "table"),
)
NO_DESCRIPTORS = WORKER.add(
    "descriptor_shortages",
    "counter",
    "shortages",
    "Times that a worker ran out of file descriptors and let new sessions wait.",
)
LINES_LOST = WORKER.add(
    "lost_log_lines",
    "counter",
    "lines",
    "Log lines of workers that were dropped because nothing read standard error.",
)
RELOAD_GOOD = SERVICE.add(
    "config_last_reload_successful",
    "gauge",
    "",
    "1 if the last reload succeeded, 0 if it failed and the previous rules are still in use.",
)
RELOADED_AT = SERVICE.add(
    "config_last_reload_success_timestamp_seconds",
    "gauge",
    "seconds",
    "Unix time when the rules in use were loaded.",
)
LAST_GOOD = SERVICE.add(
    "config_last_good",
    "gauge",
    "",
    "1 if the last good configuration is served because the file was invalid at the start.",
)
SOCKET_BOUND = SERVICE.add(
    "socket_bound",
    "gauge",
    "",
    "1 if the path of the milter socket leads to this instance, 0 if the socket is gone.",
)
RULES = SERVICE.add("rules", "gauge", "rules", "Rules in use.")
DELIVERIES = LOG.add(
    "deliveries",
    "counter",
    "deliveries",
    "Attempts to deliver rerouted mail by rule, kind of recipient and outcome, as Postfix logs"
    " them. A message that is deferred twice and then sent counts two deferred and one sent.",
    label="outcome",
    values=("sent", "deferred", "bounced", "expired"),
)
DELIVERY_SECONDS = LOG.add(
    "delivery_seconds",
    "histogram",
    "seconds",
    "Time from Postfix's receipt of a message until the server of the target accepted it.",
    bounds=(0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 86400.0, 432000.0),
)
UNDELIVERED = LOG.add(
    "undelivered_oldest_seconds",
    "gauge",
    "seconds",
    "Age of the oldest message of the rule that is queued and not delivered; 0 if there is none.",
)
LOG_READABLE = LOG.add(
    "delivery_log_readable",
    "gauge",
    "",
    "1 if Postfix's log is being read, 0 if it cannot be. Absent with metrics.deliveries none.",
)
DROPPED = LOG.add(
    "deliveries_dropped",
    "counter",
    "",
    "Messages that are no longer followed because too many are under way, or whose line was cut.",
)
CONFIG = EXPORTER.add(
    "config",
    "info",
    "",
    "Always 1. sha256: checksum of the configuration file in use, without included"
    " files, as printed by sha256sum(1).",
)
RESTARTS = SERVICE.add(
    "worker_restarts",
    "counter",
    "restarts",
    "Workers that died and were replaced.",
)
WORKERS = SERVICE.add("workers", "gauge", "workers", "Workers accepting mail.")
PAUSED = EXPORTER.add(
    "paused_since_timestamp_seconds",
    "gauge",
    "seconds",
    "Unix time since when the rule is paused, or mail that was held for it waits; 0 if neither.",
)
BUILD = EXPORTER.add(
    "build",
    "info",
    "",
    "1, with the versions of crm-milter, pymilter and Python.",
)
