"""The configuration as a whole: what a file comes to, and how it is refused."""

import gc
import os
from pathlib import Path

import pytest

from crm_milter.config.listen import InetSocket, UnixSocket
from crm_milter.config.load import Config, load, parse
from crm_milter.config.problems import SHOWN, ConfigError
from crm_milter.routing.decide import NoVerdict
from crm_milter.rules.conditions import ExceptSenders, Occasion, Senders
from crm_milter.rules.pattern import Exact, Glob, InDomain, NullSender
from crm_milter.rules.rule import AutomaticClass, Copy, Mode, OnOversize, OnSpam
from crm_milter.spam.presets import PRESETS

FIVE_LINES = """\
unrouted_to: it@solarmora.com
spam: rspamd
dead_letters: rejected@solarmora.com
rules:
  - name: support
    match: help@solarmora.com
    replace_with: support@v1su0245ewejzhe7.case.my-crm.com
"""
HEAD = "unrouted_to: it@solarmora.com\nspam: rspamd\ndead_letters: dead@mailboxes.example\n"


def read(text: str) -> Config:
    return parse(text, Path("/etc/crm-milter/crm-milter.yaml"))


def problems_of(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return [str(problem) for problem in caught.value.problems]


def warnings_of(text: str) -> list[str]:
    return [str(each).partition("warning: ")[2] for each in read(text).warnings]


def test_the_first_file_a_person_writes() -> None:
    config = read(FIVE_LINES)
    assert config.warnings == ()
    assert config.unrouted_to == "it@solarmora.com"
    assert config.policy.filters == (PRESETS["rspamd"],)
    (rule,) = config.policy.table.rules
    assert (rule.name, rule.match) == ("support", (Exact("help@solarmora.com"),))
    match = config.policy.table.match("help@solarmora.com")
    assert match is not None
    assert match.targets() == ("support@v1su0245ewejzhe7.case.my-crm.com",)


def test_defaults() -> None:
    config = read(FIVE_LINES)
    assert config.milter.listen == UnixSocket("/var/spool/postfix/crm-milter/milter.sock")
    assert (config.milter.socket_mode, config.milter.socket_group) == (0o660, "postfix")
    assert (config.milter.workers, config.milter.drain_timeout) == (None, 60)
    assert config.metrics_listen == ("127.0.0.1", 9894)
    assert config.recipient_delimiter == ""
    assert config.policy.no_verdict is NoVerdict.ROUTE
    (rule,) = config.policy.table.rules
    assert (rule.copies, rule.bypass_spam_filter, rule.on_spam) == ((), False, OnSpam.LEAVE)
    assert (rule.suppress_bounces, rule.unrouted_to, rule.mode) == (True, None, Mode.ENFORCE)


def test_everything_that_can_be_said() -> None:
    config = read(
        """\
milter: {listen: "inet6:8894@::1", socket_mode: 0600, socket_group: mail, workers: 2,
         drain_timeout: 5}
metrics: {listen: none}
recipient_delimiter: +-
unrouted_to: it@solarmora.com
spam:
  filter: [amavis, mailscanner:solarmora]
  headers:
    - {name: X-Our-Filter, value: "spam*"}
    - {name: X-Our-Score, at_least: 6.5}
  no_verdict: tempfail
rules:
  - name: support
    match: ["Help@SolarMora.COM.", "case-*@solarmora.com"]
    replace_with: "@CRM.example"
    also_deliver_to:
      - Team@solarmora.com
      - {address: boss@solarmora.com, deliver_spam: true, suppress_bounces: false}
    bypass_spam_filter: true
    suppress_bounces: false
    unrouted_to: support@mailboxes.example
    mode: test
  - {name: quarantined, match: "@shop.example", also_deliver_to: a@b.example, on_spam: quarantine}
"""
    )
    assert config.warnings == ()
    assert config.milter.listen == InetSocket("inet6", 8894, "::1")
    assert config.milter.listen.libmilter == "inet6:8894@[::1]"
    assert (config.milter.socket_mode, config.milter.socket_group) == (0o600, "mail")
    assert (config.milter.workers, config.milter.drain_timeout) == (2, 5)
    assert config.metrics_listen is None
    assert config.recipient_delimiter == "+-"
    names = ["amavis", "mailscanner", "X-Our-Filter", "X-Our-Score"]
    assert [each.name for each in config.policy.filters] == names
    assert config.policy.no_verdict is NoVerdict.TEMPFAIL
    support, quarantined = config.policy.table.rules
    glob = Glob("case-*@solarmora.com", ("case-", ""), "solarmora.com")
    assert support.match == (Exact("help@solarmora.com"), glob)
    assert support.copies == (
        Copy("Team@solarmora.com"),
        Copy("boss@solarmora.com", deliver_spam=True, suppress_bounces=False),
    )
    assert (support.bypass_spam_filter, support.suppress_bounces) == (True, False)
    assert (support.unrouted_to, support.mode) == ("support@mailboxes.example", Mode.TEST)
    assert quarantined.match == (InDomain("shop.example"),)
    assert (quarantined.on_spam, quarantined.replace_with) == (OnSpam.QUARANTINE, None)


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "rules:\n", "rules: []\nmilter:\n"])
def test_an_empty_file_has_no_rules(text: str) -> None:
    assert read(text).policy.table.rules == ()
    assert warnings_of(text) == []  # a fresh installation has nothing to be warned about


