"""The flood guard: what it asks and when, and what becomes of mail over the limit."""

from dataclasses import replace
from pathlib import Path

import pytest
from rows import CRM, HELP, NO, YES, fates, policy, recipient, rule
from test_memory import agree

from crm_milter.config.load import parse
from crm_milter.config.problems import ConfigError
from crm_milter.metrics.counting import message_outcome, recipient_outcome
from crm_milter.routing.decide import decide
from crm_milter.routing.decision import Action, Envelope, Reason, Reply
from crm_milter.routing.logline import outcome_words
from crm_milter.routing.memory import Memory
from crm_milter.rules.flood import Flood, Limit, OnFlood, Per
from crm_milter.rules.pattern import parse as pattern
from crm_milter.rules.rule import AutomaticClass, Mode, OnSpam

LIMIT = Limit(10, 60)


class Meter:
    """Says that there is too much of everything, or of nothing; keeps what it was asked."""

    def __init__(self, full=True):
        self.full = full
        self.asked = []

    def __call__(self, which, sender, subject):
        self.asked.append((which.name, sender, subject))
        return self.full


def guarded(then=OnFlood.LEAVE, name="support", match="help@solarmora.com", **settings):
    return rule(name, match, CRM, flood=Flood(LIMIT, then=then), **settings)


def come_to(rules, *arguments, meter=None, fields=(NO,), sender="joe@customer.example", **settings):
    recipients = tuple(recipient(rules, each, sender=sender) for each in arguments)
    envelope = Envelope(sender, recipients, **settings)
    wanted = [each for each in fields if each[0] in rules.wanted_fields]
    return decide(rules, envelope, wanted, meter or Meter())


@pytest.mark.parametrize(
    ("then", "action", "reply"),
    [
        (OnFlood.COUNT, Action.REROUTED, Reply.ACCEPT),
        (OnFlood.LEAVE, Action.LEFT, Reply.ACCEPT),
        (OnFlood.TEMPFAIL, Action.TEMPFAILED, Reply.TEMPFAIL_FLOOD),
        (OnFlood.HOLD, Action.QUARANTINED, Reply.ACCEPT),
    ],
)
def test_what_becomes_of_more(then, action, reply):
    rules = policy(guarded(then, copies=("team@solarmora.com",)))
    decision = come_to(rules, "<help@solarmora.com>")
    assert (fates(decision), decision.reply) == ([(action, Reason.FLOOD)], reply)
    assert bool(decision.add) is (then in (OnFlood.COUNT, OnFlood.HOLD))
    assert decision.hold == ("flood" if then is OnFlood.HOLD else "")
    (outcome,) = decision.outcomes
    assert outcome_words(outcome, decision.judgement).endswith(" reason=flood")
    assert recipient_outcome(outcome) == {
        Action.REROUTED: "replaced",
        Action.LEFT: "left_flood",
    }.get(action, action.value)
    assert message_outcome(decision) == action.value


@pytest.mark.parametrize("then", [OnFlood.TEMPFAIL, OnFlood.HOLD])
@pytest.mark.parametrize("other", ["<alice@solarmora.com>", "<open@solarmora.com>"])
def test_what_acts_on_a_message_needs_all_recipients(then, other):
    rules = policy(guarded(then), rule("open", "open@solarmora.com", "open@crm.example"))
    decision = come_to(rules, "<help@solarmora.com>", other)
    assert (decision.reply, decision.hold) == (Reply.ACCEPT, "")
    assert fates(decision)[0] == (Action.LEFT, Reason.FLOOD)
    assert fates(decision)[1:] == ([(Action.REROUTED, None)] if "open" in other else [])


@pytest.mark.parametrize("then", [OnFlood.TEMPFAIL, OnFlood.HOLD])
def test_what_acts_on_a_message_needs_smtp(then):
    decision = come_to(policy(guarded(then)), "help@solarmora.com", by_smtp=False)
    assert (decision.reply, fates(decision)) == (Reply.ACCEPT, [(Action.LEFT, Reason.FLOOD)])


@pytest.mark.parametrize("then", [OnFlood.TEMPFAIL, OnFlood.HOLD])
def test_two_rules_that_agree_act_together(then):
    rules = policy(guarded(then), guarded(then, "sales", "sales@solarmora.com"))
    meter = Meter()
    decision = come_to(rules, "<help@solarmora.com>", "<sales@solarmora.com>", meter=meter)
    assert decision.reply is (Reply.TEMPFAIL_FLOOD if then is OnFlood.TEMPFAIL else Reply.ACCEPT)
    assert bool(decision.hold) is (then is OnFlood.HOLD)
    assert sorted(each[0] for each in meter.asked) == ["sales", "support"]


