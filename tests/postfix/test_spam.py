"""What the spam filter said decides, and what becomes of spam on the way through Postfix.

doc/postfix-milter.md: 2.7, 2.12 (mail released from hold).
"""

import itertools
from contextlib import ExitStack

import pytest
from letter import HAM, JOE, SPAM, letter

from lab.milter import Milter

CONFIG = """
unrouted_to: it@solarmora.com
spam:
  filter: amavis
  headers:
    - {name: X-Our-Filter, value: "spam*"}
    - {name: X-Our-Score, at_least: 6.0}
  no_verdict: POLICY
rules:
  - name: help
    match: help@solarmora.com
    replace_with: help@crm.example
    also_deliver_to: [team@solarmora.com]
  - name: bypass
    match: bypass@solarmora.com
    replace_with: bypass@crm.example
    bypass_spam_filter: true
    also_deliver_to: [team@solarmora.com, {address: junk@solarmora.com, deliver_spam: true}]
  - name: reject
    match: [reject@solarmora.com, refuse@solarmora.com]
    replace_with: reject@crm.example
    on_spam: reject
  - {name: reject-2, match: r2@solarmora.com, replace_with: r2@crm.example, on_spam: reject}
  - name: hold
    match: hold@solarmora.com
    replace_with: hold@crm.example
    also_deliver_to: [team@solarmora.com]
    on_spam: quarantine
  - {name: hold-2, match: h2@solarmora.com, replace_with: h2@crm.example, on_spam: quarantine}
  - {name: drop, match: drop@solarmora.com, replace_with: drop@crm.example, on_spam: discard}
  - {name: drop-2, match: d2@solarmora.com, replace_with: d2@crm.example, on_spam: discard}
"""
RSPAMD = """
unrouted_to: it@solarmora.com
spam: rspamd
rules:
  - {name: help, match: help@solarmora.com, replace_with: help@crm.example}
"""
OTHER_MILTERS = {
    "leave": CONFIG.replace("POLICY", "leave"),
    "tempfail": CONFIG.replace("POLICY", "tempfail"),
    "rspamd": RSPAMD,
}
NAMES = ("help", "bypass", "reject", "refuse", "r2", "hold", "h2", "drop", "d2")


@pytest.fixture(scope="module")
def lab(make_module_lab):
    """A server whose port "leave" has a milter with that policy, and so on."""
    with ExitStack() as stack:
        milters = {name: stack.enter_context(Milter(text)) for name, text in OTHER_MILTERS.items()}
        yield make_module_lab(
            CONFIG.replace("POLICY", "route"),
            virtual_alias_maps={f"{n}@solarmora.com": f"left-{n}@x.org" for n in NAMES},
            services={name: {"smtpd_milters": m.setting()} for name, m in milters.items()},
        )


@pytest.fixture(autouse=True)
def _fresh(lab):
    lab.fresh()


FOLDED = "X-Spam-Flag:\r\n\tYES"