@pytest.mark.parametrize(
    ("listen", "libmilter"),
    [
        ("unix:/run/x.sock", "unix:/run/x.sock"),
        ("unix:x.sock", "unix:/etc/crm-milter/x.sock"),
        ("unix:../x.sock", "unix:/etc/x.sock"),
        ("inet:8894@127.0.0.1", "inet:8894@127.0.0.1"),
        ("inet:1@mail.solarmora.com", "inet:1@mail.solarmora.com"),
        ("inet6:65535@[::]", "inet6:65535@[::]"),
    ],
)
def test_listeners(listen: str, libmilter: str) -> None:
    assert read(f"milter: {{listen: '{listen}'}}").milter.listen.libmilter == libmilter


@pytest.mark.parametrize(
    ("listen", "address"),
    [("0.0.0.0:1", ("0.0.0.0", 1)), ("[::1]:9894", ("::1", 9894)), ("a.b:2", ("a.b", 2))],
)
def test_metrics_listeners(listen: str, address: tuple[str, int]) -> None:
    assert read(f"metrics: {{listen: '{listen}'}}").metrics_listen == address


RULE_A = "  - {name: a, match: a@x.example, replace_with: a@crm.example}\n"


@pytest.mark.parametrize(
    ("text", "warnings"),
    [
        (
            HEAD + "rules:\n" + RULE_A + "  - {name: b, match: [b@x.example, A@X.example], "
            "replace_with: b@crm.example}\n",
            ['rules[1].match[1]: "a@x.example" never reaches this rule: matched first by "a"'],
        ),
        (
            HEAD + "rules:\n" + RULE_A + "  - {name: b, match: b@x.example, "
            "also_deliver_to: [c@x.example, a@x.example]}\n",
            [
                'rules[1].also_deliver_to[1]: "a@x.example" is matched by rule "a":'
                " virtual aliases may redirect the copy"
            ],
        ),
        (
            HEAD + "rules:\n  - {name: b, match: b@x.example}\n",
            [
                'rules[0]: has neither "replace_with" nor "also_deliver_to":'
                " it does nothing except hide its addresses from later rules"
            ],
        ),
        (
            HEAD + "rules:\n  - name: b\n    match: [b@x.example, B@x.example]\n"
            "    replace_with: b@crm.example\n",
            ['rules[0].match[1]: "b@x.example" is listed twice'],
        ),
        (
            "spam: {filter: [rspamd], no_verdict: leave}\n",
            ['spam.no_verdict: has no effect: with "rspamd", mail without a mark counts as ham'],
        ),
        (
            "rules:\n" + RULE_A,
            [
                "spam: no spam filter is configured: spam is rerouted like any other mail",
                'dead_letters: mail that the CRM rejects is lost for rule "a": name a mailbox for'
                ' it with "dead_letters", or send a copy to one (also_deliver_to)',
            ],
        ),
    ],
)
def test_what_is_odd_but_valid_is_a_warning(text: str, warnings: list[str]) -> None:
    assert warnings_of(text) == warnings


