"""Conditions on the header and on the time: headers, except_headers, addressed, from, until."""

import json
import time
from pathlib import Path

import pytest
from rows import CRM, HELP, NO, applying, fates, policy, recipient, rule, run, targets

from crm_milter.cli.explain import as_json, explain, lines
from crm_milter.cli.rules import rule_json, table_lines
from crm_milter.config.load import load
from crm_milter.config.load import parse as parse_file
from crm_milter.config.problems import ConfigError
from crm_milter.postfix.aliases import alias_lines
from crm_milter.routing.decide import decide
from crm_milter.routing.decision import Action, Envelope, Reason, Recipient
from crm_milter.routing.headerfields import HeaderFields
from crm_milter.rules.conditions import Addressed, Occasion
from crm_milter.rules.fieldpattern import parse
from crm_milter.rules.moment import moment
from crm_milter.rules.pattern import PatternError
from crm_milter.rules.rule import AddressMap, Copy, Mode, OnSpam, TableError
from crm_milter.verify.probe import Probe
from crm_milter.verify.run import NothingToVerifyError, plan

OTHER = "other@crm.example"


def asking(**fields):
    """What ``headers`` says, underscores for hyphens, "|" between patterns."""
    return tuple(
        (name.replace("_", "-"), tuple(map(parse, patterns.split("|"))))
        for name, patterns in fields.items()
    )


def invoices(**settings):
    settings.setdefault("headers", asking(Subject="*invoice*"))
    return rule("invoices", "help@solarmora.com", OTHER, **settings)


def waiting(rules, argument="<help@solarmora.com>", **settings):
    """A recipient as the session keeps it: the first candidate, if the header decides."""
    one = recipient(rules, argument, **settings)
    assert rules.table.is_waiting(one.match)
    return one._replace(match=one.match._replace(behind=None), waits=True)


def chosen(rules, *fields, address="help@solarmora.com", **settings):
    """The name of the rule that applied to a message with these fields."""
    decision = run(rules, waiting(rules, f"<{address}>", **settings), fields=[*fields, NO])
    return decision.outcomes[0].rule.name if decision.outcomes else None


@pytest.mark.parametrize(
    ("pattern", "value", "matches"),
    [
        ("*invoice*", "Your INVOICE 7", True),
        ("invoice*", "Your invoice", False),
        ("invoice ?", "Invoice 7", True),
        ("invoice ?", "Invoice 77", False),
        ("*invoice*", "Your in-voice", False),
        ("*", "", True),
        ("?*", "", False),
        ("*[ticket #1]*", "Re: [Ticket #1] help", True),
        ("*[ticket #1]*", "Re: t", False),
        ("*rechnung für*", "=?iso-8859-1?q?Rechnung_f=FCr?= Sie", True),
        ("*rechnung für*", "Rechnung fu\u0308r Sie", True),
        ("*rechnung fu\u0308r*", "=?utf-8?q?Rechnung_f=C3=BCr?=", True),
        ("*СЧЕТ*", "=?windows-1251?B?0ffl8g==?=", True),
        ("*a b*", "a\r\n\tb", True),
        ("/invoice \\d+/", "Your Invoice 77 of today", True),
        ("/^invoice/", "Your invoice", False),
        ("/in.oice$/", "Your invoice", True),
        ("/für/", "=?utf-8?q?f=C3=BCr?=", True),
        ("/./", "\udcff\ud800", True),
        ("/a|b/", "xbx", True),
        (r"*\d*", r"a\d", True),
    ],
)
def test_a_pattern_is_compared_with_what_a_person_reads(pattern, value, matches):
    rules = policy(invoices(headers=(("subject", (parse(pattern),)),)), HELP)
    assert chosen(rules, ("subject", value)) == ("invoices" if matches else "support")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("/", "enclosed in slashes"),
        ("/a", "enclosed in slashes"),
        ("/a/i", "flags are not needed, because case is ignored"),
        ("/a/b/xi", "flags are not needed, because case is ignored"),
        ("/(/", "missing )"),
        ("/(?=a)/", "invalid perl operator"),
        (f"/{'a' * 999}/", "the limit is 1000"),
    ],
)
def test_an_expression_that_cannot_be_used_is_refused(text, reason):
    with pytest.raises(PatternError, match=reason.replace(")", r"\)")):
        parse(text)