@pytest.mark.parametrize(
    ("fields", "verdict"),
    [
        ([HAM], "ham"),
        ([SPAM], "spam"),
        (["x-spam-flag: yes"], "spam"),
        (["X-SPAM-FLAG:YES"], "spam"),
        (["X-Spam-Flag:   YES  "], "spam"),
        ([FOLDED], "spam"),
        (["X-Spam-Flag: \r\n \r\n yes"], "spam"),
        # A forged one above or below, once and often.
        ([HAM, SPAM], "conflicting"),
        ([SPAM, HAM], "conflicting"),
        ([HAM, HAM, FOLDED, HAM], "conflicting"),
        # Filters that are not configured, and what only resembles the one that is.
        (["X-Spam: Yes", HAM], "ham"),
        (["X-Spam-Status: Yes, score=9.9", HAM], "ham"),
        (["X-Bogosity: Spam", "X-Barracuda-Spam-Flag: YES", HAM], "ham"),
        (["X-Spam-Flag2: YES", "XX-Spam-Flag: YES", HAM], "ham"),
        (["X-Spam-Flag: MAYBE, NOT YES", HAM], "ham"),
        (["Subject: x\r\n X-Spam-Flag: YES", HAM], "ham"),
        # One's own, by value and by score.
        ([HAM, "X-Our-Filter: SPAM, quite sure"], "conflicting"),
        ([HAM, "X-Our-Filter:\r\n spam"], "conflicting"),
        ([HAM, "X-Our-Filter: no spam"], "ham"),
        ([HAM, "X-Our-Score: 5.999"], "ham"),
        ([HAM, "X-Our-Score: 6"], "conflicting"),
        ([HAM, "X-Our-Score: 6.0"], "conflicting"),
        ([HAM, "X-Our-Score:\r\n\t+6.01 (of 10)"], "conflicting"),
        ([HAM, "X-Our-Score: 17"], "conflicting"),
        ([HAM, "X-Our-Score: -7"], "ham"),
        ([HAM, "X-Our-Score: high"], "ham"),
        ([HAM, "X-Our-Score: 1", "X-Our-Score: 8"], "conflicting"),
        (["X-Our-Score: 1"], "none"),
        (["X-Our-Score: 8"], "spam"),
        ([], "none"),
    ],
)
def test_verdicts(lab, fields, verdict):
    is_spam = verdict in ("spam", "conflicting")
    outcome = lab.send(JOE, ["<help@solarmora.com>"], letter(*fields))
    if is_spam:
        assert outcome.recipients == ["left-help@x.org"]
        assert outcome.log[0].endswith(": left: to=<help@solarmora.com> rule=help reason=spam")
    else:
        assert outcome.recipients == ["help@crm.example", "team@solarmora.com"]
        assert outcome.log[0].endswith(f" rule=help copies=1 verdict={verdict}")
    bypassed = lab.send(JOE, ["<bypass@solarmora.com>"], letter(*fields))
    copies = ["junk@solarmora.com"] if is_spam else ["junk@solarmora.com", "team@solarmora.com"]
    assert bypassed.recipients == ["bypass@crm.example", *copies]
    assert bypassed.log[0].endswith(f" rule=bypass copies={len(copies)} verdict={verdict}")


@pytest.mark.parametrize("body", ["X-Spam-Flag: YES\r\n", "\r\nX-Spam-Flag: YES\r\n"])
def test_the_body_is_no_header(lab, body):
    outcome = lab.send(JOE, ["<help@solarmora.com>"], letter(HAM, body=body))
    assert "help@crm.example" in outcome.recipients


@pytest.mark.parametrize(
    ("policy", "fields", "code", "delivered"),
    [
        ("smtp", [], 250, "help@crm.example team@solarmora.com"),
        ("leave", [], 250, "left-help@x.org"),
        ("leave", ["X-Spam: Yes"], 250, "left-help@x.org"),
        ("leave", [HAM], 250, "help@crm.example team@solarmora.com"),
        ("tempfail", [], 451, ""),
        ("tempfail", ["X-Spam-Flag: perhaps"], 451, ""),
        ("tempfail", [HAM], 250, "help@crm.example team@solarmora.com"),
        ("tempfail", [SPAM], 250, "left-help@x.org"),
        # Where the filter leaves ham unmarked its silence is ham.
        ("rspamd", [], 250, "help@crm.example"),
        ("rspamd", ["X-Barracuda-Spam-Flag: YES"], 250, "help@crm.example"),
        ("rspamd", ["X-Spam: Yes"], 250, "left-help@x.org"),
        ("rspamd", ["X-Rspamd-Action: add header"], 250, "left-help@x.org"),
        # mailcow's shipped configuration, and what rspamd does to the subject.
        ("rspamd", [SPAM], 250, "left-help@x.org"),
        ("rspamd", ["X-Rspamd-Action: rewrite subject"], 250, "left-help@x.org"),
        ("rspamd", ["Subject: *** SPAM *** You won"], 250, "left-help@x.org"),
        ("rspamd", ["X-Rspamd-Action: greylist"], 250, "help@crm.example"),
    ],
)
def test_no_verdict(lab, policy, fields, code, delivered):
    outcome = lab.send(JOE, ["<help@solarmora.com>"], letter(*fields), service=policy)
    assert outcome.sent.reply.code == code
    assert outcome.recipients == delivered.split()


def test_no_verdict_is_no_matter_to_a_rule_that_bypasses_the_filter_or_to_the_unmatched(lab):
    expected = ["bypass@crm.example", "junk@solarmora.com", "team@solarmora.com"]
    for policy in ("leave", "tempfail"):
        outcome = lab.send(JOE, ["<bypass@solarmora.com>"], letter(), service=policy)
        assert outcome.recipients == expected
        unmatched = lab.send(JOE, ["<alice@x.org>"], letter(), service=policy)
        assert unmatched.recipients == ["alice@x.org"]
    mixed = ["<bypass@solarmora.com>", "<help@solarmora.com>", "<alice@x.org>"]
    assert lab.send(JOE, mixed, letter(), service="tempfail").sent.reply.code == 451


