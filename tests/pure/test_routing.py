"""The decision, case by case: ENVELOPE and FIELDS in, what is added, removed, answered out."""

import itertools
from dataclasses import replace

import pytest
from rows import CRM, HELP, ID, NO, YES, added, fates, mark, policy, recipient, rule, run, targets

from crm_milter.routing.decide import NoVerdict
from crm_milter.routing.decision import Action, Reason, Reply
from crm_milter.routing.logline import outcome_line
from crm_milter.rules.rule import Copy, Mode, OnSpam
from crm_milter.spam.verdict import Verdict


def never(original):
    return f"NOTIFY=NEVER ORCPT=rfc822;{original}"


def test_a_matched_recipient_is_replaced():
    decision = run(policy(HELP), "<Help@SolarMora.COM>")
    assert added(decision) == [(CRM, never("Help@SolarMora.COM"))]
    assert decision.remove == ("Help@SolarMora.COM",)
    assert decision.reply is Reply.ACCEPT
    assert decision.headers == (("X-CRM-Milter", mark("support")),)
    assert not decision.hold


def test_two_spellings_of_one_address_are_one_addition_and_two_removals():
    decision = run(policy(HELP), "<help@solarmora.com>", "<Help@Solarmora.com>")
    assert added(decision) == [(CRM, never("Help@Solarmora.com"))]
    assert decision.remove == ("Help@Solarmora.com", "help@solarmora.com")


def test_two_matched_addresses_with_one_target_are_one_addition():
    other = rule("info", "info@solarmora.com", CRM.upper())
    decision = run(policy(HELP, other), "<info@solarmora.com>", "<help@solarmora.com>")
    assert added(decision) == [(CRM, never("help@solarmora.com"))]
    assert decision.remove == ("help@solarmora.com", "info@solarmora.com")


def test_a_target_that_is_in_the_envelope_is_not_added():
    decision = run(policy(HELP), f"<{CRM.upper()}>", "<help@solarmora.com>")
    assert decision.add == ()
    assert decision.remove == ("help@solarmora.com",)
    assert decision.headers  # the only recipient left is the target


def test_copies_are_added_once_and_not_when_in_the_envelope():
    rules = policy(
        replace(HELP, copies=(Copy("a@x.example"), Copy("b@x.example"), Copy(CRM))),
    )
    decision = run(rules, "<help@solarmora.com>", "<A@x.example>")
    assert added(decision) == [
        ("b@x.example", "NOTIFY=NEVER"),
        (CRM, never("help@solarmora.com")),
    ]
    assert decision.remove == ("help@solarmora.com",)


def test_a_copy_for_an_address_that_is_rerouted_itself_stays_in_the_envelope():
    sales = rule("sales", "sales@solarmora.com", "sales@crm.example")
    rules = policy(replace(HELP, copies=(Copy("sales@solarmora.com"),)), sales)
    decision = run(rules, "<help@solarmora.com>", "<Sales@Solarmora.com>", "<sales@solarmora.com>")
    assert targets(decision) == ["sales@crm.example", CRM]
    assert decision.remove == ("help@solarmora.com",)
    dotted = run(rules, "<help@solarmora.com>", "<sales@solarmora.com.>", "<sales@solarmora.com>")
    assert dotted.remove == ("help@solarmora.com", "sales@solarmora.com.")


@pytest.mark.parametrize(
    ("suppress", "notify", "expected"),
    [
        (True, "", "NOTIFY=NEVER"),
        (True, "SUCCESS,DELAY", "NOTIFY=NEVER"),
        (False, "", "NOTIFY=FAILURE"),
        (False, "SUCCESS,DELAY,FAILURE", "NOTIFY=FAILURE"),
        (False, "NEVER", "NOTIFY=NEVER"),
    ],
)
def test_notify_never_passes_on_what_would_show_the_target(suppress, notify, expected):
    rules = policy(replace(HELP, suppress_bounces=suppress, copies=(Copy("a@x.example"),)))
    decision = run(rules, recipient(rules, "<help@solarmora.com>", notify))
    assert added(decision) == [
        ("a@x.example", "NOTIFY=NEVER"),
        (CRM, f"{expected} ORCPT=rfc822;help@solarmora.com"),
    ]