@pytest.mark.parametrize(
    ("fields", "applies"),
    [
        ([("subject", "invoice"), ("x-shop", "7")], "invoices"),
        ([("subject", "bill"), ("x-shop", "")], "invoices"),
        ([("subject", "invoice")], "support"),
        ([("x-shop", "7")], "support"),
        ([], "support"),
        ([("subject", "a"), ("subject", "b"), ("subject", "bill"), ("x-shop", "7")], "invoices"),
        ([("subject", "a"), ("subject", "b"), ("x-shop", "7")], "support"),
    ],
)
def test_each_field_must_have_one_pattern_that_matches_one_instance(fields, applies):
    rules = policy(invoices(headers=asking(Subject="*invoice*|*bill*", X_Shop="*")), HELP)
    assert chosen(rules, *fields) == applies


@pytest.mark.parametrize(
    ("fields", "applies"),
    [
        ([], "invoices"),
        ([("subject", "invoice")], "support"),
        ([("x-shop", "7")], "support"),
        ([("subject", "a"), ("subject", "my bill")], "support"),
        ([("subject", "hello"), ("x-other", "7")], "invoices"),
    ],
)
def test_one_field_that_is_excluded_is_enough(fields, applies):
    excluding = invoices(headers=(), except_headers=asking(Subject="*invoice*|*bill*", X_Shop="*"))
    assert chosen(policy(excluding, HELP), *fields) == applies


def test_all_conditions_of_a_rule_have_to_hold():
    both = invoices(except_headers=asking(Subject="*paid*"), addressed=Addressed.TO)
    rules = policy(both, HELP)
    to = ("to", "help@solarmora.com")
    assert chosen(rules, ("subject", "invoice"), to) == "invoices"
    assert chosen(rules, ("subject", "paid invoice"), to) == "support"
    assert chosen(rules, ("subject", "invoice")) == "support"
    only_joe = policy(invoices(senders="joe@customer.example"), HELP)
    assert chosen(only_joe, ("subject", "invoice")) == "invoices"
    assert applying(only_joe, "help@solarmora.com", "ann@x.example") == "support"


@pytest.mark.parametrize(
    ("field", "value", "to", "to_or_cc"),
    [
        ("to", "help@solarmora.com", True, True),
        ("to", "Help <HELP@SolarMora.COM>", True, True),
        ("to", "ann@x.example, help@solarmora.com", True, True),
        ("to", '"help@solarmora.com" <ann@x.example>', False, False),
        ("to", "ann@x.example (help@solarmora.com)", False, False),
        ("to", "Desk: ann@x.example, help@solarmora.com;", True, True),
        ("to", "undisclosed-recipients:;", False, False),
        ("to", "<@relay.example:help@solarmora.com>", True, True),
        ("to", '"help"@solarmora.com', True, True),
        ("to", "help @ solarmora.com (us)", True, True),
        ("to", "ann@x.example,\r\n\thelp@solarmora.com", True, True),
        ("to", "help+bills@solarmora.com", True, True),  # the same mailbox
        ("to", "help@solarmora.com.evil.example", False, False),
        ("to", "xhelp@solarmora.com", False, False),
        ("to", "help@solar\udcffmora.com", False, False),
        ("to", '42" TV <help@solarmora.com>', True, True),
        ("to", 'Joe <joe@x.example>, 42" <help@solarmora.com>', True, True),
        ("to", "Desk (day <help@solarmora.com>", True, True),
        ("to", "'help@solarmora.com'", True, True),
        ("to", "'Help' <'help@solarmora.com'>, x@y.example", True, True),
        ("to", "'xhelp@solarmora.com'", False, False),
        ("to", "help'@solarmora.com", False, False),
        ("to", '"help@solarmora.com <ann@x.example>" <b@x.example>', False, False),
        ("to", "", False, False),
        ("to", ',,;:<<>>@@"((', False, False),
        (
            "to",
            ", ".join(f"a{n}@x.example" for n in range(5000)) + ", help@solarmora.com",
            True,
            True,
        ),
        ("cc", "help@solarmora.com", False, True),
        ("resent-to", "help@solarmora.com", True, True),
        ("resent-cc", "help@solarmora.com", False, True),
        ("bcc", "help@solarmora.com", False, False),
        ("from", "help@solarmora.com", False, False),
        ("reply-to", "help@solarmora.com", False, False),
    ],
)
def test_addressed(field, value, to, to_or_cc):
    for addressed, holds in ((Addressed.TO, to), (Addressed.TO_OR_CC, to_or_cc)):
        direct = rule("asking", "help@solarmora.com", OTHER, addressed=addressed)
        rules = policy(direct, HELP, delimiter="+")
        assert chosen(rules, (field, value)) == ("asking" if holds else "support")