@pytest.mark.parametrize(
    ("names", "code", "delivered"),
    [
        ("reject", 550, ""),
        ("reject refuse", 550, ""),
        ("reject r2", 550, ""),
        ("reject help", 250, "left-help left-reject"),
        ("reject bypass", 250, "bypass@crm.example junk@solarmora.com left-reject"),
        ("reject alice", 250, "alice left-reject"),
        ("reject r2 alice", 250, "alice left-r2 left-reject"),
        ("reject hold", 250, "left-hold left-reject"),
        ("reject drop", 250, "left-reject"),
        ("hold help", 250, "left-help left-hold"),
        ("hold alice", 250, "alice left-hold"),
        ("hold bypass", 250, "bypass@crm.example junk@solarmora.com left-hold"),
        ("hold drop", 250, "left-hold"),
        ("drop", 250, ""),
        ("drop d2", 250, ""),
        ("drop help", 250, "left-help"),
        ("drop alice", 250, "alice"),
        ("drop d2 alice", 250, "alice"),
        ("drop bypass", 250, "bypass@crm.example junk@solarmora.com"),
        ("drop reject alice", 250, "alice left-reject"),
    ],
)
def test_on_spam(lab, names, code, delivered):
    """Reject, hold and discard act on a message only where all its recipients come to it."""
    expected = [each if "@" in each else f"{each}@x.org" for each in delivered.split()]
    rcpts = [f"<{n}@{'x.org' if n == 'alice' else 'solarmora.com'}>" for n in names.split()]
    for order in itertools.islice(itertools.permutations(rcpts), 3):
        outcome = lab.send(JOE, order, letter(SPAM))
        assert outcome.sent.reply.code == code
        assert outcome.recipients == sorted(expected)
        assert lab.postfix.queue() == []
    if code == 550:
        assert outcome.sent.reply.text == "5.7.1 message refused as spam"


def test_what_is_discarded_is_logged(lab):
    for rcpts in (["<drop@solarmora.com>"], ["<drop@solarmora.com>", "<alice@x.org>"]):
        outcome = lab.send(JOE, rcpts, letter(SPAM))
        line = f"{outcome.queue_id}: discarded: to=<drop@solarmora.com> rule=drop reason=spam"
        assert outcome.log == [line]


@pytest.mark.parametrize(
    ("names", "released"),
    [
        ("hold", ["hold@crm.example", "team@solarmora.com"]),
        ("hold HOLD", ["hold@crm.example", "team@solarmora.com"]),
        ("hold h2", ["h2@crm.example", "hold@crm.example", "team@solarmora.com"]),
    ],
)
@pytest.mark.parametrize("requeue", [(), ("-r",)])
def test_held_mail_reaches_the_crm_and_the_copies_once_released(lab, names, released, requeue):
    """Also when it is requeued: the edited recipients alone (doc/postfix-milter.md 2.12)."""
    outcome = lab.send(JOE, [f"<{name}@solarmora.com>" for name in names.split()], letter(SPAM))
    assert outcome.recipients == []
    assert f"{outcome.queue_id}: quarantined: to=<hold@solarmora.com>" in outcome.log[0]
    (held,) = lab.postfix.queue()
    assert held["queue_name"] == "hold"
    assert sorted(each["address"] for each in held["recipients"]) == released
    if requeue:
        lab.postfix.postsuper(*requeue, outcome.queue_id)
    else:
        lab.postfix.postsuper("-H", outcome.queue_id)
    lab.postfix.flush()
    lab.sink.wait(len(released))
    lab.postfix.wait_empty_queue()
    assert lab.sink.recipients == released
    assert {each.rcpt.notify for each in lab.sink.received} == {"NEVER"}
    assert lab.postfix.queue() == []


def test_holding_one_message_does_not_hold_the_next(lab):
    assert lab.send(JOE, ["<hold@solarmora.com>"], letter(SPAM)).recipients == []
    ham = lab.send(JOE, ["<hold@solarmora.com>"], letter(HAM))
    assert ham.recipients == ["hold@crm.example", "team@solarmora.com"]