@pytest.mark.parametrize(
    "rules",
    [
        # a copy of everything is no loop, whatever the targets are
        RULE_A + "  - {name: audit, match: '*', also_deliver_to: archive@x.example}\n",
        # an exception from a wildcard; the mailbox for what is left may be one
        "  - {name: own, match: it@solarmora.com, also_deliver_to: x@y.example}\n"
        "  - {name: all, match: '@solarmora.com', replace_with: '@crm.example'}\n",
        # wildcards spare these, so that nothing is hidden, and no target is taken
        "  - {name: all, match: '@x.example', replace_with: postmaster@x.example}\n"
        "  - {name: abuse, match: abuse@x.example, replace_with: b@crm.example}\n",
        # the rule before takes what would loop
        "  - {name: help, match: [help@x.example, help@old.example], replace_with: a@crm.example}\n"
        "  - {name: old, match: '@old.example', replace_with: '@x.example'}\n",
        # only rules without conditions hide others
        "  - {name: vip, match: a@x.example, replace_with: a@crm.example, senders: '@v.example'}\n"
        "  - {name: a, match: a@x.example, replace_with: b@crm.example}\n",
        "  - {name: some, match: '@x.example', replace_with: a@crm.example,"
        " except_senders: '<>'}\n  - {name: b, match: b@x.example, replace_with: b@crm.example}\n",
        # an exception for everybody, so that the rule after it never has the target
        "  - {name: own, match: desk@x.example, also_deliver_to: z@y.example}\n"
        "  - {name: all, match: '@x.example', replace_with: desk@x.example}\n",
        # nobody's mail comes to the second one but by the first, which is for the same sender
        "  - {name: a, match: a@x.example, replace_with: b@crm.example, senders: a@v.example}\n"
        "  - {name: b, match: a@x.example, replace_with: c@crm.example, senders: b@v.example}\n",
        # a pattern that only looks as wide as the one before
        "  - {name: a, match: case-*@x.example, replace_with: a@crm.example}\n"
        "  - {name: b, match: '*-case@x.example', replace_with: b@crm.example}\n"
        "  - {name: c, match: '@x.example', replace_with: c@crm.example}\n",
    ],
)
def test_what_is_no_mistake(rules: str) -> None:
    text = f"{HEAD}rules:\n{rules}"
    assert warnings_of(text) == []


def test_an_exception_from_a_wildcard_may_be_the_mailbox_for_what_is_left() -> None:
    text = (
        HEAD + "rules:\n  - {name: own, match: it@solarmora.com}\n"
        "  - {name: all, match: '@solarmora.com', replace_with: '@crm.example'}\n"
    )
    (warning,) = warnings_of(text)
    assert "does nothing except hide" in warning