@pytest.mark.parametrize(
    ("recipient_is", "to", "holds"),
    [
        ("help+x@solarmora.com", "help@solarmora.com", True),
        ("help@solarmora.com", "help+x@solarmora.com", True),
        ("help+x@solarmora.com", "help+y@solarmora.com", True),
        ("vip+x@solarmora.com", "vip+x@solarmora.com", True),
        ("vip+x@solarmora.com", "vip@solarmora.com", False),  # the rule names an extension
        ("help@bücher.example", "help@xn--bcher-kva.example", True),
        ("help@xn--bcher-kva.example", "help@BÜCHER.example", True),
    ],
)
def test_the_address_is_the_one_that_the_rule_matches(recipient_is, to, holds):
    match = "help@solarmora.com vip+x@solarmora.com help@bücher.example"
    rules = policy(rule("asking", match, OTHER, addressed=Addressed.TO), delimiter="+")
    assert chosen(rules, ("to", to), address=recipient_is) == ("asking" if holds else None)


@pytest.mark.parametrize(
    ("match", "recipient_is", "to", "holds"),
    [
        ("@solarmora.com", "help+x@solarmora.com", "help@solarmora.com", True),
        ("@solarmora.com", "help+x@solarmora.com", "help+x@solarmora.com", True),
        ("@solarmora.com", "help+x@solarmora.com", "Help+Y@SolarMora.com", True),
        ("@solarmora.com", "help@solarmora.com", "help+x@solarmora.com", True),
        ("@solarmora.com", "help+x@solarmora.com", "info@solarmora.com", False),
        ("@solarmora.com", "help+x@solarmora.com", "x@solarmora.com", False),
        ("@solarmora.com", "help+x@solarmora.com", "help@elsewhere.example", False),
        ("he*@solarmora.com", "help+x@solarmora.com", "help@solarmora.com", True),
        ("help+*@solarmora.com", "help+x@solarmora.com", "help@solarmora.com", False),
        ("/he.p.*@solarmora\\.com/", "help+x@solarmora.com", "help@solarmora.com", True),
        ("help+x@solarmora.com @solarmora.com", "help+x@solarmora.com", "help@solarmora.com", True),
    ],
)
def test_wide_patterns_take_an_extension_for_its_address(match, recipient_is, to, holds):
    rules = policy(rule("asking", match, "@crm.example", addressed=Addressed.TO), delimiter="+")
    assert chosen(rules, ("to", to), address=recipient_is) == ("asking" if holds else None)


ROWS = {
    "@solarmora.com": ("all@crm.example",),
    "vip+x@solarmora.com": ("vip@crm.example",),
    "sales@solarmora.com": ("sales@crm.example",),
}


