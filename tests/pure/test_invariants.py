"""What holds for every decision, whatever the rules, the envelope and the header fields."""

from hypothesis import given, settings
from hypothesis import strategies as st

from crm_milter.address import normalise
from crm_milter.routing.decide import NoVerdict, Policy, decide
from crm_milter.routing.decision import Action, Envelope, Recipient, Reply
from crm_milter.rules.conditions import (
    Addressed,
    AddressedIn,
    ExceptHeaders,
    Headers,
    Occasion,
)
from crm_milter.rules.fieldpattern import FieldTest
from crm_milter.rules.fieldpattern import parse as field_pattern
from crm_milter.rules.pattern import parse
from crm_milter.rules.rule import Copy, Mode, OnSpam, Rule
from crm_milter.rules.table import RuleTable
from crm_milter.rules.template import template
from crm_milter.spam.presets import PRESETS

LOCALS = ["help", "Help", "sales", "case-1", "case-2", "alice", "crm"]
DOMAINS = ["a.example", "A.example", "b.example"]
ADDRESSES = [f"{local}@{domain}" for local in LOCALS for domain in DOMAINS]
OUTSIDE = ["crm1@crm.example", "CRM1@crm.example", "crm2@crm.example"]

patterns = st.sampled_from([*ADDRESSES, "@a.example", "case-*@a.example"]).map(parse)
copies = st.builds(Copy, st.sampled_from(ADDRESSES + OUTSIDE), st.booleans(), st.booleans())
tests = st.just("Subject") | st.just("X-Topic")
conditions = st.builds(
    lambda kind, name, pattern: kind((FieldTest(name, (field_pattern(pattern),)),)),
    st.sampled_from([Headers, ExceptHeaders]), tests, st.sampled_from(["*", "x*"]),
) | st.sampled_from([AddressedIn(Addressed.TO), AddressedIn(Addressed.TO_OR_CC)])  # fmt: skip
templates = st.sampled_from([*OUTSIDE, "@crm.example"]).map(template)


@st.composite
def policies(draw):
    rules = []
    for number in range(draw(st.integers(1, 4))):
        bypass = draw(st.booleans())
        rules.append(
            Rule(
                f"r{number}",
                tuple(draw(st.lists(patterns, min_size=1, max_size=3))),
                draw(st.none() | templates),
                tuple(draw(st.lists(copies, max_size=3))),
                bypass,
                OnSpam.LEAVE if bypass else draw(st.sampled_from(OnSpam)),
                draw(st.booleans()),
                None,
                draw(st.sampled_from([Mode.ENFORCE, Mode.ENFORCE, Mode.TEST])),
                conditions=tuple(draw(st.lists(conditions, max_size=1))),
                case_group=draw(st.sampled_from([None, None, "g", "h"])),
            )
        )
    return Policy(
        RuleTable(tuple(rules), draw(st.sampled_from(["", "-"]))),
        draw(st.sampled_from([(), (PRESETS["amavis"],)])),
        draw(st.sampled_from(NoVerdict)),
    )


fields = st.lists(
    st.sampled_from(
        [
            ("x-spam-flag", "YES"),
            ("x-spam-flag", "NO"),
            ("from", "crm1@crm.example"),
            ("subject", "x"),
            ("x-topic", ""),
            ("to", ADDRESSES[0]),
            ("cc", ADDRESSES[-1]),
        ]
    ),
    max_size=4,
).map(tuple)


def arrived(policy, raw, notify, by_smtp):
    """A recipient as a session keeps it."""
    match = policy.table.match(normalise(raw), Occasion(), raw)
    waits = match is not None and policy.table.is_waiting(match)
    match = match._replace(behind=None) if waits else match
    return Recipient(raw, normalise(raw), match, notify, "", by_smtp, waits)


@st.composite
def cases(draw):
    policy = draw(policies())
    raws = draw(st.lists(st.sampled_from(ADDRESSES + OUTSIDE), min_size=1, max_size=6))
    by_smtp = draw(st.booleans())
    recipients = tuple(
        arrived(policy, raw, draw(st.sampled_from(["", "NEVER", "SUCCESS,DELAY"])), by_smtp)
        for raw in dict.fromkeys(raws)
    )
    sender = draw(st.sampled_from(["", "joe@x.example", "crm1@crm.example"]))
    return policy, Envelope(sender, recipients, by_smtp), draw(fields)


_GOING = (Action.REROUTED, Action.QUARANTINED, Action.DISCARDED, Action.MERGED)


def after(envelope, decision):
    """The envelope as Postfix has it after the edits, in normal form."""
    kept = [
        each.address
        for each in envelope.recipients
        if each.raw not in decision.remove and each.raw.split("@")[0] not in decision.remove
    ]
    return kept + [normalise(each.address) for each in decision.add]