def test_a_copy_may_ask_for_bounces_unless_the_client_wants_none():
    rules = policy(replace(HELP, copies=(Copy("a@x.example", suppress_bounces=False),)))
    asked = run(rules, recipient(rules, "<help@solarmora.com>"))
    assert added(asked)[0] == ("a@x.example", "NOTIFY=FAILURE")
    unwanted = run(rules, recipient(rules, "<help@solarmora.com>", "NEVER"))
    assert added(unwanted)[0] == ("a@x.example", "NOTIFY=NEVER")


def test_never_only_if_all_say_so():
    other = rule("info", "info@solarmora.com", CRM, suppress_bounces=False)
    decision = run(policy(HELP, other), "<info@solarmora.com>", "<help@solarmora.com>")
    assert added(decision) == [(CRM, "NOTIFY=FAILURE ORCPT=rfc822;help@solarmora.com")]


def test_the_clients_orcpt_is_passed_on_and_a_missing_one_is_the_raw_spelling_in_xtext():
    rules = policy(rule("all", "@solarmora.com", CRM))
    given = recipient(rules, "<x@solarmora.com>", orcpt="rfc822;first+40x@elsewhere.example")
    assert added(run(rules, given)) == [
        (CRM, "NOTIFY=NEVER ORCPT=rfc822;first+40x@elsewhere.example")
    ]
    decision = run(rules, "<@relay:A+b=c@Solarmora.com>")
    assert added(decision) == [(CRM, never("A+2Bb+3Dc@Solarmora.com"))]
    assert decision.remove == ("A+b=c@Solarmora.com",)


def test_unmatched_recipients_hide_every_trace_of_ours():
    decision = run(policy(HELP), "<alice@solarmora.com>", "<help@solarmora.com>")
    assert decision.headers == ()
    assert decision.remove == ("help@solarmora.com",)


def test_spam_stays_behind_and_gets_no_copies():
    rules = policy(replace(HELP, copies=(Copy("a@x.example", deliver_spam=True),)))
    decision = run(rules, "<help@solarmora.com>", fields=[YES])
    assert (decision.add, decision.remove, decision.headers) == ((), (), ())
    assert fates(decision) == [(Action.LEFT, Reason.SPAM)]


def test_a_forged_ham_does_not_cancel_spam():
    decision = run(policy(HELP), "<help@solarmora.com>", fields=[NO, YES, NO])
    assert fates(decision) == [(Action.LEFT, Reason.SPAM)]
    assert decision.judgement.verdict is Verdict.CONFLICTING


def test_a_rule_that_bypasses_the_filter_sends_spam_to_the_crm_and_to_copies_that_want_it():
    copies = (Copy("wants@x.example", deliver_spam=True), Copy("no@x.example"))
    rules = policy(replace(HELP, copies=copies, bypass_spam_filter=True))
    decision = run(rules, "<help@solarmora.com>", fields=[YES])
    assert targets(decision) == [CRM, "wants@x.example"]
    assert decision.outcomes[0].withheld == 1
    assert targets(run(rules, "<help@solarmora.com>")) == ["no@x.example", CRM, "wants@x.example"]


@pytest.mark.parametrize(
    ("no_verdict", "reply", "fate"),
    [
        (NoVerdict.ROUTE, Reply.ACCEPT, (Action.REROUTED, None)),
        (NoVerdict.LEAVE, Reply.ACCEPT, (Action.LEFT, Reason.NO_VERDICT)),
        (NoVerdict.TEMPFAIL, Reply.TEMPFAIL, (Action.TEMPFAILED, Reason.NO_VERDICT)),
    ],
)
def test_no_verdict(no_verdict, reply, fate):
    rules = policy(HELP, no_verdict=no_verdict)
    decision = run(rules, "<help@solarmora.com>", fields=[])
    assert decision.reply is reply
    assert fates(decision) == [fate]
    bypass = policy(replace(HELP, bypass_spam_filter=True), no_verdict=no_verdict)
    assert fates(run(bypass, "<help@solarmora.com>", fields=[])) == [(Action.REROUTED, None)]