@pytest.mark.parametrize(
    ("recipient_is", "to", "holds"),
    [
        ("help+x@solarmora.com", "help@solarmora.com", True),
        ("help+x@solarmora.com", "Help+Y@SolarMora.com", True),
        ("help@solarmora.com", "help+x@solarmora.com", True),
        ("help+x@solarmora.com", "info@solarmora.com", False),
        ("help+x@solarmora.com", "x@solarmora.com", False),
        ("sales+x@solarmora.com", "sales@solarmora.com", True),
        ("vip+x@solarmora.com", "vip+x@solarmora.com", True),
        ("vip+x@solarmora.com", "vip@solarmora.com", False),  # its row names an extension
        ("vip+y@solarmora.com", "vip@solarmora.com", True),
    ],
)
def test_a_row_for_a_domain_takes_an_extension_for_its_address(recipient_is, to, holds):
    table = AddressMap("routes", ROWS)
    rules = policy(rule("asking", address_map=table, addressed=Addressed.TO), delimiter="+")
    assert chosen(rules, ("to", to), address=recipient_is) == ("asking" if holds else None)


class Locked:
    """A table that cannot be read."""

    def get(self, key):
        raise TableError("locked")


@pytest.mark.parametrize(("to", "put_off"), [("help@solarmora.com", True), ("x@y.example", False)])
def test_a_table_that_cannot_be_read_may_have_the_address_without_extension(to, put_off):
    table = AddressMap("routes", {}, Locked())
    rules = policy(rule("asking", address_map=table, addressed=Addressed.TO), delimiter="+")
    address = "help+x@solarmora.com"
    match = rules.table.match(address, Occasion(""))
    one = Recipient(address, address, match, waits=True)
    if put_off:
        with pytest.raises(TableError):
            run(rules, one, fields=[("to", to), NO])
    else:
        assert not run(rules, one, fields=[("to", to), NO]).outcomes


def test_each_recipient_is_asked_for_its_own_address():
    rules = policy(rule("asking", "@solarmora.com", "@crm.example", addressed=Addressed.TO))
    both = [waiting(rules, f"<{name}@solarmora.com>") for name in ("help", "info")]
    decision = run(rules, *both, fields=[("to", "info@solarmora.com"), NO])
    assert targets(decision) == ["info@crm.example"]
    assert decision.remove == ("info@solarmora.com",)


NOON = 1798110000.0  # 2026-12-24 12:00 +01:00


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("2026-12-24T12:00:00+01:00", NOON),
        ("2026-12-24 12:00 +01:00", NOON),
        ("2026-12-24T12:00+0100", NOON),
        ("2026-12-24t12:00:00.000+01", NOON),
        ("2026-12-24 11:00Z", NOON),
        ("2026-12-24 11:00:00 UTC", NOON),
        ("2026-12-24 12:00 Europe/Berlin", NOON),
        ("2026-12-24 06:00 America/New_York", NOON),
        ("2026-12-24 16:30 +05:30", NOON),
        ("2026-12-24 07:30 -0330", NOON),
        ("2026-07-01 12:00 Europe/Berlin", 1782900000.0),  # summer time
    ],
)
def test_a_moment_has_a_time_zone(text, seconds):
    assert moment(text) == (text, seconds)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2026-12-24", '"2026-12-24" has no time zone'),
        ("2026-12-24 12:00", "has no time zone"),
        ("2026-12-24T12:00:00", "has no time zone"),
        ("2026-12-24 +01:00", "has no time of day"),
        ("24.12.2026 12:00 +01:00", "expected a date and time with a time zone"),
        ("tomorrow", "expected a date and time with a time zone"),
        ("1798110000", "expected a date and time with a time zone"),
        ("2026-02-30 12:00 +01:00", "does not exist"),
        ("2026-12-24 24:00 +01:00", "does not exist"),
        ("2026-12-24 12:00 CET", 'unknown time zone "CET"'),
        ("2026-12-24 12:00 Europe/Bern", 'unknown time zone "Europe/Bern"'),
        ("2026-12-24 12:00 ../../etc/passwd", "unknown time zone"),
        ("2026-12-24 12:00 Europe/", "unknown time zone"),
        ("2026-12-24 12:00 +25:00", "unknown time zone"),
        ("2026-12-24 12:00 +01:75", "unknown time zone"),
        ("2026-10-25 02:30 Europe/Berlin", "is twice on the clock"),
        ("2026-03-29 02:30 Europe/Berlin", "is skipped by the clock"),
    ],
)
def test_what_is_no_moment_is_refused_with_the_reason(text, reason):
    with pytest.raises(ValueError) as caught:
        moment(text)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("now", "applies"),
    [(NOON - 1, False), (NOON, True), (NOON + 3599, True), (NOON + 3600, False), (None, True)],
)
def test_a_rule_applies_from_a_moment_until_another(now, applies):
    times = {"from": moment("2026-12-24 11:00Z"), "until": moment("2026-12-24 12:00Z")}
    rules = policy(rule("xmas", "help@solarmora.com", OTHER, **times), HELP)
    match = rules.table.match("help@solarmora.com", Occasion("", now=now))
    assert match.rule.name == ("xmas" if applies else "support")
    assert not rules.table.is_waiting(match)  # decided at RCPT
    possible = [each.rule.name for each in rules.table.possible("help@solarmora.com")]
    assert possible == ["xmas", "support"]