def test_the_conditions_and_limits_of_a_rule() -> None:
    config = read(
        """\
recipient_delimiter: +
unrouted_to: it@solarmora.com
dead_letters: rejected@solarmora.com
spam: rspamd
rules:
  - name: a
    match: help@x.example
    replace_with: a@crm.example
    senders: ["@vip.example", "<>"]
    except_senders: robot@vip.example
    automatic: {reply: leave, list: leave, bulk: route}
    max_size: 25M
    on_oversize: reject
    dead_letters: Bounces@Y.example
    propagate_extension: true
    add_headers: {X-Gm-Original-To: "{recipient}", X-Case: "{rule}: {spam} {"}
  - {name: b, match: b@x.example, replace_with: b@crm.example, max_size: 9}
  - {name: c, match: c@x.example, replace_with: c@crm.example, add_headers: {}, max_size: 500k}
"""
    )
    assert config.warnings == ()
    a, b, c = config.policy.table.rules
    assert a.conditions == (
        Senders((InDomain("vip.example"), NullSender())),
        ExceptSenders((Exact("robot@vip.example"),)),
    )
    assert a.automatic == {AutomaticClass.REPLY, AutomaticClass.LIST}
    assert a.on_oversize is OnOversize.REJECT
    assert (a.max_size, b.max_size, c.max_size) == (25 * 1024 * 1024, 9, 500 * 1024)
    assert (a.dead_letters, b.dead_letters) == ("Bounces@y.example", None)
    assert config.policy.dead_letters == "rejected@solarmora.com"
    assert a.propagate_extension
    assert a.add_headers == (("X-Gm-Original-To", "{recipient}"), ("X-Case", "{rule}: {spam} {"))
    assert c.add_headers == ()
    match = config.policy.table.match("help+x@x.example", Occasion("a@vip.example"))
    assert match is not None
    assert match.targets() == ("a+x@crm.example",)


def test_every_problem_at_once_in_the_order_of_lines() -> None:
    text = "spam: norton\nrules:\n" + "  - {nam: a, match: help, replace_with: b}\n" * 3
    problems = problems_of(text)
    assert len(problems) == 1 + 3 * 4
    assert problems[0].startswith("/etc/crm-milter/crm-milter.yaml:1: spam: ")
    assert (
        '/etc/crm-milter/crm-milter.yaml:4: rules[1].nam: unknown key (did you mean "name"?)'
        in problems
    )
    assert problems == sorted(problems, key=lambda each: int(each.split(":")[1]))


def test_more_problems_than_anyone_reads_are_counted() -> None:
    problems = problems_of("rules:\n" + "  - x\n" * 250)
    errors = [each for each in problems if "warning" not in each]
    assert len(errors) == SHOWN + 1
    assert errors[-1] == "/etc/crm-milter/crm-milter.yaml: 150 more errors not shown"


def test_the_example_of_the_design() -> None:
    good = "  - {name: n%d, match: a%d@x.example, replace_with: a@crm.example}\n"
    text = HEAD + "#\n" * 13 + "rules:\n" + "".join(good % (n, n) for n in range(3))
    text += "  - name: x\n    match: x@x.example\n    replase_with: y@crm.example\n"
    problem = problems_of(text)[0]
    assert problem == (
        "/etc/crm-milter/crm-milter.yaml:23: rules[3].replase_with: unknown key"
        ' (did you mean "replace_with"?)'
    )


def test_a_file_that_cannot_be_read_is_one_clear_problem(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    cases = {
        tmp_path / "missing.yaml": "no such file or directory",
        tmp_path: "is a directory",
        tmp_path / "fifo": "is not a regular file",
        tmp_path / "loop": "too many levels of symbolic links",
        Path("/dev/null"): "is not a regular file",
        tmp_path / "fifo" / "x": "not a directory",
    }
    for path, reason in cases.items():
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value) == f"{path}: {reason}"


def test_a_forbidden_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*arguments: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "x.yaml")
    assert str(caught.value) == f"{tmp_path / 'x.yaml'}: permission denied"


def test_load_reads_the_file_and_paths_are_seen_from_it(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("milter: {listen: 'unix:m.sock'}\n" + FIVE_LINES)
    config = load(path)
    assert config.milter.listen.libmilter == f"unix:{tmp_path}/m.sock"
    assert len(config.policy.table.rules) == 1


def test_the_garbage_collector_is_back_after_a_refusal() -> None:
    assert gc.isenabled()
    problems_of("rules: x\n")
    assert gc.isenabled()