def test_without_a_filter_nothing_is_spam_and_no_verdict_is_no_matter():
    rules = policy(HELP, filters=(), no_verdict=NoVerdict.TEMPFAIL)
    assert fates(run(rules, "<help@solarmora.com>", fields=[YES])) == [(Action.REROUTED, None)]


OTHER = rule("other", "other@solarmora.com", "other@crm.example")


@pytest.mark.parametrize(
    ("on_spam", "other", "arguments", "reply", "fate"),
    [
        ("reject", OTHER, "help", Reply.REJECT_SPAM, Action.REJECTED),
        ("reject", OTHER, "help alice", Reply.ACCEPT, Action.LEFT),
        ("reject", OTHER, "help other", Reply.ACCEPT, Action.LEFT),
        ("quarantine", OTHER, "help", Reply.ACCEPT, Action.QUARANTINED),
        ("quarantine", OTHER, "help alice", Reply.ACCEPT, Action.LEFT),
        ("discard", OTHER, "help", Reply.DISCARD, Action.DISCARDED),
        ("discard", OTHER, "help alice", Reply.ACCEPT, Action.DISCARDED),
        ("discard", OTHER, "help other", Reply.ACCEPT, Action.DISCARDED),
    ],
)
def test_reject_and_quarantine_act_only_if_all_recipients_come_to_it(
    on_spam, other, arguments, reply, fate
):
    rules = policy(replace(HELP, on_spam=OnSpam(on_spam)), other)
    names = [f"<{each}@solarmora.com>" for each in arguments.split()]
    for order in itertools.permutations(names):
        decision = run(rules, *order, fields=[YES])
        helped = [each for each in decision.outcomes if each.rule.name == "support"]
        assert decision.reply is reply
        assert [each.action for each in helped] == [fate]
        discarded = fate is Action.DISCARDED and reply is Reply.ACCEPT
        assert bool(decision.hold) is (fate is Action.QUARANTINED)
        if discarded:
            assert (decision.add, decision.remove) == ((), ("help@solarmora.com",))


def test_quarantined_mail_is_edited_as_ham_so_that_releasing_it_delivers():
    rules = policy(replace(HELP, on_spam=OnSpam.QUARANTINE, copies=(Copy("a@x.example"),)))
    decision = run(rules, "<help@solarmora.com>", fields=[YES])
    assert targets(decision) == ["a@x.example", CRM]
    assert decision.remove == ("help@solarmora.com",)
    assert decision.headers
    assert decision.hold


def test_different_rules_that_come_to_the_same_agree():
    both = [
        replace(HELP, on_spam=OnSpam.REJECT),
        replace(OTHER, on_spam=OnSpam.REJECT),
    ]
    arguments = ("<help@solarmora.com>", "<other@solarmora.com>")
    assert run(policy(*both), *arguments, fields=[YES]).reply is Reply.REJECT_SPAM
    both[1] = replace(OTHER, on_spam=OnSpam.QUARANTINE)
    assert run(policy(*both), *arguments, fields=[YES]).reply is Reply.ACCEPT


def test_mail_from_sendmail_is_not_rejected():
    rules = policy(replace(HELP, on_spam=OnSpam.REJECT))
    decision = run(rules, "help@solarmora.com", fields=[YES], by_smtp=False)
    assert decision.reply is Reply.ACCEPT
    assert fates(decision) == [(Action.LEFT, Reason.SPAM)]


@pytest.mark.parametrize("on_spam", list(OnSpam))
def test_mode_test_says_and_does_not_do(on_spam):
    rules = policy(replace(HELP, mode=Mode.TEST, on_spam=on_spam), OTHER)
    for fields in ([YES], [NO]):
        decision = run(rules, "<help@solarmora.com>", fields=fields)
        assert (decision.add, decision.remove, decision.headers) == ((), (), ())
        assert (decision.reply, decision.hold) == (Reply.ACCEPT, "")
        line = outcome_line("4bXq1Z", decision.outcomes[0], decision.judgement)
        assert line.startswith("4bXq1Z: would_")