def test_the_time_of_the_message_decides_at_its_end_as_well():
    both = invoices(until=moment("2026-12-24 11:00Z"))
    rules = policy(both, HELP)
    one = waiting(rules)
    for now, name in ((NOON - 1, "invoices"), (NOON, "support")):
        envelope = Envelope("joe@customer.example", (one,), now=now)
        decision = decide(rules, envelope, [("subject", "invoice"), NO])
        assert [each.rule.name for each in decision.outcomes] == [name]


def test_a_message_for_which_no_candidate_applies_is_left_alone():
    rules = policy(invoices())
    decision = run(rules, waiting(rules), fields=[("subject", "hello")])
    assert (decision.outcomes, decision.add, decision.remove, decision.headers) == ((), (), (), ())


def test_of_several_recipients_each_has_its_own_rule():
    rules = policy(invoices(), rule("info", "info@solarmora.com", CRM))
    info = recipient(rules, "<info@solarmora.com>")
    assert not rules.table.is_waiting(info.match)
    decision = run(rules, waiting(rules), info, fields=[("subject", "hello"), NO])
    assert targets(decision) == [CRM]
    assert decision.remove == ("info@solarmora.com",)
    assert decision.headers == ()  # help@, which no rule took, would see them


def test_a_rule_without_such_conditions_is_decided_at_rcpt():
    rules = policy(rule("vip", "vip@solarmora.com", OTHER, senders="*"), HELP, invoices())
    for address in ("vip@solarmora.com", "help@solarmora.com"):
        assert not rules.table.is_waiting(rules.table.match(address, Occasion("a@b.example")))


def test_a_test_rule_changes_nothing():
    tested = invoices(mode=Mode.TEST)
    rules = policy(tested, HELP)
    decision = run(rules, waiting(rules), fields=[("subject", "invoice"), NO])
    assert targets(decision) == [CRM]
    assert [(each.rule.name, each.test) for each in decision.outcomes] == [
        ("invoices", True), ("support", False)
    ]  # fmt: skip
    decision = run(rules, waiting(rules), fields=[("subject", "x"), NO])
    assert [each.rule.name for each in decision.outcomes] == ["support"]
    behind = policy(rule("t", "help@solarmora.com", CRM, mode=Mode.TEST), invoices())
    decision = run(behind, waiting(behind), fields=[("subject", "invoice"), NO])
    assert targets(decision) == [OTHER]


def test_the_rule_that_applies_has_its_own_reasons():
    rules = policy(invoices(on_spam=OnSpam.REJECT, copies=(Copy("a@x.example"),)), HELP)
    spam = ("x-spam-flag", "YES")
    decision = run(rules, waiting(rules), fields=[("subject", "invoice"), spam])
    assert fates(decision) == [(Action.REJECTED, Reason.SPAM)]
    decision = run(rules, waiting(rules), fields=[("subject", "hello"), spam])
    assert fates(decision) == [(Action.LEFT, Reason.SPAM)]
    looping = run(rules, waiting(rules), fields=[("subject", "invoice"), ("from", OTHER), NO])
    assert fates(looping) == [(Action.LEFT, Reason.LOOP)]


