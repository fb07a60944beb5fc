"""What holds for every decision, whatever the rules, the envelope and the header fields."""

from hypothesis import given, settings
from hypothesis import strategies as st

from crm_milter.address import normalise
from crm_milter.routing.decide import NoVerdict, Policy, decide
from crm_milter.routing.decision import Action, Envelope, Recipient, Reply
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
            )
        )
    return Policy(
        RuleTable(tuple(rules), draw(st.sampled_from(["", "-"]))),
        draw(st.sampled_from([(), (PRESETS["amavis"],)])),
        draw(st.sampled_from(NoVerdict)),
    )


fields = st.lists(
    st.sampled_from([("x-spam-flag", "YES"), ("x-spam-flag", "NO"), ("from", "crm1@crm.example")]),
    max_size=3,
).map(tuple)


@st.composite
def cases(draw):
    policy = draw(policies())
    raws = draw(st.lists(st.sampled_from(ADDRESSES + OUTSIDE), min_size=1, max_size=6))
    by_smtp = draw(st.booleans())
    recipients = tuple(
        Recipient(
            raw,
            normalise(raw),
            policy.table.match(normalise(raw)),
            draw(st.sampled_from(["", "NEVER", "SUCCESS,DELAY"])),
            "",
            by_smtp,
        )
        for raw in dict.fromkeys(raws)
    )
    sender = draw(st.sampled_from(["", "joe@x.example", "crm1@crm.example"]))
    return policy, Envelope(sender, recipients, by_smtp), draw(fields)


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
        each.recipient.raw
        for each in decision.outcomes
        if not each.test and each.action in (Action.REROUTED, Action.QUARANTINED, Action.DISCARDED)
    }
    for each in envelope.recipients:
        if each.raw not in acted:
            assert each.raw not in decision.remove


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