@settings(max_examples=200, deadline=None)
@given(cases())
def test_the_envelope_is_never_empty_except_by_discard(case):
    policy, envelope, headers = case
    decision = decide(policy, envelope, headers)
    if decision.reply is Reply.ACCEPT:
        assert after(envelope, decision)
    if decision.reply is Reply.DISCARD:
        assert all(each.action is Action.DISCARDED for each in decision.outcomes)
        assert len(decision.outcomes) == len(envelope.recipients)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_unmatched_and_left_recipients_never_change(case):
    policy, envelope, headers = case
    decision = decide(policy, envelope, headers)
    acted = {
        each.recipient.raw for each in decision.outcomes if not each.test and each.action in _GOING
    }
    for each in envelope.recipients:
        if each.raw not in acted:
            assert each.raw not in decision.remove


@settings(max_examples=200, deadline=None)
@given(cases())
def test_what_waits_for_the_header_comes_to_what_the_header_says(case):
    policy, envelope, headers = case
    table, header = policy.table, policy.facts(headers).header
    known = Occasion(header=header) if header else Occasion()
    matched = [
        each._replace(match=table.match(each.address, known, each.raw), waits=False)
        for each in envelope.recipients
    ]
    at_once = decide(policy, envelope._replace(recipients=tuple(matched)), headers)
    assert simplified(decide(policy, envelope, headers)) == simplified(at_once)


def simplified(decision):
    outcomes = [
        each._replace(recipient=each.recipient._replace(match=None)) for each in decision.outcomes
    ]
    return decision._replace(outcomes=tuple(outcomes))


@settings(max_examples=400, deadline=None)
@given(cases())
def test_nothing_is_merged_but_into_what_is_sent(case):
    policy, envelope, headers = case
    decision = decide(policy, envelope, headers)
    order = [rule.name for rule in policy.table.rules]
    sent = {
        each.rule.name: each
        for each in decision.outcomes
        if not each.test and each.action in (Action.REROUTED, Action.QUARANTINED)
    }
    for each in decision.outcomes:
        if each.action is Action.MERGED and not each.test:
            into = sent[each.into]
            assert into.rule.case_group == each.rule.case_group is not None
            assert order.index(each.into) <= order.index(each.rule.name)
            owed = {normalise(target) for target in into.targets}
            assert owed <= set(after(envelope, decision))
    for group in "gh":
        opened = {
            (each.rule.name, tuple(sorted(map(normalise, each.targets))))
            for each in sent.values()
            if each.rule.case_group == group and each.targets
        }
        assert len(opened) <= 1


@settings(max_examples=200, deadline=None)
@given(cases())
def test_adds_are_single_new_and_disjoint_from_removes(case):
    policy, envelope, headers = case
    decision = decide(policy, envelope, headers)
    keys = [normalise(each.address) for each in decision.add]
    assert len(keys) == len(set(keys))
    assert not set(keys) & {normalise(each) for each in decision.remove}
    kept = {each.address for each in envelope.recipients if each.raw not in decision.remove}
    assert not set(keys) & kept


@settings(max_examples=200, deadline=None)
@given(cases())
def test_everybody_owed_gets_it(case):
    policy, envelope, headers = case
    decision = decide(policy, envelope, headers)
    if decision.reply is not Reply.ACCEPT:
        return
    delivered = after(envelope, decision)
    for each in decision.outcomes:
        if each.changes_envelope and each.action is not Action.DISCARDED:
            owed = [*(copy.address for copy in each.copies), *each.targets]
            assert {normalise(address) for address in owed} <= set(delivered)


@settings(max_examples=200, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_recipients_does_not_matter(case, random):
    policy, envelope, headers = case
    shuffled = list(envelope.recipients)
    random.shuffle(shuffled)
    one = decide(policy, envelope, headers)
    other = decide(policy, Envelope(envelope.sender, tuple(shuffled), envelope.by_smtp), headers)
    assert (one.add, one.remove, one.headers) == (other.add, other.remove, other.headers)
    assert (one.reply, one.hold) == (other.reply, other.hold)
    assert set(one.outcomes) == set(other.outcomes)


@settings(max_examples=200, deadline=None)
@given(cases())
def test_nothing_is_added_to_the_header_that_an_outsider_sees(case):
    policy, envelope, headers = case
    decision = decide(policy, envelope, headers)
    if decision.headers:
        ours = {
            normalise(address)
            for each in decision.outcomes
            if each.changes_envelope
            for address in [*each.targets, *(copy.address for copy in each.copies)]
        }
        acting = [each for each in decision.outcomes if each.changes_envelope]
        matched = {each.recipient.address for each in acting}
        assert set(after(envelope, decision)) <= ours | matched
        if any(name != "X-CRM-Milter" for name, _ in decision.headers):
            assert set(after(envelope, decision)) <= ours