def test_wildcards_keep_what_they_took():
    case = rule("case", "case-*@solarmora.com", r"c.\1@crm.example", headers=asking(X_A="*"))
    rules = policy(case)
    decision = run(rules, waiting(rules, "<Case-AbC@solarmora.com>"), fields=[("x-a", ""), NO])
    assert targets(decision) == ["c.AbC@crm.example"]
    assert decision.remove == ("Case-AbC@solarmora.com",)


def test_a_recipient_that_does_not_wait_keeps_its_match():
    rules = policy(invoices(), HELP)
    match = rules.table.match("help@solarmora.com", Occasion("", header=HeaderFields()))
    kept = Recipient("help@solarmora.com", "help@solarmora.com", match)
    decision = run(rules, kept, fields=[("subject", "invoice"), NO])
    assert decision.outcomes[0].rule.name == "support"


def test_only_fields_that_a_condition_asks_for_are_wanted():
    asked = {"subject", "x-shop", "to", "resent-to", "cc", "resent-cc"}
    rules = policy(invoices(except_headers=asking(X_Shop="*"), addressed=Addressed.TO_OR_CC), HELP)
    assert asked <= rules.wanted_fields
    assert rules.table.reads == asked
    assert asked.isdisjoint(policy(HELP).wanted_fields)
    assert policy(HELP).facts([("subject", "x")]).header is None
    gathering = rules.gathering(header=False)
    gathering.add("subject", "invoice")
    assert gathering.facts().header is None


def test_what_is_kept_of_a_header_is_bounded_and_read_once():
    header = HeaderFields()
    for _ in range(1000):
        header.add("subject", "x" * 60_000)
    header.add("subject", "invoice")
    header.add("x-a", "invoice")
    assert sum(map(len, header._raw["subject"])) <= 100_000
    pattern = parse("*invoice*")
    assert not header.has("subject", pattern)  # comes after all that is looked at
    assert header.has("x-a", pattern)
    tried = []
    counted = parse("*a*").__class__("counted", lambda value: bool(tried.append(value)))
    for _ in range(1000):
        assert not header.has("x-a", counted)
    assert tried == ["invoice"]


