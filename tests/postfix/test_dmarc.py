"""What DMARC says decides, on the way through Postfix; and the checks of what says it."""

import pytest
from letter import HAM, JOE, SPAM, letter
from planted import HELP, RSPAMD, RULES, Planted
from verifying import mood  # noqa: F401 - a fixture

from crm_milter.config.load import load
from crm_milter.postfix.checks import authentication
from crm_milter.postfix.postconf import Postconf
from crm_milter.postfix.site import Site
from lab import config

RULE = "match: {0}@solarmora.com, replace_with: {0}@crm.example, on_unauthenticated: {0}"
CONFIG = "unrouted_to: it@solarmora.com\nspam: amavis\nauthentication: [mx.solarmora.com]\nrules:\n"
NAMES = ("leave", "reject", "quarantine", "route")
CONFIG += "".join(f"  - {{name: {name}, {RULE.format(name)}}}\n" for name in NAMES)
PASS = "Authentication-Results: mx.solarmora.com; dmarc=pass header.from=customer.example"
HIDING = "Authentication-Results: mx.solarmora.com. 01; spf=fail smtp.mailfrom=(a smtp.helo=b(x"
FAIL = "Authentication-Results: mx.solarmora.com;\r\n\tspf=pass;\r\n\tDMARC=fail (p=none dis=none)"


@pytest.fixture(scope="module")
def lab(make_module_lab):
    aliases = {f"{name}@solarmora.com": f"left-{name}@x.org" for name in NAMES}
    return make_module_lab(CONFIG, virtual_alias_maps=aliases)


@pytest.fixture(autouse=True)
def _fresh(request):
    if "lab" in request.fixturenames:
        request.getfixturevalue("lab").fresh()


@pytest.mark.parametrize(
    ("fields", "forged"),
    [
        ([HAM], False),
        ([HAM, PASS], False),
        ([HAM, FAIL], True),
        ([HAM, PASS, FAIL], True),
        ([FAIL, HAM, PASS], True),
        ([HAM, FAIL.replace("mx.", "evil.")], False),
        ([HAM, FAIL.replace("mx.solarmora.com;", "(x) MX.SolarMora.com (y) 1;")], True),
        ([HAM, FAIL.replace("mx.solarmora.com;", "mx.solarmora.com 2;")], False),
        ([HAM, f"{HIDING};\r\n\tdmarc=fail (p=none);\r\n\tdkim=none header.d=c)"], True),
        ([HAM, f"{HIDING};\r\n\tdmarc=pass (p=none);\r\n\tdkim=none header.d=c)"], False),
        (
            [HAM, "Authentication-Results: mx.solarmora.com; dmarc=(((", "Subject: dmarc=fail"],
            False,
        ),
        ([HAM, "Authentication-Results:", "authentication-results:;;;;"], False),
    ],
)
def test_what_counts_is_left(lab, fields, forged):
    outcome = lab.send(JOE, ["<leave@solarmora.com>"], letter(*fields))
    assert outcome.recipients == ["left-leave@x.org" if forged else "leave@crm.example"]
    if forged:
        said = "left: to=<leave@solarmora.com> rule=leave reason=unauthenticated"
        assert outcome.log[0].endswith(said)


def test_forged_mail_is_refused_if_all_recipients_agree(lab):
    outcome = lab.send(JOE, ["<reject@solarmora.com>"], letter(HAM, FAIL))
    assert outcome.sent.reply == (550, "5.7.1 message refused because it fails DMARC")
    both = lab.send(JOE, ["<reject@solarmora.com>", "<alice@x.org>"], letter(HAM, FAIL))
    assert both.recipients == ["alice@x.org", "left-reject@x.org"]


def test_forged_mail_is_held_and_released_to_the_crm(lab):
    outcome = lab.send(JOE, ["<quarantine@solarmora.com>"], letter(HAM, FAIL))
    assert outcome.recipients == []
    assert "rule=quarantine copies=0" in outcome.log[0]
    lab.postfix.postsuper("-H", outcome.queue_id)
    assert [each.recipient for each in lab.sink.wait(1)] == ["quarantine@crm.example"]


def test_spam_that_is_forged_is_told_as_forged(lab):
    outcome = lab.send(JOE, ["<leave@solarmora.com>"], letter(SPAM, FAIL))
    assert "reason=unauthenticated" in outcome.log[0]
    routed = lab.send(JOE, ["<route@solarmora.com>"], letter(HAM, FAIL))
    assert routed.recipients == ["route@crm.example"]


# The checks

STRICT = RULES.rstrip() + "\n    on_unauthenticated: leave\n"
OPENDMARC = "inet:127.0.0.1:8893"
BORDER = "regexp:{{/^Authentication-Results: *mail[.]lab[.]example/ IGNORE}}"


def reset(site: Planted, authserv_id: str = "", **main: str) -> None:
    name = authserv_id or site.postfix.settings.main.get("myhostname", "mail.lab.example")
    settings = {"header_checks": BORDER} | main
    site.reset(STRICT, settings, head=f"spam: rspamd\nauthentication: {name}\n")


def test_nothing_is_found_where_a_filter_writes_the_field_under_this_id(site):
    reset(site)
    assert site.findings() == []


def test_another_id_is_found(site):
    reset(site, "mx.elsewhere.example")
    (found,) = site.findings()
    assert (found["check"], found["severity"]) == ("authentication", "warning")
    assert "mx.elsewhere.example" in found["found"]