def test_it_is_asked_once_a_message_and_rule():
    meter = Meter(full=False)
    rules = policy(guarded(match="help@solarmora.com info@solarmora.com"))
    decision = come_to(rules, "<help@solarmora.com>", "<info@solarmora.com>", meter=meter)
    assert meter.asked == [("support", "joe@customer.example", "")]
    assert fates(decision) == [(Action.REROUTED, None)] * 2


@pytest.mark.parametrize(
    ("fields", "sender", "settings"),
    [
        ([YES], "joe@customer.example", {}),
        ([NO, ("precedence", "bulk")], "joe@customer.example", {}),
        ([NO, ("from", CRM)], "joe@customer.example", {}),
        ([NO], CRM, {}),
        ([NO], "joe@customer.example", {"size": 20}),
    ],
)
def test_it_is_asked_only_for_what_would_be_routed(fields, sender, settings):
    meter = Meter()
    rules = policy(guarded(automatic=frozenset(AutomaticClass), max_size=10))
    envelope = {"size": 5, **settings}
    decision = come_to(
        rules, "<help@solarmora.com>", meter=meter, fields=fields, sender=sender, **envelope
    )
    assert meter.asked == []
    assert fates(decision)[0][1] is not Reason.FLOOD


def test_a_message_that_is_refused_is_not_counted():
    meter = Meter()
    rules = policy(guarded(), rule("s", "s@solarmora.com", CRM, on_spam=OnSpam.REJECT))
    assert come_to(rules, "<s@solarmora.com>", meter=meter, fields=[YES]).reply is Reply.REJECT_SPAM
    assert meter.asked == []


def test_the_sender_counts_and_for_the_null_sender_the_author():
    meter = Meter(full=False)
    by_subject = replace(HELP, flood=Flood(LIMIT, Per.SUBJECT))
    fields = [
        NO,
        ("from", "Anna <Anna@B.Example>"),
        ("subject", "An \r\n invoice"),
        ("subject", "x"),
    ]
    for rules in (policy(guarded()), policy(by_subject)):
        for sender in ("joe@customer.example", ""):
            come_to(rules, "<help@solarmora.com>", meter=meter, fields=fields, sender=sender)
    assert [each[1:] for each in meter.asked] == [
        ("joe@customer.example", ""),
        ("anna@b.example", ""),
        ("joe@customer.example", "Aninvoice"),
        ("anna@b.example", "Aninvoice"),
    ]


@pytest.mark.parametrize("sender", ["joe@customer.example", "any@forms.example"])
def test_except(sender):
    meter = Meter()
    exempt = (pattern("joe@customer.example"), pattern("@forms.example"))
    rules = policy(replace(HELP, flood=Flood(LIMIT, exempt=exempt)))
    decision = come_to(rules, "<help@solarmora.com>", meter=meter, sender=sender)
    assert (meter.asked, fates(decision)) == ([], [(Action.REROUTED, None)])
    assert fates(come_to(rules, "<help@solarmora.com>", meter=meter, sender="x@y.example")) == [
        (Action.LEFT, Reason.FLOOD)
    ]


def test_a_rule_in_mode_test_says_what_it_would_do():
    rules = policy(guarded(OnFlood.TEMPFAIL, mode=Mode.TEST), replace(HELP, name="acts"))
    decision = come_to(rules, "<help@solarmora.com>")
    assert decision.reply is Reply.ACCEPT
    assert [(each.test, each.action) for each in decision.outcomes] == [
        (True, Action.TEMPFAILED),
        (False, Action.REROUTED),
    ]


def test_without_a_meter_there_is_never_too_much():
    rules = policy(guarded())
    envelope = Envelope("joe@customer.example", (recipient(rules, "<help@solarmora.com>"),))
    assert fates(decide(rules, envelope, [NO])) == [(Action.REROUTED, None)]


def test_what_is_remembered_is_asked_for_again_each_time():
    meter = Meter(full=False)
    rules = policy(guarded(), rule("plain", "plain@solarmora.com", CRM))
    remembering = Memory(rules, meter)
    envelope = Envelope("joe@customer.example", (recipient(rules, "<help@solarmora.com>"),))
    for _ in range(5):
        agree(remembering, rules, envelope, [NO])
    assert len(meter.asked) == 5
    meter.full = True
    for sender in ("joe@customer.example", "anna@customer.example"):
        other = envelope._replace(sender=sender)
        resolution, _ = remembering.resolve(other, rules.facts([NO]))
        assert fates(resolution.decision) == [(Action.LEFT, Reason.FLOOD)]
        assert resolution.words[0].endswith("reason=flood")
    assert [each[1] for each in meter.asked[5:]] == [
        "joe@customer.example",
        "anna@customer.example",
    ]
    meter.full = False
    agree(remembering, rules, envelope, [NO])
    plain = Envelope("joe@customer.example", (recipient(rules, "<plain@solarmora.com>"),))
    for _ in range(3):
        agree(remembering, rules, plain, [NO])
    assert len(meter.asked) == 8


