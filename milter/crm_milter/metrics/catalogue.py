"""What is counted: the outcomes, and the cells of a row that they have."""

# What a message came to, and for one that came to several things the first that applies:
# one that could be said of the whole message, then what was done, then what was not.
MESSAGE_OUTCOMES = (
    "tempfailed",
    "rejected",
    "quarantined",
    "rerouted",  # a recipient was replaced or copied beside
    "discarded",  # nothing but that: for all recipients, or for some
    "left",  # matched, and nothing was done
    "passed",  # no recipient matched
    "aborted",  # the client gave it up; what it gives up before DATA, we are seldom told
)
RECIPIENT_OUTCOMES = (
    "replaced",
    "kept_with_copies",
    "left_spam",
    "left_loop",
    "left_automatic",
    "left_oversize",
    "left_no_verdict",
    "left_no_target",
    "left_undecodable",
    "rejected",
    "quarantined",
    "discarded",
    "tempfailed",
    "test",
)
COPY_OUTCOMES = ("added", "withheld_spam")
VERDICTS = ("spam", "ham", "none", "conflicting")
STAGES = ("negotiation", "recipient", "end_of_message")
BOUNDS = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)  # seconds, the upper ends of the histogram's buckets; one more takes the rest

# The fixed cells of a row: where each group starts.
USED = 0  # how many cells the blocks take
SESSIONS = 1
MESSAGES = 2
VERDICT = MESSAGES + len(MESSAGE_OUTCOMES)
ERRORS = VERDICT + len(VERDICTS)
SECONDS = ERRORS + len(STAGES)
BUCKETS = SECONDS + 1
BLOCKS = BUCKETS + len(BOUNDS) + 1
# Of a block, after the length of the name and the name itself.
COPIES = len(RECIPIENT_OUTCOMES)
LAST_REROUTED = COPIES + len(COPY_OUTCOMES)
BLOCK_CELLS = LAST_REROUTED + 1
