"""The marker: nothing can be learned from it, and by it what comes back is left."""

import re

import pytest
from rows import CRM, HELP, ID, NO, fates, mark, policy, rule, run, targets

from crm_milter.config.load import parse
from crm_milter.routing.decide import Policy
from crm_milter.routing.decision import Action, Reason
from crm_milter.routing.marker import marker
from crm_milter.rules.rule import Copy

LOOP = [(Action.LEFT, Reason.LOOP)]
ROUTED = [(Action.REROUTED, None)]
TEAM = rule("team", "team@solarmora.com", copies=("archive@x.example",))
SALES = rule("sales", "sales@solarmora.com", "sales@crm.example")
KEY = b"0123456789abcdef"


def keyed(*rules, key=KEY):
    made = policy(*rules)
    return Policy(made.table, made.filters, marker_key=key)


def marks(decision):
    return [value for name, value in decision.headers if name == "X-CRM-Milter"]


def passed(rules, argument, fields, **settings):
    """The fields of a message after a pass."""
    (mark,) = marks(run(rules, argument, fields=[NO, *fields], **settings))
    return [*fields, ("x-crm-milter", mark)]


def test_it_differs_by_key_rule_and_message():
    seen = {
        marks(run(keyed(*rules, key=key), to, fields=[NO, *fields]))[0]
        for rules, to in (((HELP,), "<help@solarmora.com>"), ((SALES,), "<sales@solarmora.com>"))
        for key in (b"", KEY, KEY[::-1])
        for fields in ([ID], [("message-id", "<2@x>")], [("from", "a")], [("date", "a")], [])
    }
    assert len(seen) == 2 * 3 * 5
    assert all(re.fullmatch("[0-9a-f]{16}", each) for each in seen)


def test_it_says_nothing_of_where_the_mail_goes():
    one = rule("support", "help@solarmora.com", "a@one.example")
    two = rule("support", "help@solarmora.com", "b@two.example", copies=("c@x.example",))
    fields = [NO, ID]
    assert marks(run(keyed(one), "<help@solarmora.com>", fields=fields)) == marks(
        run(keyed(two), "<Help@solarmora.com>", fields=fields)
    )


@pytest.mark.parametrize("to", ["help", "help sales", "help team", "help sales team", "team"])
def test_there_is_one_however_many_rules_were_applied(to):
    arguments = [f"<{name}@solarmora.com>" for name in to.split()]
    decision = run(keyed(HELP, SALES, TEAM), *arguments, fields=[NO, ID])
    assert len(marks(decision)) == 1


def test_that_of_several_rules_stands_for_each():
    rules = keyed(HELP, SALES, TEAM)
    (mark,) = marks(run(rules, "<help@solarmora.com>", "<sales@solarmora.com>", fields=[NO, ID]))
    for name in ("help", "sales", "team"):
        back = run(rules, f"<{name}@solarmora.com>", fields=[NO, ID, ("x-crm-milter", mark)])
        assert fates(back) == LOOP


SAME = {
    "Message-ID": ([ID], [ID]),
    "Message-ID, folded": ([ID], [("message-id", f"\r\n {ID[1]}\t")]),
    "Message-ID, the first counts": ([ID, ("message-id", "<9@x>")], [ID]),
    "Message-ID, added later": ([("from", "a"), ("date", "b")], [("from", "a"), ("date", "b"), ID]),
    "From and Date": ([("from", "J <a@b>"), ("date", "b c")],
                      [("date", "b\r\n c"), ("from", "J  <a@b>")]),
    "no name at all": ([], []),
    "resent": ([ID, ("resent-date", "x")], [("resent-date", "x"), ID]),
    "resent, the same twice": ([ID, ("resent-from", "x")], [("resent-from", "x")] * 2 + [ID]),
}  # fmt: skip


@pytest.mark.parametrize("case", SAME)
@pytest.mark.parametrize("name", ["help", "team"])
def test_what_comes_back_is_left(case, name):
    rules, to = keyed(HELP, TEAM), f"<{name}@solarmora.com>"
    before, after = SAME[case]
    (*_, mark) = passed(rules, to, before)
    assert fates(run(rules, to, fields=[NO, *after, mark])) == LOOP
    assert fates(run(rules, to, fields=[NO, mark, *after], sender="srs0=x@crm.example")) == LOOP


OTHERS = {
    "another message": [("message-id", "<2@x>")],
    "resent by hand": [ID, ("resent-from", "anna@solarmora.com"), ("resent-date", "today")],
    "resent, Resent-From alone": [ID, ("resent-from", "anna@solarmora.com")],
    "resent, Resent-Message-ID alone": [ID, ("resent-message-id", "<3@x>")],
}


