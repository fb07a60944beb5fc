"""Expressions of RE2 in callbacks: libmilter serves a session in any of its threads.

An extension module that checks the thread state, as Debian's build of RE2 does, fails there
unless it is asked in a thread of its own.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest
from mta import Mta

CONFIG = """
unrouted_to: it@solarmora.com
rules:
  - name: cases
    match: '/case-([0-9]+)@solarmora\\.com/'
    replace_with: case.\\1@crm.example
    senders: ['/.*@customer\\.example/', '@partner.example', '<>']
  - name: globs
    match: [a-*@solarmora.com, b-*@solarmora.com, c-*@solarmora.com, d-*@solarmora.com]
    replace_with: glob.\\1@crm.example
"""
SESSIONS = 16
MESSAGES = 20


@pytest.fixture
def address(shared):
    return shared(CONFIG).address


def one_session(address, number):
    """Send mail that expressions, globs and nothing match, and return the additions."""
    added = []
    with Mta(address) as mta:
        for each in range(MESSAGES):
            case = f"case-{number}{each:03}"
            recipients = [f"<{case}@solarmora.com>", f"<b-{each}@solarmora.com>", "<x@y.example>"]
            result = mta.message(recipients, [("Subject", "x")], sender="<a@customer.example>")
            assert result.answer == "continue"
            added += [edit[0] for edit in result.of("add")]
    return added


def test_every_session_is_answered_in_whichever_thread_it_is_served(address):
    with ThreadPoolExecutor(SESSIONS) as pool:
        sessions = list(pool.map(lambda number: one_session(address, number), range(SESSIONS)))
    for number, added in enumerate(sessions):
        expected = [
            target
            for each in range(MESSAGES)
            for target in (f"<case.{number}{each:03}@crm.example>", f"<glob.{each}@crm.example>")
        ]
        assert sorted(added) == sorted(expected)