@pytest.mark.parametrize("value", ["a@b,", "a@ü%d.example, ", '"\\', "((", "<@", "a@b\udcff,"])
def test_time_is_linear_in_a_field_of_addresses(value):
    rules = policy(rule("asking", "@solarmora.com", CRM, addressed=Addressed.TO))
    text = "".join(value % n if "%" in value else value for n in range(60_000 // len(value)))
    everybody = [waiting(rules, f"<u{n}@solarmora.com>") for n in range(1000)]
    began = time.process_time()
    run(rules, *everybody, fields=[("to", text), ("to", text)])
    assert time.process_time() - began < 3


def test_many_rules_and_recipients_look_at_a_value_once_each():
    many = [
        rule(f"r{n}", "@solarmora.com", CRM, headers=asking(Subject=f"*invoice {n} *"))
        for n in range(100)
    ]
    rules = policy(*many)
    everybody = [waiting(rules, f"<u{n}@solarmora.com>") for n in range(200)]
    assert all(each.match.behind is None for each in everybody)
    began = time.process_time()
    decision = run(rules, *everybody, fields=[("subject", "x " * 30_000 + "invoice 99 x"), NO])
    assert {each.rule.name for each in decision.outcomes} == {"r99"}
    assert time.process_time() - began < 3


def test_explain_tells_why_a_condition_does_not_hold():
    rules = policy(
        invoices(except_headers=asking(X_Paid="*|yes")),
        rule("direct", "help@solarmora.com", OTHER, addressed=Addressed.TO_OR_CC),
        rule("to", "help@solarmora.com", OTHER, addressed=Addressed.TO),
        rule("begun", "help@solarmora.com", OTHER, **{"from": moment("2027-01-01 00:00Z")}),
        rule("over", "help@solarmora.com", OTHER, until=moment("2026-01-01 00:00Z")),
        HELP,
    )

    def story(text):
        return explain(rules, "<joe@x.example>", ["help@solarmora.com"], text, NOON)

    told = list(lines(story(b"Subject: hello\nCc: a@b.example\n\n")))
    assert '  rule invoices: no header field matches "Subject: *invoice*"' in told
    assert "  rule direct: <help@solarmora.com> is not in To or Cc" in told
    assert "  rule to: <help@solarmora.com> is not in To" in told
    assert "  rule begun: begins on 2027-01-01 00:00Z" in told
    assert "  rule over: ended on 2026-01-01 00:00Z" in told
    assert "  rule support: applies" in told
    told = list(lines(story(b"Subject: =?utf-8?q?In?=\n =?utf-8?q?voice?=\nX-Paid: 1\n\n")))
    assert '  rule invoices: a header field matches "X-Paid: * (+1)"' in told
    applies = story(b"Subject: =?utf-8?q?In?=\n =?utf-8?q?voice?=\n\n")
    assert as_json(applies)["recipients"][0]["rule"] == "invoices"
    assert [each.rule.name for each in applies.decision.outcomes] == ["invoices"]


def test_the_listing_shows_the_conditions():
    shown = rule(
        "r", "help@solarmora.com", CRM, headers=asking(Subject="*a*|*b*", X_Shop="*"),
        except_headers=asking(X_No="*"), addressed=Addressed.TO, until=moment("2026-12-24 11:00Z"),
    )  # fmt: skip
    told = list(table_lines((shown,)))[1]
    assert "until 2026-12-24 11:00Z, addressed to, headers Subject: *a* (+1) (+1)," in told
    assert "except_headers X-No: *" in told
    data = json.loads(json.dumps(rule_json(shown)))
    assert data["headers"] == {"Subject": ["*a*", "*b*"], "X-Shop": ["*"]}
    assert data["except_headers"] == {"X-No": ["*"]}
    assert (data["addressed"], data["from"], data["until"]) == ("to", None, "2026-12-24 11:00Z")
    data = rule_json(HELP)
    assert (data["headers"], data["addressed"], data["until"]) == ({}, "any", None)


def test_postfix_has_to_accept_an_address_for_the_sake_of_some_of_its_mail():
    rules = policy(invoices(unrouted_to="bills@x.example"), HELP)
    entry = "help@solarmora.com  bills@x.example"
    assert entry in alias_lines(rules.table, "it@x.example")
    alone = policy(rule("dated", "a@x.example", CRM, until=moment("2020-01-01 00:00Z")))
    assert "a@x.example  it@x.example" in alias_lines(alone.table, "it@x.example")
    tested = policy(invoices(mode=Mode.TEST))
    assert len(alias_lines(tested.table, "it@x.example")) == 1


def checked(folder: Path, text: str, clock=lambda: NOON):
    """The warnings of a file with these rules, or its errors."""
    path = folder / "crm-milter.yaml"
    path.write_text(
        f"unrouted_to: it@y.example\nspam: rspamd\nrules:\n{text}\ndead_letters: d@z.example\n"
    )
    try:
        found = load(path, None, clock).warnings
    except ConfigError as error:
        found = error.problems
    return [f"{each.severity.value} {each.line}: {each.key}: {each.message}" for each in found]


ONE = "  - {name: a, match: a@x.example, replace_with: a@crm.example, "
REST = "  - {name: rest, match: a@x.example, replace_with: b@crm.example}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (ONE + "until: 2026-12-24 11:00Z}\n" + REST,
         ["warning 4: rules[0].until: the rule ended on 2026-12-24 11:00Z and no longer applies"]),
        (ONE + "until: 2026-12-31 11:00Z}\n" + REST,
         ["warning 4: rules[0].until: the rule ends within a week, on 2026-12-31 11:00Z"]),
        (ONE + "until: 2026-12-31 11:01Z}\n" + REST, []),
        (ONE + "from: 2030-01-01 11:01Z}\n" + REST, []),
        (ONE + "from: 2030-01-01 11:01Z, until: 2030-01-01 11:01Z}\n" + REST,
         ['error 4: rules[0].until: is not after "from": the rule can never apply']),
        (ONE + "until: 2030-01-01}\n" + REST,
         ['error 4: rules[0].until: "2030-01-01" has no time zone, so it means another moment on'
          ' every host; write, for example, "2026-12-24 18:00 +01:00" or "2026-12-24 18:00'
          ' Europe/Berlin"']),
        (ONE + 'headers: {Subject: "*"}, bypass_spam_filter: true}\n' + REST,
         ["warning 4: rules[0].headers: any sender can write these header fields, and the rule"
          " bypasses the spam filter: spam with them is rerouted"]),
        (ONE + 'headers: {Subject: "*"}, bypass_spam_filter: true, senders: "@c.example"}\n' + REST,
         []),
        (ONE + 'except_headers: {Subject: "*"}, bypass_spam_filter: true}\n' + REST, []),
        (ONE + 'headers: {Bcc: "*"}, except_headers: {return-path: "*"}}\n' + REST,
         ["warning 4: rules[0].headers.Bcc: never matches: Postfix removes this field before it"
          " reaches a milter",
          "warning 4: rules[0].except_headers.return-path: never matches: Postfix removes this"
          " field before it reaches a milter"]),
        (ONE + 'headers: {Subject: "*a*"}, except_headers: {subject: ["*a*", "*b*"]}}\n' + REST,
         ['error 4: rules[0].headers.Subject: is also in "except_headers": the rule can never'
          " apply"]),
        (ONE + 'headers: {Subject: "*"}}\n',
         ['warning 4: rules[0]: mail for "a@x.example" that does not meet the conditions is not'
          ' rerouted and goes to "it@y.example"; if it should be, add a rule without these'
          " conditions"]),
        (ONE + 'headers: {Subject: "*"}, mode: test}\n', []),
        (ONE + "addressed: to, unrouted_to: z@y.example}\n" + REST,
         ['warning 4: rules[0]: mail for "a@x.example" that is not rerouted goes to the'
          ' "unrouted_to" of rule "a" ("z@y.example"), also if rule "rest" applies']),
        (ONE + "headers: {}, except_headers: , addressed: any}\n" + REST,
         ['error 5: rules[1]: can never apply: all its addresses are matched first by "a"']),
        (ONE + 'headers: {Subject: "*", subject: "*"}}\n' + REST,
         ["error 4: rules[0].headers.subject: is listed twice (header field names are not"
          " case-sensitive)"]),
        (ONE + 'headers: {"Sub ject": "*"}}\n' + REST,
         ['error 4: rules[0].headers."Sub ject": "Sub ject" is not a valid header field name']),
        (ONE + "headers: {Subject: []}}\n" + REST,
         ["error 4: rules[0].headers.Subject: the list is empty"]),
        (ONE + "headers: [Subject]}\n" + REST,
         ["error 4: rules[0].headers: expected a mapping of header names to patterns, not a list"]),
        (ONE + "addressed: cc}\n" + REST,
         ['error 4: rules[0].addressed: expected "any", "to" or "to_or_cc", not "cc"']),
    ],
)  # fmt: skip
def test_check_says_what_is_odd(tmp_path, text, expected):
    assert checked(tmp_path, text) == expected


PROBED = """
unrouted_to: it@y.example
rules:
  - {name: bills, match: a@x.example, replace_with: b@crm.example, headers: {Subject: "*invoice*"}}
  - name: mine
    match: a@x.example
    replace_with: m@crm.example
    headers: {Subject: "test message *"}
    addressed: to
  - {name: later, match: a@x.example, replace_with: l@crm.example, from: 2099-01-01 00:00Z}
"""


def test_verify_expects_what_the_header_of_its_message_leads_to():
    path, probe = Path("/nowhere/x.yaml"), Probe("t", "joe@z.example", "a@x.example")
    assert plan(parse_file(PROBED, path), probe).expected.rule == "mine"
    with pytest.raises(NothingToVerifyError, match="no rule matches"):
        plan(parse_file(PROBED.replace("test message *", "x"), path), probe)