def test_no_filter_in_front_is_found(site):
    site.reset(STRICT, {}, head="spam: gmail\nauthentication: mail.lab.example\n", has_filter=False)
    (found, border) = site.findings()
    assert found["check"] == border["check"] == "authentication"
    main = {"smtpd_milters": f"{OPENDMARC}, {site.ours}", "header_checks": BORDER}
    site.reset(
        STRICT, main, head="spam: gmail\nauthentication: mail.lab.example\n", has_filter=False
    )
    assert site.findings() == []


def test_a_table_that_takes_the_field_away_is_found(site):
    reset(site, milter_header_checks="regexp:{{/^Authentication-Results:/ IGNORE}}")
    assert site.checks() == ["header-checks"]
    reset(site, header_checks="regexp:{{/^Authentication-Results:/ IGNORE}}")  # at the border
    assert site.findings() == []
    assert HELP in site.yaml.read_text()


@pytest.mark.parametrize(
    "checks",
    [
        "",
        "regexp:{{/^Authentication-Results: elsewhere/ IGNORE}}",
        "regexp:{{/^Authentication-Results:/ WARN}}",
        "regexp:{{/^Authentication-Results:/ PREPEND X-Seen: yes}}",
        "regexp:{{/^Received:/ IGNORE}}",
        "regexp:{{/^Authentication-Results:.*dmarc=pass/ IGNORE}}",
    ],
)
def test_fields_that_mail_brings_under_this_id_are_found(site, checks):
    reset(site, header_checks=checks)
    (found,) = site.findings()
    assert (found["check"], found["severity"]) == ("authentication", "warning")
    assert "that a message brings" in found["found"]
    assert "cannot be seen" not in found["found"]
    site.repair()
    assert site.findings() == []


@pytest.mark.parametrize(
    "checks",
    [
        "regexp:{{/^authentication-results:.*MAIL.LAB/ STRIP}}",
        "regexp:{{/^Received:/ WARN}}, regexp:{{/^Authentication-Results:/ REJECT no}}",
        "regexp:{{/^(Authentication-Results): *mail[.]lab[.]example(.*)/ REPLACE X-Old-$1: $2}}",
    ],
)
def test_tables_that_remove_them_are_known(site, checks):
    reset(site, header_checks=checks)
    assert site.findings() == []


def test_what_an_unknown_milter_removes_cannot_be_seen(site):
    main = {"smtpd_milters": f"{RSPAMD}, inet:127.0.0.1:9, {site.ours}", "header_checks": ""}
    reset(site, **main)
    (found,) = site.findings()
    assert 'whether "inet:127.0.0.1:9" removes it cannot be seen' in found["found"]


def test_a_service_without_header_checks_is_found(site):
    service = {"submission": {"receive_override_options": "no_header_body_checks"}}
    head = "spam: rspamd\nauthentication: mail.lab.example\n"
    site.reset(STRICT, {"header_checks": BORDER}, head=head, services=service)
    (found,) = site.findings()
    assert '"127.0.0.1:9/inet"' in found["found"]
    site.repair()
    assert site.findings() == []


def test_the_id_of_a_gateway_may_come_with_the_message(site):
    head = "spam: rspamd\nauthentication: [mail.lab.example, edge.example]\n"
    site.reset(STRICT, {"header_checks": BORDER}, head=head)
    assert site.findings() == []


@pytest.mark.parametrize(
    ("path", "text", "removes"),
    [
        ("etc/rspamd/local.d/milter_headers.conf", 'use = ["authentication-results"];', True),
        ("etc/rspamd/local.d/milter_headers.conf", 'use = ["x-spam-status"];', False),
        ("etc/rspamd/local.d/milter_headers.conf", '# use = ["authentication-results"];', False),
        ("etc/rspamd/override.d/milter_headers.conf", "use [\n authentication-results\n]", True),
        ("etc/opendkim.conf", "RemoveARAll yes\n", False),  # no OpenDKIM in front
    ],
)
def test_a_filter_that_removes_them_is_known(site, tmp_path, path, text, removes):
    reset(site, header_checks="")
    (tmp_path / path).parent.mkdir(parents=True)
    (tmp_path / path).write_text(text)
    where = Site(load(site.yaml), site.yaml, Postconf(site.postfix.config))
    found = [*authentication.border(where, tmp_path)]
    assert (found == []) is removes


def test_a_field_that_mail_brings_is_gone_and_that_of_a_milter_stays(make_lab, mood):  # noqa: F811
    """As the finding proposes it: cleanup's header_checks do not see what a milter adds."""
    lab = make_lab(
        CONFIG, main={"header_checks": "regexp:{{/^Authentication-Results: *mx/ IGNORE}}"},
        virtual_alias_maps={"leave@solarmora.com": "left-leave@x.org"},
        smtpd_milters=config.milter(f"unix:{mood.with_name('filter.sock')}"),
    )  # fmt: skip
    brought = lab.send(JOE, ["<leave@solarmora.com>"], letter(HAM, FAIL))
    assert brought.recipients == ["leave@crm.example"]
    mood.write_text("forged")
    for fields in ([HAM], [HAM, FAIL], [HAM, PASS]):
        added = lab.send(JOE, ["<leave@solarmora.com>"], letter(*fields))
        assert added.recipients == ["left-leave@x.org"]