def test_a_rule_in_test_mode_never_agrees_to_refuse_the_whole_message():
    tested = replace(OTHER, mode=Mode.TEST, on_spam=OnSpam.REJECT)
    rules = policy(replace(HELP, on_spam=OnSpam.REJECT), tested)
    decision = run(rules, "<help@solarmora.com>", "<other@solarmora.com>", fields=[YES])
    assert decision.reply is Reply.ACCEPT
    assert [each.action for each in decision.outcomes] == [Action.LEFT, Action.REJECTED]


def test_no_verdict_of_a_rule_in_test_mode_refuses_nothing():
    rules = policy(replace(HELP, mode=Mode.TEST), no_verdict=NoVerdict.TEMPFAIL)
    assert run(rules, "<help@solarmora.com>", fields=[]).reply is Reply.ACCEPT


@pytest.mark.parametrize(
    ("sender", "fields", "loops"),
    [
        ("joe@x.example", [ID, ("x-crm-milter", mark("support", ID))], True),
        ("joe@x.example", [("x-crm-milter", "\n " + mark("support", ID)), ID], True),
        ("joe@x.example", [ID, ("x-crm-milter", mark("other", ID))], False),
        (CRM, [], True),
        ("joe@x.example", [("from", f"Support <{CRM.upper()}>")], True),
        ("joe@x.example", [("from", f"{CRM}")], True),
        ("joe@x.example", [("from", f"x{CRM}")], False),
        ("joe@x.example", [("from", f"<{CRM}.evil.example>")], False),
        ("joe@x.example", [("from", "help@solarmora.com")], False),  # a contact form
        ("help@solarmora.com", [("from", "help@solarmora.com")], False),
        ("", [], False),
    ],
)
def test_loops_are_left(sender, fields, loops):
    decision = run(policy(HELP), "<help@solarmora.com>", sender=sender, fields=[NO, *fields])
    assert fates(decision) == [(Action.LEFT, Reason.LOOP) if loops else (Action.REROUTED, None)]


def test_a_loop_is_found_before_spam_and_another_recipient_is_still_rerouted():
    fields = [YES, ID, ("x-crm-milter", mark("support", ID))]
    rules = policy(HELP, replace(OTHER, bypass_spam_filter=True))
    decision = run(rules, "<help@solarmora.com>", "<other@solarmora.com>", fields=fields)
    assert fates(decision) == [(Action.LEFT, Reason.LOOP), (Action.REROUTED, None)]


def test_a_target_made_of_groups_that_a_rule_matches_is_a_loop():
    cases = rule("cases", "case-*@solarmora.com", r"\1@solarmora.com")
    rules = policy(cases, OTHER)
    decision = run(rules, "<case-other@solarmora.com>")
    assert fates(decision) == [(Action.LEFT, Reason.LOOP)]
    assert targets(run(rules, "<case-7@solarmora.com>")) == ["7@solarmora.com"]


def test_a_rule_for_everybody_that_only_copies_makes_no_loop():
    audit = rule("audit", "*", copies=("audit@x.example",))
    cases = rule("cases", "case-*@solarmora.com", r"\1@crm.example")
    assert targets(run(policy(cases, audit), "<case-7@solarmora.com>")) == ["7@crm.example"]


def test_groups_that_make_no_address_leave_the_recipient():
    cases = rule("cases", "case-*@solarmora.com", r"\1@crm.example")
    decision = run(policy(cases), "<case-@solarmora.com>")
    assert fates(decision) == [(Action.LEFT, Reason.NO_TARGET)]


def test_an_address_that_is_no_text_cannot_be_deleted_and_is_left():
    rules = policy(rule("all", "@solarmora.com", CRM))
    odd = recipient(rules, b"<h\xe9lp@solarmora.com>".decode("utf-8", "surrogateescape"))
    assert fates(run(rules, odd)) == [(Action.LEFT, Reason.UNDECODABLE)]


def test_a_rule_without_replace_with_keeps_the_recipient_and_adds_copies():
    team = rule("team", "team@solarmora.com", copies=("a@x.example", "b@x.example"))
    decision = run(policy(team), "<team@solarmora.com>")
    assert targets(decision) == ["a@x.example", "b@x.example"]
    assert decision.remove == ()
    assert fates(decision) == [(Action.COPIED, None)]
    assert fates(run(policy(team), "<team@solarmora.com>", fields=[YES])) == [
        (Action.LEFT, Reason.SPAM)
    ]


