"""What a target refuses goes whole to a mailbox of ours: by a new sender, or by a copy at once."""

from dataclasses import replace

import pytest
from rows import CRM, HELP, YES, policy, recipient, rule, run

from crm_milter.config.load import parse
from crm_milter.routing import dead_letters
from crm_milter.routing.decide import decide
from crm_milter.routing.decision import Envelope
from crm_milter.routing.logline import outcome_line
from crm_milter.rules.rule import Copy, Mode, OnSpam

LOST = "Lost@solarmora.com"
JOE = "joe@customer.example"
HELP_LOST = replace(HELP, dead_letters=LOST)
SALES = rule("sales", "sales@solarmora.com", "sales@crm.example")
OTHER = rule("other", "other@solarmora.com", "other@crm.example", dead_letters="b@solarmora.com")
BOTH = ["<help@solarmora.com>", "<other@solarmora.com>"]


def everywhere(*rules, **settings):
    return replace(policy(*rules, **settings), dead_letters=LOST)


def added(decision):
    return {each.address: each.parameters for each in decision.add}


def insured(decision):
    return [each.insured for each in decision.outcomes]


@pytest.mark.parametrize("rules", [policy(HELP_LOST), everywhere(HELP)])
def test_the_mailbox_becomes_the_sender(rules):
    decision = run(rules, "<Help@solarmora.com>")
    assert decision.envelope_sender == LOST
    assert added(decision) == {CRM: "NOTIFY=FAILURE ORCPT=rfc822;Help@solarmora.com"}
    assert insured(decision) == [""]


@pytest.mark.parametrize("notify", ["", "NEVER", "SUCCESS", "SUCCESS,DELAY,FAILURE", "DELAY"])
@pytest.mark.parametrize("orcpt", ["", "rfc822;victim@elsewhere.example"])
def test_it_hears_of_failures_alone_whatever_the_client_wants(notify, orcpt):
    copying = replace(HELP_LOST, copies=(Copy("team@solarmora.com"),))
    rules = policy(copying)
    taken = recipient(rules, "<help@solarmora.com>", notify, orcpt)
    decision = decide(rules, Envelope(JOE, (taken,)), ())
    assert added(decision) == {
        CRM: "NOTIFY=FAILURE ORCPT=rfc822;help@solarmora.com",
        "team@solarmora.com": "NOTIFY=NEVER",
    }


@pytest.mark.parametrize(
    ("rules", "arguments", "sender"),
    [
        (everywhere(HELP), ["<help@solarmora.com>"], ""),
        (everywhere(HELP), ["<help@solarmora.com>", "<alice@x.example>"], JOE),
        (everywhere(HELP), ["<help@solarmora.com>", f"<{LOST}>"], JOE),
        # left, and so a recipient that is not ours
        (everywhere(HELP, replace(SALES, max_size=1)), ["<help@solarmora.com>"] * 2
         + ["<sales@solarmora.com>"], JOE),
        # what the client addresses himself keeps his NOTIFY
        (everywhere(HELP), ["<help@solarmora.com>", f"<{CRM}>"], JOE),
        (everywhere(replace(HELP, suppress_bounces=False)), ["<help@solarmora.com>"], JOE),
        (everywhere(replace(HELP, copies=(Copy("t@x.example", suppress_bounces=False),))),
         ["<help@solarmora.com>"], JOE),
    ],
)  # fmt: skip
def test_it_gets_a_copy_where_the_sender_has_to_stay(rules, arguments, sender):
    decision = run(rules, *arguments, sender=sender, size=9)
    assert decision.envelope_sender is None
    assert LOST in insured(decision)
    got = added(decision)
    if f"<{LOST}>" not in arguments:
        assert got.pop(LOST) == "NOTIFY=NEVER"
    assert LOST not in got
    first = outcome_line("q", decision.outcomes[0], decision.judgement)
    assert first.endswith(f" insured=<{LOST}>")


def test_rules_that_differ_get_a_copy_each_and_keep_the_sender():
    decision = run(policy(HELP_LOST, OTHER), *BOTH)
    assert decision.envelope_sender is None
    assert insured(decision) == [LOST, "b@solarmora.com"]
    assert {LOST, "b@solarmora.com"} <= added(decision).keys()


def test_rules_that_agree_but_for_spelling_share_the_sender():
    decision = run(policy(HELP_LOST, replace(OTHER, dead_letters=LOST.upper())), *BOTH)
    assert decision.envelope_sender in (LOST, LOST.upper())
    assert LOST.lower() not in {each.lower() for each in added(decision)}


def test_a_rule_without_a_net_does_not_lend_its_mail_to_the_mailbox_of_another():
    decision = run(policy(HELP_LOST, SALES), "<help@solarmora.com>", "<sales@solarmora.com>")
    assert decision.envelope_sender is None
    assert insured(decision) == [LOST, ""]


