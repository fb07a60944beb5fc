"""Authentication-Results: which fields count, and what they say, whatever stands in them."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rows import CRM, HELP, NO, YES, fates, policy, rule, run

from crm_milter.config.values import authserv_id
from crm_milter.routing.authentication import FIELD, Dmarc, dmarc
from crm_milter.routing.decision import Action, Reason, Reply
from crm_milter.rules.rule import AutomaticClass, OnSpam, OnUnauthenticated

OURS = frozenset({"mx.solarmora.com", "filter", "xn--bcher-kva.example"})
PASS, FAIL, NONE = Dmarc.PASS, Dmarc.FAIL, Dmarc.NONE


@pytest.mark.parametrize(
    ("value", "said"),
    [
        # as OpenDMARC, rspamd, Exchange Online, exim, authentication_milter and fastmail write it
        ("mx.solarmora.com; dmarc=fail (p=none dis=none) header.from=a.example", FAIL),
        ("mx.solarmora.com; dmarc=pass (p=reject dis=none) header.from=a.example", PASS),
        ("mx.solarmora.com/4bXq1Z; dmarc=fail (p=reject dis=none) header.from=a.example", FAIL),
        ("mx.solarmora.com;\r\n\tdkim=none;\r\n\tspf=pass (mx.solarmora.com: domain of j@b.example"
         " designates 192.0.2.1 as permitted sender) smtp.mailfrom=j@b.example;\r\n\tdmarc=fail"
         ' reason="No valid SPF, No valid DKIM" header.from=a.example (policy=none)', FAIL),
        ("mx.solarmora.com;\r\n\tdmarc=pass (policy=none) header.from=a.example", PASS),
        ("mx.solarmora.com 1; spf=fail (sender ip is 192.0.2.1) smtp.mailfrom=a.example; dkim=none"
         " (message not signed) header.d=none;dmarc=fail action=quarantine"
         " header.from=a.example;compauth=fail reason=000", FAIL),
        ("filter; dkim=pass header.d=a.example; dmarc=temperror header.from=a.example", NONE),
        ("filter; iprev=pass; dmarc=none header.from=a.example", NONE),
        ("filter; dmarc=bestguesspass action=none header.from=a.example", NONE),
        ("filter; none", NONE),
        # of others
        ("mx.google.example; dmarc=fail", NONE),
        ("mx.solarmora.com.evil.example; dmarc=fail", NONE),
        ("xmx.solarmora.com; dmarc=fail", NONE),
        ("mx; solarmora.com; dmarc=fail", NONE),
        ("", NONE),
        ("; dmarc=fail", NONE),
        ("dmarc=fail", NONE),
        # RFC 8601, section 2.2 and appendix B: blanks, comments, quotes, case, versions
        ("MX.SolarMora.Com;DMARC=FAIL", FAIL),
        ('"mx.solarmora.com" 1 ; dmarc = fail', FAIL),
        ("(c1)mx.solarmora.com(c2)1(c3);(c4)dmarc(c5)/(c6)1(c7)=(c8)fail(c9)", FAIL),
        ("filter 1\r\n ; dmarc/1=pass", PASS),
        ("filter 2; dmarc=fail", NONE),
        ("filter 1 2; dmarc=fail", NONE),
        ("filter v1; dmarc=fail", NONE),
        ('filter; dmarc="fail"', FAIL),
        ("filter; dmarc=pass; dmarc=fail", FAIL),
        ("filter; dmarc=fail; dmarc=pass", FAIL),
        # words in other places
        ("filter; spf=pass reason=\"; dmarc=fail\"", NONE),
        ("filter; spf=pass (; dmarc=fail) smtp.mailfrom=x", NONE),
        ("filter; spf=pass smtp.mailfrom=dmarc=fail", NONE),
        ("filter; spf=pass (a \\) ; dmarc=fail)", NONE),
        ('filter; spf=pass reason=";" dmarc=fail', NONE),
        ('filter; dmarc=pass reason="a \\" ; dmarc=fail"', PASS),
        ("filter; xdmarc=fail; dmarc-x=fail; arc=fail", NONE),
        ("filter; dmarc.x=fail", NONE),
        ("filter; dmarc==fail", NONE),
        ("filter; dmarc=", NONE),
        ("filter; dmarc", NONE),
        ("filter; dmarc=failed", NONE),
        ("filter; dmarc=fail.", NONE),
        ("filter (dmarc=fail", NONE),
        ("filter; (; dmarc=pass", NONE),
        # what the sender wrote closes nothing, and hides nothing that comes after it
        ('filter; "dmarc=fail', FAIL),
        ("filter; spf=fail smtp.mailfrom=a(b@x.example; dmarc=fail (policy=none)", FAIL),
        ('filter; spf=fail smtp.mailfrom=a"b@x.example; dmarc=fail reason="No valid SPF"', FAIL),
        ('filter; spf=none smtp.helo=\\"(\\)"("; dmarc=fail header.from=a.example', FAIL),
        ("filter; spf=fail smtp.mailfrom=a\\(b@x.example; dmarc=fail (policy=none)", FAIL),
        ('filter; spf=fail smtp.mailfrom=a\\"b@x.example; dmarc=fail reason="x"', FAIL),
        ("filter; spf=fail smtp.mailfrom=a(b@x.example; dmarc=pass; dmarc=fail", FAIL),
        ("other; spf=fail smtp.mailfrom=a(b@x.example; dmarc=fail", NONE),
        ("filter; spf=fail smtp.mailfrom=a(b@x.example; dmarc=fail (x) header.d=c)", FAIL),
        ('filter; spf=fail smtp.helo=a"b; dmarc=fail header.from=x; dkim=none header.s=c"', FAIL),
        ('filter; spf=fail smtp.helo=a"; dmarc=fail (x); dkim=none header.s="c', FAIL),
        ('filter; spf=none smtp.mailfrom="a"b"@x.example; dmarc=fail; dkim=none header.s=c"', FAIL),
        ("filter; spf=none smtp.helo=[(]; dmarc=fail header.from=x; dkim=none header.i=)@d", FAIL),
        ('filter; dmarc=pass reason="a(b; dmarc=fail)"', PASS),
        ("filter; dmarc=pass (a(b; dmarc=fail); dmarc=fail) header.from=x", PASS),
        ("filter;;;;dmarc=fail;;;", FAIL),
        # all spellings of a name (RFC 8601 section 2.5, RFC 5890), and of the version
        ("mx.solarmora.com.; dmarc=fail", FAIL),
        ("b\u00fccher.example; dmarc=fail", FAIL),
        ("B\u00dcCHER.example. 1; dmarc=fail", FAIL),
        ("bu\u0308cher.example/4bXq1Z; dmarc=fail", FAIL),
        ('"XN--BCHER-KVA.example"; dmarc=fail', FAIL),
        ("b\u00fccher.example.evil.example; dmarc=fail", NONE),
        ("bucher.example; dmarc=fail", NONE),
        ("filter 01; dmarc=fail", FAIL),
        ("filter 10; dmarc=fail", NONE),
        ("filter 0; dmarc=fail", NONE),
        ("filter; dmarc=fail\x00", NONE),
        ("filter; dmarc=\udcff\udcfe", NONE),
        ("\udcff; dmarc=fail", NONE),
    ],
)  # fmt: skip
def test_what_a_field_says(value, said):
    assert dmarc(value, OURS) is said


odd = st.text('()"\\\\ab@', min_size=1, max_size=6)


@settings(max_examples=1000, deadline=None)
@given(odd, odd, odd, odd)
def test_nothing_that_a_client_says_of_itself_hides_a_failure(sender, helo, domain, selector):
    value = f"filter; spf=none smtp.mailfrom={sender} smtp.helo={helo}; dmarc=fail (p=none)"
    more = f" header.from=a.example; dkim=none header.d={domain} header.s={selector}"
    assert dmarc(value + more, OURS) is FAIL


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "part",
    ["(", "()", "a ", '"', '"a" ', ";", "=", "dmarc=fail;", "dmarc", "\\", "(\\", " \t", "\udcff"],
)  # fmt: skip
@pytest.mark.parametrize("start", ["", "filter;", "filter 1; dmarc=", "filter; (", 'filter; "'])
def test_a_long_field_takes_linear_time_and_never_raises(start, part):
    dmarc(start + part * 300_000, OURS)


@pytest.mark.parametrize(
    "name",
    ["Mail.Solarmora.com", "mail.solarmora.com.", "b\u00fccher.example", "BU\u0308CHER.example",
     "xn--bcher-kva.example", "x_1", "192.0.2.1"],
)  # fmt: skip
def test_an_id_counts_however_it_is_spelt_in_the_configuration(name):
    ids = frozenset({authserv_id(name)})
    for spelt in (name, name.upper(), name.lower(), f'"{name}"', f"(x){name}/4bXq1Z"):
        assert dmarc(f"{spelt}; dmarc=fail", ids) is FAIL
    assert dmarc(f"x{name}; dmarc=fail", ids) is NONE


@pytest.mark.parametrize(
    "text",
    ["a.example,b.example", "<mx.example>", "mx.example;", "mx.example 1", '"mx"', "mx/1", ""],
)
def test_what_is_no_id_is_refused(text):
    with pytest.raises(ValueError, match="not a valid authserv-id"):
        authserv_id(text)


STRICT = rule("r", "help@solarmora.com", CRM, on_unauthenticated=OnUnauthenticated.REJECT)
FORGED = (FIELD, "filter; dmarc=fail")


def with_ids(*rules):
    return policy(*rules, authserv_ids=OURS)


@pytest.mark.parametrize(
    ("fields", "forged"),
    [
        ([FORGED], True),
        ([(FIELD, "filter; dmarc=pass"), FORGED], True),
        ([FORGED, (FIELD, "filter; dmarc=pass"), (FIELD, "mx.solarmora.com; dmarc=pass")], True),
        ([(FIELD, f"x{n}.example; dmarc=pass {'y' * 50_000}") for n in range(5)] + [FORGED], True),
        ([(FIELD, "filter; dmarc=pass"), (FIELD, "evil.example; dmarc=fail")], False),
        ([], False),
    ],
)
def test_any_fail_of_ours_wins_wherever_it_stands(fields, forged):
    decision = run(with_ids(STRICT), "<help@solarmora.com>", fields=[NO, *fields])
    fate = (Action.REJECTED, Reason.UNAUTHENTICATED) if forged else (Action.REROUTED, None)
    assert fates(decision) == [fate]
    assert decision.reply is (Reply.REJECT_FORGED if forged else Reply.ACCEPT)


LONG = [
    f"filter; {'(' * 59_000}",
    'filter; dmarc="' + r"\"" * 29_000,
    f"filter{'; dmarc=none' * 5_000}",
    f"filter; dmarc=pass; {'(a)' * 19_000}",
]


@pytest.mark.parametrize("value", LONG)
@pytest.mark.parametrize(
    ("before", "after"), [(0, 0), (1, 0), (2, 0), (3, 0), (200, 0), (0, 200), (1, 200), (200, 1)]
)
def test_a_fail_in_front_or_behind_counts_among_very_many_fields(value, before, after):
    fields = [(FIELD, value)] * before + [FORGED] + [(FIELD, value)] * after
    began = time.process_time()
    facts = with_ids(STRICT).facts(fields)
    assert facts.dmarc is Dmarc.FAIL
    assert time.process_time() - began < 1


def test_a_pass_in_front_or_behind_counts_among_very_many_fields():
    passed, nothing = (FIELD, "filter; dmarc=pass"), (FIELD, "x.example; " + "(" * 50_000)
    for fields in ([passed, *[nothing] * 100], [*[nothing] * 100, passed]):
        assert with_ids(STRICT).facts(fields).dmarc is Dmarc.PASS


@pytest.mark.parametrize(
    ("wish", "action"),
    [
        (OnUnauthenticated.ROUTE, Action.REROUTED),
        (OnUnauthenticated.LEAVE, Action.LEFT),
        (OnUnauthenticated.REJECT, Action.REJECTED),
        (OnUnauthenticated.QUARANTINE, Action.QUARANTINED),
    ],
)
def test_what_a_rule_may_ask_for(wish, action):
    rules = with_ids(rule("r", "help@solarmora.com", CRM, on_unauthenticated=wish))
    wanted = [each for each in [NO, FORGED] if each[0] in rules.wanted_fields]
    (fate,) = fates(run(rules, "<help@solarmora.com>", fields=wanted))
    assert fate[0] is action
    assert run(rules, "<help@solarmora.com>", fields=wanted).hold == (
        "unauthenticated" if action is Action.QUARANTINED else ""
    )


@pytest.mark.parametrize("wish", [OnUnauthenticated.REJECT, OnUnauthenticated.QUARANTINE])
def test_what_acts_on_a_message_needs_all_its_recipients(wish):
    strict = rule("r", "help@solarmora.com", CRM, on_unauthenticated=wish)
    spam = rule("s", "x@solarmora.com", CRM, on_spam=OnSpam(wish.value))
    rules = with_ids(strict, spam)
    left = (Action.LEFT, Reason.UNAUTHENTICATED)
    mixed = run(rules, "<help@solarmora.com>", "<alice@x.example>", fields=[NO, FORGED])
    assert (mixed.reply, fates(mixed), mixed.hold) == (Reply.ACCEPT, [left], "")
    two = run(rules, "<help@solarmora.com>", "<x@solarmora.com>", fields=[YES, FORGED])
    assert (two.reply, two.hold) == (Reply.ACCEPT, "")
    assert fates(two) == [left, (Action.LEFT, Reason.SPAM)]


def test_a_refusal_needs_smtp():
    local = run(with_ids(STRICT), "help@solarmora.com", fields=[NO, FORGED], by_smtp=False)
    assert (local.reply, fates(local)) == (Reply.ACCEPT, [(Action.LEFT, Reason.UNAUTHENTICATED)])


def test_its_place_among_the_reasons():
    strict = rule(
        *("r", "help@solarmora.com", CRM),
        automatic=frozenset(AutomaticClass),
        on_unauthenticated=OnUnauthenticated.LEAVE,
        max_size=10,
    )
    everything = [YES, FORGED, ("precedence", "bulk"), ("from", CRM)]
    for fields, reason in (
        (everything, Reason.LOOP),
        (everything[:3], Reason.AUTOMATIC),
        (everything[:2], Reason.UNAUTHENTICATED),
        (everything[:1], Reason.OVERSIZE),
    ):
        decision = run(with_ids(strict), "<help@solarmora.com>", fields=fields, size=20)
        assert fates(decision) == [(Action.LEFT, reason)]


def test_the_field_is_wanted_only_where_a_rule_asks():
    assert FIELD in with_ids(STRICT).wanted_fields
    assert FIELD not in with_ids(HELP).wanted_fields