@pytest.mark.parametrize("case", OTHERS)
def test_what_is_handed_in_again_is_no_loop_but_comes_back_as_one(case):
    rules, to = keyed(HELP), "<help@solarmora.com>"
    (*_, mark) = passed(rules, to, [ID])
    again = [*OTHERS[case], mark]
    assert fates(run(rules, to, fields=[NO, *again])) == ROUTED
    assert fates(run(rules, to, fields=[NO, *passed(rules, to, again)])) == LOOP


def test_a_forwarder_that_resends_anew_each_time_does_not_go_on_forever():
    rules, to = keyed(TEAM), "<team@solarmora.com>"
    fields, passes = [ID], 0
    while fates(run(rules, to, fields=[NO, *fields])) != LOOP:
        fields = [("resent-date", f"{passes}"), *passed(rules, to, fields)]
        passes += 1
        assert passes < 10
    assert passes == 5


SAFETY = rule("support", "help@solarmora.com", CRM, copies=(Copy("Team@solarmora.com"),))


@pytest.mark.parametrize(
    ("sender", "by_smtp"), [("team@solarmora.com", True), ("anna@solarmora.com", False)]
)
def test_the_copys_mailbox_and_sendmail_may_hand_it_in_once_more(sender, by_smtp):
    rules = keyed(SAFETY)
    argument = "<help@solarmora.com>" if by_smtp else "help@solarmora.com"
    once = passed(rules, "<help@solarmora.com>", [ID])
    by_hand = {"sender": sender, "by_smtp": by_smtp}
    assert fates(run(rules, argument, fields=[NO, *once], **by_hand)) == ROUTED
    twice = passed(rules, argument, once, **by_hand)
    assert fates(run(rules, argument, fields=[NO, *twice], **by_hand)) == LOOP
    assert fates(run(rules, argument, fields=[NO, *once], sender="joe@x.example")) == LOOP


def test_an_outsider_sees_none():
    for to in ("help", "team"):
        decision = run(keyed(HELP, TEAM), f"<{to}@solarmora.com>", "<alice@x.example>")
        assert decision.headers == ()
        assert targets(decision)


def test_without_the_key_it_cannot_be_forged():
    forged = ("x-crm-milter", mark("support", ID))
    assert fates(run(keyed(HELP), "<help@solarmora.com>", fields=[NO, ID, forged])) == ROUTED
    assert fates(run(policy(HELP), "<help@solarmora.com>", fields=[NO, ID, forged])) == LOOP


def test_the_marker_as_published():
    """As printf 'support\\0x' | openssl dgst -sha256 -hmac Jefe has it."""
    assert marker(b"Jefe", "support", "x") == "c1d8053de7db5daf"


CONFIG = """
unrouted_to: it@x.example
spam: amavis
dead_letters: d@x.example
rules:
  - {name: a, match: h@x.example, replace_with: c@y.example}
"""


@pytest.mark.parametrize(
    ("content", "mode", "warning"),
    [
        (b"0123456789abcdef\n", 0o640, ""),
        (None, 0, ""),
        (b"", 0o640, "holds 0 bytes; a key needs at least 16"),
        (b" \n short \n", 0o600, "holds 5 bytes; a key needs at least 16"),
        (
            b"0123456789abcdef",
            0o644,
            "is open to every user of this host; run: chmod o= marker.key",
        ),
    ],
)
def test_the_key_is_read_beside_the_configuration(tmp_path, content, mode, warning):
    if content is not None:
        path = tmp_path / "marker.key"
        path.write_bytes(content)
        path.chmod(mode)
    config = parse(CONFIG, tmp_path / "c.yaml")
    assert config.policy.marker_key == (content or b"").strip()
    said = [each.message for each in config.warnings]
    assert said == ([f'"marker.key" {warning}'] if warning else [])
    assert "0123456789abcdef" not in repr(config)


def test_a_key_file_that_is_named_and_missing_is_said(tmp_path):
    config = parse(f"marker_key: secret\n{CONFIG}", tmp_path / "c.yaml")
    (problem,) = config.warnings
    assert (problem.line, problem.key) == (1, "marker_key")
    assert problem.message == '"secret": no such file or directory; the key is empty'
    (tmp_path / "secret").mkdir()
    (problem,) = parse(f"marker_key: secret\n{CONFIG}", tmp_path / "c.yaml").warnings
    assert problem.message == '"secret": is a directory; the key is empty'