def test_the_rule_comes_before_the_file():
    decision = run(everywhere(OTHER), "<other@solarmora.com>")
    assert decision.envelope_sender == "b@solarmora.com"


def test_a_copy_that_goes_there_anyway_is_no_insurance():
    rules = policy(replace(HELP_LOST, copies=(Copy("lost@solarmora.com"),)))
    decision = run(rules, "<help@solarmora.com>", "<alice@x.example>")
    assert insured(decision) == [""]
    assert added(decision) == {
        CRM: "NOTIFY=NEVER ORCPT=rfc822;help@solarmora.com",
        "lost@solarmora.com": "NOTIFY=NEVER",
    }


def test_a_copy_that_the_client_addresses_too_is_ours():
    rules = policy(replace(HELP_LOST, copies=(Copy("team@solarmora.com"),)))
    decision = run(rules, "<help@solarmora.com>", "<team@solarmora.com>")
    assert decision.envelope_sender == LOST
    assert [*added(decision)] == [CRM]


@pytest.mark.parametrize(
    "rules",
    [
        policy(replace(HELP_LOST, mode=Mode.TEST)),
        everywhere(rule("list", "help@solarmora.com", copies=("team@solarmora.com",))),
        everywhere(replace(HELP, on_spam=OnSpam.DISCARD)),
        everywhere(HELP),
    ],
)
def test_nothing_else_is_changed(rules):
    """A test rule, copies alone, what is discarded, what is left."""
    decision = run(rules, "<help@solarmora.com>", "<alice@x.example>", fields=(YES,))
    assert decision.envelope_sender is None
    assert not any(insured(decision))
    assert {each.lower() for each in added(decision)} <= {"team@solarmora.com"}


def test_mail_on_hold_goes_to_the_same_places_when_it_is_released():
    holding = replace(HELP_LOST, on_spam=OnSpam.QUARANTINE)
    decision = run(policy(holding), "<help@solarmora.com>", fields=(YES,))
    assert (decision.hold, decision.envelope_sender) == ("spam", LOST)
    null = run(policy(holding), "<help@solarmora.com>", fields=(YES,), sender="")
    assert (null.hold, insured(null)) == ("spam", [LOST])


@pytest.mark.parametrize(
    ("typed", "parameters"),
    [
        ("Joe+VERP=x@Customer.example", "RET=FULL ENVID=Joe+2BVERP+3Dx@Customer.example"),
        ('"a b"@x.example', 'RET=FULL ENVID="a+20b"@x.example'),
        ("jösé@kunde.example", "RET=FULL ENVID=j\\x{F6}s\\x{E9}@kunde.example"),
        ("a" * 90 + "@x.example", "RET=FULL ENVID=" + "a" * 90 + "@x.example"),
        ("a" * 91 + "@x.example", "RET=FULL"),
        ("j\udce9@x.example", "RET=FULL"),
    ],
)
def test_the_old_sender_is_said_as_the_client_spelt_it(typed, parameters):
    assert dead_letters.parameters(typed) == parameters


HEAD = "unrouted_to: it@solarmora.com\nspam: rspamd\n"
LOSES = "mail that the CRM rejects is lost for "


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("rules: [{name: a, match: a@x.example, replace_with: b@crm.example}]", 'rule "a"'),
        (
            "rules: [{name: a, match: a@x.example, replace_with: b@crm.example},"
            " {name: b, match: b@x.example, replace_with: b@crm.example,"
            " also_deliver_to: t@y.example}]",
            'rules "a" (+1)',
        ),
        (
            "rules: [{name: b, match: b@x.example, replace_with: '@crm.example',"
            " also_deliver_to: c@crm.example},"
            " {name: a, match: '*', also_deliver_to: t@y.example}]",
            'rule "b"',
        ),
    ],
)
def test_check_says_in_one_sentence_that_there_is_no_net(text, names, tmp_path):
    (warning,) = parse(HEAD + text, tmp_path / "c.yaml").warnings
    assert (warning.key, warning.message[: len(LOSES + names)]) == ("dead_letters", LOSES + names)


RULE = "name: a, match: [a@x.example, '*-b@y.example'], replace_with: b@crm.example"


@pytest.mark.parametrize(
    "text",
    [
        "dead_letters: d@z.example\nrules: [{RULE}]",
        "rules: [{RULE, dead_letters: d@z.example}]",
        "rules: [{RULE, mode: test}]",
        "rules: [{RULE, also_deliver_to: t@X.example}]",
        "rules: [{RULE, also_deliver_to: [o@z.example, {address: t@y.example}]}]",
        "rules: [{RULE, also_deliver_to: it@solarmora.com}]",
        "rules: [{RULE, also_deliver_to: t@z.example, unrouted_to: u@z.example}]",
        "rules: []",
        "rules: [{name: a, match: '*', also_deliver_to: archive@z.example}]",
    ],
)
def test_any_net_will_do(text, tmp_path):
    assert parse(HEAD + text.replace("RULE", RULE), tmp_path / "c.yaml").warnings == ()