def test_sendmail_without_a_domain_is_deleted_as_typed():
    decision = run(policy(HELP), "help@solarmora.com", by_smtp=False)
    assert decision.remove == ("help", "help@solarmora.com")
    assert not decision.outcomes[0].duplicate


def test_a_bare_local_part_that_stands_for_two_addresses_is_not_deleted_but_said():
    decision = run(policy(HELP), "help@solarmora.com", "help@other.example", by_smtp=False)
    assert decision.remove == ("help@solarmora.com",)
    assert decision.outcomes[0].duplicate
    line = outcome_line("4bXq1Z", decision.outcomes[0], decision.judgement)
    assert line.endswith(" duplicate=possible")


def test_a_bare_local_part_of_a_record_that_stays_as_a_copy_is_not_deleted():
    sales = rule("sales", "sales@a.example", CRM, copies=("sales@a.example",))
    decision = run(policy(sales), "Sales@A.example", "Sales@a.example", by_smtp=False)
    assert decision.remove == ()  # one record of Postfix's, and it may have been typed "Sales"


def test_log_lines():
    rules = policy(replace(HELP, copies=(Copy("a@x.example"), Copy("b@x.example"))))
    ham = run(rules, "<help@solarmora.com>")
    assert outcome_line("4bXq1Z", ham.outcomes[0], ham.judgement) == (
        f"4bXq1Z: rerouted: to=<help@solarmora.com> new=<{CRM}> rule=support copies=2 verdict=ham"
    )
    spam = run(rules, "<help@solarmora.com>", fields=[YES])
    assert outcome_line("4bXq1Z", spam.outcomes[0], spam.judgement) == (
        "4bXq1Z: left: to=<help@solarmora.com> rule=support reason=spam"
    )


def test_an_address_cannot_break_out_of_its_log_line():
    rules = policy(rule("all", "@solarmora.com", CRM))
    odd = recipient(rules, '<"x\n4bXq1Z: rerouted: to=<y"@solarmora.com>')
    decision = run(rules, odd)
    assert "\n" not in outcome_line("4bXq1Z", decision.outcomes[0], decision.judgement)


def test_wanted_fields():
    assert policy(HELP).wanted_fields == {
        *("x-spam-flag", "from", "x-crm-milter", "message-id", "date"),
        *("resent-date", "resent-from", "resent-message-id"),
    }


def test_a_message_that_is_put_off_is_put_off_for_every_recipient_and_gets_no_copies():
    sure = rule("info", "info@solarmora.com", CRM, bypass_spam_filter=True, copies=("a@x.example",))
    tried = rule("try", "info@solarmora.com", "t@crm.example", mode=Mode.TEST)
    rules = policy(
        replace(tried, bypass_spam_filter=True), HELP, sure, no_verdict=NoVerdict.TEMPFAIL
    )
    decision = run(rules, "<help@solarmora.com>", "<info@solarmora.com>", fields=[])
    assert decision.reply is Reply.TEMPFAIL
    assert [(each.rule.name, each.action, each.copies) for each in decision.outcomes] == [
        ("support", Action.TEMPFAILED, ()),
        ("try", Action.REROUTED, ()),  # what the rule alone would do
        ("info", Action.TEMPFAILED, ()),
    ]


@pytest.mark.parametrize(
    ("filters", "no_verdict", "matters"),
    [
        (("amavis",), NoVerdict.ROUTE, False),
        (("amavis",), NoVerdict.LEAVE, True),
        (("amavis",), NoVerdict.TEMPFAIL, True),
        (("rspamd",), NoVerdict.TEMPFAIL, False),  # its silence is ham, whoever sends
        ((), NoVerdict.TEMPFAIL, False),
    ],
)
def test_who_hands_a_message_in_matters_where_silence_is_a_fault(filters, no_verdict, matters):
    assert policy(HELP, filters=filters, no_verdict=no_verdict).depends_on_client is matters
