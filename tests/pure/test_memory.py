"""What is remembered is what would be decided: the memory can be seen by nothing but its speed."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import CRM, HELP, ID, NO, YES, mark, policy, rule
from test_invariants import ADDRESSES, OUTSIDE, fields, policies

from crm_milter.address import normalise
from crm_milter.routing import memory, twice
from crm_milter.routing.clients import network
from crm_milter.routing.decide import NoVerdict, Policy, decide
from crm_milter.routing.decision import Envelope, Recipient
from crm_milter.routing.logline import outcome_words
from crm_milter.routing.memory import Memory
from crm_milter.rules.conditions import ExceptSenders, Occasion, Senders
from crm_milter.rules.pattern import parse
from crm_milter.rules.rule import (
    AddressMap,
    AutomaticClass,
    Mode,
    OnSpam,
    OnUnauthenticated,
    Rule,
)
from crm_milter.rules.table import RuleTable
from crm_milter.rules.template import template

JOE, JANE, CASE = "joe@x.example", "jane@x.example", "crm1@crm.example"
FROM_JOE = Senders((parse(JOE),))
SENDERS = ["", JOE, JANE, CASE, "help@a.example"]
IDS = [(), (("message-id", "<1@x>"),), (("message-id", "<2@x>"),)]


def seen(decision, headers=None, words=None):
    """All that leaves the program."""
    if words is None:
        words = tuple(outcome_words(each, decision.judgement) for each in decision.outcomes)
    edits = [(f"<{each.address}>", each.parameters) for each in decision.add]
    headers = decision.headers if headers is None else headers
    sender, verdict = decision.envelope_sender, decision.judgement.verdict
    return edits, decision.remove, headers, decision.reply, decision.hold, sender, verdict, words


def agree(remembering, made, envelope, header):
    facts = made.facts(header)
    resolution, headers = remembering.resolve(envelope, facts)
    assert list(resolution.additions) == seen(resolution.decision)[0]
    expected = seen(decide(made, envelope, facts))
    assert seen(resolution.decision, headers, resolution.words) == expected
    return resolution


@st.composite
def days(draw):
    """A policy, and messages of which many are alike."""
    made = draw(policies())
    rules = list(made.table.rules)
    choices = [
        {},
        {"max_size": 100},
        {"conditions": (Senders((parse(JOE),)),)},
        {"conditions": (ExceptSenders((parse(JANE),)),)},
        {"dead_letters": "bounces@a.example"},
        {"add_headers": (("X-To", "{recipient} {spam}"),)},
    ]
    rules = [replace(each, **draw(st.sampled_from(choices))) for each in rules]
    table = RuleTable(tuple(rules), made.table.recipient_delimiter)
    local = (network("192.0.2.0/24"),)
    made = Policy(table, made.filters, made.no_verdict, local, b"key")
    return made, draw(st.lists(messages(table), min_size=1, max_size=4))


@st.composite
def messages(draw, table):
    sender = draw(st.sampled_from(SENDERS))
    raws = draw(st.lists(st.sampled_from(ADDRESSES + OUTSIDE), min_size=1, max_size=4, unique=True))
    by_smtp = draw(st.booleans())
    recipients = tuple(
        Recipient(
            raw,
            normalise(raw),
            table.match(normalise(raw), Occasion(sender), raw),
            draw(st.sampled_from(["", "", "NEVER"])),
            draw(st.sampled_from(["", "", "rfc822;a@b.example"])),
            by_smtp,
        )
        for raw in raws
    )
    size = draw(st.sampled_from([0, 1000]))
    client = draw(st.sampled_from(["", "192.0.2.1", "198.51.100.1"]))
    envelope = Envelope(sender, recipients, by_smtp, size, draw(st.booleans()), client)
    automatic = draw(st.sampled_from([(), (("auto-submitted", "auto-replied"),)]))
    return envelope, (*draw(fields), *draw(st.sampled_from(IDS)), *automatic)


@settings(max_examples=300, deadline=None)
@given(days(), st.randoms(use_true_random=False))
def test_it_decides_as_if_it_remembered_nothing(day, random):
    made, letters = day
    remembering = Memory(made)
    letters = letters * 4
    random.shuffle(letters)
    for envelope, header in letters:
        agree(remembering, made, envelope, header)


def to(raw, made, sender=JOE, **settings):
    match = made.table.match(normalise(raw), Occasion(sender), raw)
    return Envelope(sender, (Recipient(raw, normalise(raw), match),), **settings)


def test_it_keeps_what_comes_twice_and_not_what_comes_once():
    made = policy(HELP)
    remembering = Memory(made)
    first, second, third = (
        agree(remembering, made, to("help@solarmora.com", made), [NO]) for _ in range(3)
    )
    assert first is not second
    assert second is third


def test_the_marker_is_of_each_message():
    made = policy(HELP)
    remembering = Memory(made)
    marks = set()
    for number in range(4):
        facts = made.facts([NO, ("message-id", f"<{number}@x>")])
        _, headers = remembering.resolve(to("help@solarmora.com", made), facts)
        marks |= set(headers)
    assert len(marks) == 4


def test_a_target_that_writes_gets_nothing_back_of_what_is_remembered():
    made = policy(HELP)
    remembering = Memory(made)
    for _ in range(3):
        assert agree(remembering, made, to("help@solarmora.com", made), [NO]).additions
    for sender, header in ((CRM, [NO]), (JOE, [NO, ("from", f"CRM <{CRM}>")])):
        for _ in range(3):
            envelope = to("help@solarmora.com", made, sender)
            assert not agree(remembering, made, envelope, header).additions
    assert agree(remembering, made, to("help@solarmora.com", made), [NO]).additions


def test_nothing_of_many_messages_is_kept_for_long(monkeypatch):
    monkeypatch.setattr(memory, "MOST", 5)
    monkeypatch.setattr(twice, "_MAX_SEEN", 7)
    made = policy(rule("all", "@solarmora.com", "case@crm.example"))
    remembering = Memory(made)
    for number in range(100):
        for _ in range(3):
            agree(remembering, made, to(f"a{number}@solarmora.com", made), [NO])
        assert len(remembering._known._kept) <= 5
        assert len(remembering._known._seen) <= 7


PLAIN = policy(HELP)
OTHER = "other@crm.example"
JOES = replace(HELP, name="joe", replace_with=template(OTHER), conditions=(FROM_JOE,))
BEHIND = policy(replace(HELP, name="trial", mode=Mode.TEST), JOES, HELP)
FOR_JOE = policy(JOES, HELP)
SPARING = Policy(PLAIN.table, PLAIN.filters, NoVerdict.LEAVE, (network("192.0.2.0/24"),))
LATER = Policy(PLAIN.table, PLAIN.filters, NoVerdict.TEMPFAIL)
TABLE = Rule("table", address_map=AddressMap("table", {}))
TO = to("help@solarmora.com", PLAIN)


def recipient(envelope, **settings):
    return envelope._replace(recipients=(envelope.recipients[0]._replace(**settings),))


def of(made, envelope):
    """The envelope as that policy matches it, but for what a table gave."""
    recipients = [
        each
        if each.match and each.match.mapped
        else each._replace(
            match=made.table.match(each.address, Occasion(envelope.sender), each.raw)
        )
        for each in envelope.recipients
    ]
    return envelope._replace(recipients=tuple(recipients))


def mapped(target):
    match = TO.recipients[0].match._replace(mapped=(target,), rule=TABLE)
    return recipient(TO, match=match)


def two(made, *others):
    first = to("help@solarmora.com", made)
    return first._replace(
        recipients=(*first.recipients, *(Recipient(each, normalise(each)) for each in others))
    )


# Pairs of messages that differ in one thing, and come to something else because of it.
PAIRS = {
    "verdict": (PLAIN, (TO, [NO]), (TO, [YES])),
    "markers": (PLAIN, (TO, [NO, ID]), (TO, [NO, ID, *[("x-crm-milter", mark("support"))] * 5])),
    "silence": (PLAIN, (TO, [NO]), (TO, [])),
    "automatic": (
        policy(replace(HELP, automatic=frozenset({AutomaticClass.REPLY}))),
        (TO, [NO]),
        (TO, [NO, ("auto-submitted", "auto-replied")]),
    ),
    "dmarc": (
        replace(
            policy(replace(HELP, on_unauthenticated=OnUnauthenticated.LEAVE)),
            authserv_ids=frozenset({"mx"}),
        ),
        (TO, [NO, ("authentication-results", "mx; dmarc=pass")]),
        (TO, [NO, ("authentication-results", "mx; dmarc=fail")]),
    ),
    "null sender": (
        policy(replace(HELP, dead_letters="bounces@solarmora.com")),
        (TO, [NO]),
        (TO._replace(sender=""), [NO]),
    ),
    "size": (
        policy(replace(HELP, max_size=100)),
        (TO._replace(size=99), [NO]),
        (TO._replace(size=101), [NO]),
    ),
    "notify": (
        policy(replace(HELP, suppress_bounces=False)),
        (TO, [NO]),
        (recipient(TO, notify="NEVER"), [NO]),
    ),
    "orcpt": (PLAIN, (TO, [NO]), (recipient(TO, orcpt="rfc822;a@b.example"), [NO])),
    "spelling": (PLAIN, (TO, [NO]), (recipient(TO, raw="Help@solarmora.com"), [NO])),
    "brackets": (
        PLAIN,
        (TO._replace(by_smtp=False), [NO]),
        (recipient(TO, bracketed=False)._replace(by_smtp=False), [NO]),
    ),
    "rejected by smtp": (
        policy(replace(HELP, on_spam=OnSpam.REJECT)),
        (TO, [YES]),
        (TO._replace(by_smtp=False), [YES]),
    ),
    "a second recipient": (PLAIN, (TO, [NO]), (two(PLAIN, "a@x.example"), [NO])),
    "its address": (PLAIN, (two(PLAIN, "a@x.example"), [NO]), (two(PLAIN, CRM), [NO])),
    "the rule": (
        FOR_JOE,
        (to("help@solarmora.com", FOR_JOE, JOE), [NO]),
        (to("help@solarmora.com", FOR_JOE, JANE), [NO]),
    ),
    "what is behind a test": (
        BEHIND,
        (to("help@solarmora.com", BEHIND, JOE), [NO]),
        (to("help@solarmora.com", BEHIND, JANE), [NO]),
    ),
    "targets of a table": (
        PLAIN,
        (mapped("a@x.example"), [NO]),
        (mapped("b@x.example"), [NO]),
    ),
    "client": (
        SPARING,
        (TO._replace(client="192.0.2.1"), []),
        (TO._replace(client="198.51.100.1"), []),
    ),
    "no smtp": (
        LATER,
        (TO._replace(client="198.51.100.1"), []),
        (TO._replace(client="198.51.100.1", by_smtp=False), []),
    ),
}


@pytest.mark.parametrize("pair", PAIRS)
def test_what_differs_is_told_apart(pair):
    made, *pair = PAIRS[pair]
    remembering = Memory(made)
    ends = []
    for envelope, header in pair * 3:
        decision = agree(remembering, made, of(made, envelope), header).decision
        ends.append(seen(decision))
    assert ends[0] != ends[1]
