"""Mail that did not come by SMTP is never put off, and clients whom the filter skips are known.

What is answered 4xx there stays in maildrop forever: pickup(8) tries it again each minute.
"""

import os

import pytest
from mta import Mta
from test_wire_faults import FAULTS, SENDERS

from lab.milter import program

HAM = [("X-Spam-Flag", "NO"), ("Subject", "x")]
SILENCE = [("Subject", "x")]
HELP, BARE = "<help@solarmora.com>", "help@solarmora.com"
CONFIG = """
unrouted_to: it@solarmora.com
spam: {{filter: {0}, no_verdict: {1}, unfiltered: [198.51.100.0/24, "2001:db8::/32"]}}
rules:
  - {{name: support, match: help@solarmora.com, replace_with: support@crm.example}}
"""
REROUTED, LEFT, LATER = "rerouted", "left", "451"


def outcome(result):
    if result.answer.startswith("451"):
        return LATER
    return REROUTED if result.edits else LEFT


def sent(milter, host, port=4321, user=b"", fields=SILENCE):
    with Mta(milter.address) as mta:
        mta.connect(f"[{host}]", f"IPv6:{host}" if ":" in host else host, port)
        mta.user = user
        typed = HELP if port else BARE
        return outcome(mta.message([typed], fields, "<joe@x.example>" if port else "joe@x.example"))


# Filter, policy, client: what becomes of mail without a verdict.
CLIENTS = {
    ("amavis", "tempfail", "192.0.2.1"): LATER,
    ("amavis", "tempfail", "127.0.0.1"): LATER,  # handed back by amavis
    ("amavis", "leave", "192.0.2.1"): LEFT,
    ("amavis", "tempfail", "198.51.100.7"): REROUTED,
    ("amavis", "tempfail", "198.51.101.7"): LATER,
    ("amavis", "leave", "2001:db8::7"): REROUTED,
    ("rspamd-headers", "tempfail", "192.0.2.1"): LATER,
    ("rspamd-headers", "tempfail", "127.0.0.1"): REROUTED,
    ("rspamd-headers", "tempfail", "127.8.9.1"): REROUTED,
    ("rspamd-headers", "tempfail", "::1"): REROUTED,
    ("rspamd-headers", "leave", "::1"): REROUTED,
    ("rspamd-headers", "tempfail", "2001:db9::1"): LATER,
    ("rspamd-headers", "tempfail", "10.0.0.1"): LATER,
}


@pytest.mark.parametrize("case", CLIENTS, ids=" ".join)
def test_silence_is_a_fault_only_where_the_filter_looks(shared, case):
    spam_filter, policy, host = case
    milter = shared(CONFIG.format(spam_filter, policy))
    assert sent(milter, host) == CLIENTS[case]
    assert sent(milter, host, fields=[*HAM, ("X-Spam", "no")]) == REROUTED


@pytest.mark.parametrize("policy", ["leave", "tempfail"])
def test_mail_of_users_is_not_put_off(shared, policy):
    for spam_filter in ("amavis", "rspamd-headers", "spamassassin"):
        milter = shared(CONFIG.format(spam_filter, policy))
        assert sent(milter, "192.0.2.1", user=b"anna") == REROUTED
        assert sent(milter, "192.0.2.1") == (LATER if policy == "tempfail" else LEFT)


@pytest.mark.parametrize("spam_filter", ["amavis", "rspamd-headers", "spamassassin"])
def test_mail_from_sendmail_is_left_and_never_put_off(shared, spam_filter):
    for policy in ("tempfail", "leave"):
        milter = shared(CONFIG.format(spam_filter, policy))
        assert sent(milter, "127.0.0.1", port=0) == LEFT
    assert sent(shared(CONFIG.format(spam_filter, "route")), "127.0.0.1", port=0) == REROUTED


@pytest.fixture(scope="module")
def faulty(shared):
    path = ":".join(filter(None, [str(FAULTS), os.environ.get("PYTHONPATH")]))
    return shared(command=("env", f"PYTHONPATH={path}", *program()))


@pytest.mark.parametrize("kind", [*SENDERS, "boom"])
def test_a_fault_leaves_mail_from_sendmail_as_it_is(faulty, kind):
    faulty.logfile.mark()
    with Mta(faulty.address) as mta:
        mta.connect("localhost", "127.0.0.1", 0)
        result = mta.message([BARE, "alice@solarmora.com"], HAM, f"{kind}@x.example")
        assert result.answer == "accept"
        # Of edits in part the additions come first: doubled at worst.
        kinds = [edit[0] for edit in result.edits]
        assert "add" in kinds or "delete" not in kinds
        faulty.wait_log("(?m)^error: ")
        boom = mta.message(["boom@solarmora.com", BARE], HAM, "joe@x.example")
        assert (boom.answer, boom.edits) == ("accept", ())
        assert mta.message([BARE], HAM, "joe@x.example").of("add")


SIZED = """
unrouted_to: it@solarmora.com
spam: amavis
rules:
  - {name: small, match: help@solarmora.com, replace_with: s@crm.example, max_size: 10k}
  - {name: large, match: sales@solarmora.com, replace_with: l@crm.example, max_size: 20k}
"""


@pytest.mark.parametrize(
    ("header", "body", "expected"),
    [
        (100, 100, REROUTED),
        (9 * 1024, 100, REROUTED),
        (10 * 1024, 1, LEFT),
        (5 * 1024, 6 * 1024, LEFT),
        (0, 11 * 1024, LEFT),
    ],
)
def test_the_header_counts_for_the_size(shared, header, body, expected):
    with Mta(shared(SIZED).address) as mta:
        mta.connect()
        fields = [*HAM, ("X-Filler", "x" * header)]
        assert outcome(mta.message([HELP], fields, body=[b"y" * body])) == expected


def test_the_largest_limit_of_all_recipients_holds_whatever_their_order(shared):
    """The body is counted until it is larger than that, not than the limit of the last one."""
    sales = "<sales@solarmora.com>"
    with Mta(shared(SIZED).address) as mta:
        mta.connect()
        for recipients in ([HELP, sales], [sales, HELP]):
            chunks = [b"y" * 8000] * 3
            result = mta.message(recipients, HAM, body=chunks)
            assert result.edits == ()
            result = mta.message(recipients, HAM, body=chunks[:2])
            assert result.of("delete") == [("sales@solarmora.com",)]