# The configuration

HEAD = "unrouted_to: it@y.example\nspam: rspamd\nrules:\n  - {name: a, match: a@x.example, "
SALESFORCE = "a@0-abc123.1-def.eu1.case.salesforce.com, max_size: 25M"


def flood(value, target="a@crm.example"):
    text = f"{HEAD}replace_with: {target}, flood: {value}}}\n"
    return parse(text, Path("/etc/c.yaml")).policy.table.rules[0].flood


@pytest.mark.parametrize(
    ("value", "target", "limit", "per", "then"),
    [
        ("{limit: 10 in 60s}", "a@crm.example", Limit(10, 60), None, OnFlood.LEAVE),
        ("{limit: 3 in 2 h, per: subject, then: hold}", "a@crm.example",
         Limit(3, 7200), Per.SUBJECT, OnFlood.HOLD),
        ("{limit: 1 in 7d, then: count}", "a@crm.example", Limit(1, 604800), None, OnFlood.COUNT),
        ("auto", SALESFORCE, Limit(10, 120), Per.SUBJECT, OnFlood.LEAVE),
        ("{limit: auto, per: sender, then: tempfail}", SALESFORCE,
         Limit(10, 120), Per.SENDER, OnFlood.TEMPFAIL),
        ("{then: hold}", "a@company.freshdesk.com", Limit(33, 3600), Per.SENDER, OnFlood.HOLD),
        ("auto", "a@company.mail.kustomer.com", Limit(13, 7200), Per.SENDER, OnFlood.LEAVE),
    ],
)  # fmt: skip
def test_the_key(value, target, limit, per, then):
    found = flood(value, target)
    assert (found.limit, found.per, found.then) == (limit, per, then)


@pytest.mark.parametrize(
    ("value", "target", "message"),
    [
        ("auto", "a@crm.example", "no CRM is known by the target"),
        ("auto", "a@company.zendesk.com", "no limit of Zendesk is known"),
        ("automatic", "a@crm.example", 'expected "auto" or a mapping'),
        ("{limit: 10}", "a@crm.example", "expected a number of messages in a time"),
        ("{limit: 10 in 5w}", "a@crm.example", "expected a number of messages in a time"),
        ("{limit: 0 in 60s}", "a@crm.example", "out of range"),
        ("{limit: 10 in 0s}", "a@crm.example", "out of range"),
        ("{limit: 10 in 8d}", "a@crm.example", "out of range"),
        ("{limit: 10 in 60s, per: domain}", "a@crm.example", 'expected "sender" or "subject"'),
        ("{limit: 10 in 60s, then: drop}", "a@crm.example", '"count"'),
        ("{limit: 10 in 60s, except: []}", "a@crm.example", "the list is empty"),
    ],
)
def test_what_is_refused(value, target, message):
    with pytest.raises(ConfigError) as caught:
        flood(value, target)
    assert any(message in each.message for each in caught.value.problems)


def test_of_several_crms_the_strictest_counts(tmp_path):
    (tmp_path / "table").write_text(
        "a@x.example a@company.freshdesk.com\nb@x.example b@company.mail.kustomer.com\n"
    )
    text = HEAD.partition("  - {")[0] + "  - {name: a, address_map: table, flood: auto}\n"
    found = parse(text, tmp_path / "c.yaml").policy.table.rules[0].flood
    assert found.limit == Limit(13, 7200)


def test_of_several_crms_the_one_that_takes_fewer_at_once_counts_as_well(tmp_path):
    (tmp_path / "table").write_text(
        f"a@x.example {SALESFORCE.partition(',')[0]}\nb@x.example b@company.freshdesk.com\n"
    )
    text = HEAD.partition("  - {")[0] + "  - {name: a, address_map: table, flood: auto}\n"
    found = parse(text, tmp_path / "c.yaml").policy.table.rules[0].flood
    assert (found.limit.count, found.per) == (10, Per.SENDER)
    assert found.limit.interval == pytest.approx(3600 / 33)


def test_auto_never_lets_more_through_than_the_crm_takes():
    from crm_milter.config.crms import all_crms

    rates = [each.rate for each in all_crms() if each.rate]
    assert len(rates) >= 6
    for rate in rates:
        limit = rate.limit
        assert limit.count + int(rate.seconds / limit.interval) <= rate.count
