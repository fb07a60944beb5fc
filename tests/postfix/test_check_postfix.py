"""`check --postfix` against real instances: a right one, one mistake each, twelve at once."""

import socket
from collections.abc import Callable

import planted
import pytest
from planted import CRM, HELP, IT, RULES, Planted


@pytest.fixture(scope="module", params=planted.CLASSES)
def any_site(request: pytest.FixtureRequest, plant: Callable[..., Planted]) -> Planted:
    return plant(request.param)


def test_a_right_postfix_has_no_findings(any_site):
    any_site.reset()
    assert any_site.findings() == []
    done = any_site.run("check", "--postfix")
    assert done.returncode == 0
    assert done.stdout == f"{any_site.yaml}: OK, Postfix configuration included\n"


def test_a_domain_that_is_not_ours(any_site):
    any_site.reset(RULES.replace(HELP, "help@other.example"))
    assert any_site.checks() == ["address-domain"]
    any_site.repair()
    assert any_site.checks() == []


@pytest.mark.parametrize("any_site", ["local", "mailbox", "relay"], indirect=True)
def test_an_account_in_each_class(any_site):
    any_site.reset(mailboxes=f"{IT} x\n{HELP} x\n")
    (found,) = any_site.findings()
    assert found["check"] == "real-account"
    assert HELP in found["found"]
    any_site.repair()
    assert any_site.checks() == []


def test_unrouted_to_has_to_be_a_mailbox_in_each_class(any_site):
    any_site.reset(unrouted_to="nobody@solarmora.com")
    (found,) = any_site.findings()
    assert found["check"] == "unrouted"
    assert "is not a known recipient" in found["found"]
    if any_site.kind != "alias":
        any_site.repair()
        assert any_site.checks() == []


@pytest.mark.parametrize("any_site", ["local"], indirect=True)
def test_an_account_of_the_system_and_an_alias(any_site):
    any_site.reset(
        "rules:\n"
        + "".join(
            f"  - {{name: {name}, match: {name}@solarmora.com, replace_with: {CRM}}}\n"
            for name in ("daemon", "sales", "nobody-else")
        ),
        {
            "local_recipient_maps": "proxy:unix:passwd.byname $alias_maps",
            "alias_maps": f"texthash:{any_site.folder}/aliases",
        },
        unrouted_to="root@solarmora.com",
    )
    (any_site.folder / "aliases").write_text("sales someone\n")
    found = any_site.findings()
    assert [each["check"] for each in found] == ["real-account", "real-account"]
    assert "passwd" in found[0]["found"]
    assert "aliases" in found[1]["found"]


MILTER = "{ unix:crm-milter/milter.sock, default_action=%s }"
OTHER = "inet:127.0.0.1:8891"
MANY = RULES + "    on_spam: reject\n"
DEAD = {
    "head": "spam: rspamd\ndead_letters: boss@solarmora.com\n",
    "mailboxes": f"{IT} x\nboss@solarmora.com x\n",
}
ADDING = RULES + "    add_headers: {X-Spam-Verdict: '{spam}'}\n"

# A name, what is wrong, the check that finds it.
FAULTS = {
    "an alias that leads to the address": (
        {"aliases": f"info@solarmora.com {HELP}, boss@elsewhere.example\n"},
        "alias-member",
    ),
    "unrouted_to that leads back": (
        {"unrouted_to": "boss@solarmora.com", "aliases": f"boss@solarmora.com {HELP}\n"},
        ["alias-member", "unrouted"],
    ),
    "a target in a domain of ours": (
        {"main": {"relay_domains": "case.my-crm.com"}},
        "target-local",
    ),
    "a copy for nobody": (
        {"text": "rules: [{name: a, match: gone@solarmora.com, also_deliver_to: b@b.example}]\n"},
        "address-unknown",
    ),
    "no map": (
        {"main": {"virtual_alias_maps": "texthash:$config_directory/virtual"}},
        "map-missing",
    ),
    "another entry first": ({"aliases": f"{HELP} boss@elsewhere.example\n"}, "map-shadowed"),
    "a wildcard": ({"aliases": "@solarmora.com boss@elsewhere.example\n"}, "map-wildcard"),
    "not attached": ({"main": {"smtpd_milters": OTHER}}, "milter-missing"),
    "not attached for sendmail": ({"main": {"non_smtpd_milters": ""}}, "milter-missing"),
    "not attached in master.cf": ({"services": {"sub": {"smtpd_milters": ""}}}, "milter-missing"),
    "kept off by an option": (
        {"services": {"sub": {"receive_override_options": "no_milters"}}},
        "milter-missing",
    ),
    "not last": (
        {
            "main": {
                "smtpd_milters": f"{MILTER % 'tempfail'}, {OTHER}",
                "non_smtpd_milters": MILTER % "tempfail",
            }
        },
        "milter-order",
    ),
    "twice": (
        {
            "main": {
                "smtpd_milters": f"{MILTER % 'tempfail'} $ours",
                "ours": MILTER % "tempfail",
                "non_smtpd_milters": "$ours",
            }
        },
        "milter-order",
    ),
    "refuses while down": ({"main": {"smtpd_milters": MILTER % "reject"}}, "default-action"),
    "accepts while down, which loses a reject": (
        {"text": MANY, "main": {"smtpd_milters": MILTER % "accept"}},
        "default-action",
    ),
    "accepts while down by the general setting": (
        {
            "text": MANY,
            "main": {
                "smtpd_milters": "{ unix:crm-milter/milter.sock }",
                "milter_default_action": "accept",
            },
        },
        "default-action",
    ),
    "no patience": ({"main": {"milter_content_timeout": "3s"}}, "timeout"),
    "too much patience": ({"main": {"milter_command_timeout": "2h"}}, "timeout"),
    "other milters for some": (
        {"main": {"smtpd_milter_maps": "cidr:{{127.0.0.0/8 DISABLE}}"}},
        "milter-maps",
    ),
    "nobody hears of bounces": ({"main": {"notify_classes": "resource"}}, "notify-classes"),
    "reports are cut": ({**DEAD, "main": {"bounce_size_limit": "50000"}}, "bounce-size"),
    "no report is made": ({**DEAD, "main": {"bounce_size_limit": "0"}}, "bounce-size"),
    "a report is cut where there is no limit": (
        {**DEAD, "main": {"message_size_limit": "0", "bounce_size_limit": "99999999"}},
        "bounce-size",
    ),
    "nobody has the dead letters": (
        {**DEAD, "mailboxes": f"{IT} x\n", "main": {"bounce_size_limit": "$message_size_limit"}},
        "dead-letters",
    ),
    "dead letters leave this host": (
        {
            "head": "spam: rspamd\ndead_letters: boss@elsewhere.example\n",
            "main": {"bounce_size_limit": "$message_size_limit"},
        },
        "dead-letters-remote",
    ),
    "dead letters among spam": (
        {
            "head": f"spam: rspamd\ndead_letters: {IT.upper()}\n",
            "main": {"bounce_size_limit": "$message_size_limit"},
        },
        "dead-letters-shared",
    ),
    "dead letters that an alias sends to the target": (
        {
            **DEAD,
            "main": {"bounce_size_limit": "$message_size_limit"},
            "aliases": f"boss@solarmora.com {CRM}\n",
        },
        "dead-end-target",
    ),
    "reports are cut by a service": (
        {
            **DEAD,
            "main": {"bounce_size_limit": "$message_size_limit"},
            "master": ["bounce unix - - y - 0 bounce -o bounce_size_limit=50000"],
        },
        "bounce-size",
    ),
    "one service takes larger mail": (
        {
            **DEAD,
            "main": {"bounce_size_limit": "$message_size_limit"},
            "services": {"extra": {"message_size_limit": "99999999"}},
        },
        "bounce-size",
    ),
    "any sender may read added fields": ({"text": ADDING}, "dsn-offered"),
    "any sender may read added fields, by one service": (
        {
            "text": ADDING,
            "main": {"smtpd_discard_ehlo_keywords": "silent-discard, DSN"},
            "services": {"extra": {"smtpd_discard_ehlo_keywords": "etrn"}},
        },
        "dsn-offered",
    ),
    "no original recipient": ({"main": {"enable_original_recipient": "no"}}, "original-recipient"),
    "another delimiter": ({"main": {"recipient_delimiter": "+"}}, "delimiter"),
    "a limit that never counts": (
        {"text": RULES + "    max_size: 25M\n", "main": {"message_size_limit": "1000000"}},
        "message-size",
    ),
    "recipients are verified": (
        {"main": {"smtpd_recipient_restrictions": "permit_mynetworks reject_unverified_recipient"}},
        "unverified-recipient",
    ),
    "recipients are verified by a class": (
        {
            "main": {
                "smtpd_restriction_classes": "careful",
                "careful": "reject_unverified_recipient",
                "smtpd_relay_restrictions": "check_recipient_access inline:{solarmora.com=careful}",
            }
        },
        "unverified-recipient",
    ),
    "the verdict is stripped": (
        {
            "head": "spam: gmail\n",
            "main": {"header_checks": "regexp:{{/^X-Gm-Spam:/ IGNORE}}"},
            "has_filter": False,
        },
        "header-checks",
    ),
    "the verdict of a milter is stripped": (
        {
            "main": {
                "smtpd_milters": f"{OTHER}, {MILTER % 'tempfail'}",
                "milter_header_checks": "regexp:{{/^X-Spam:/ IGNORE}}",
            }
        },
        "header-checks",
    ),
    "a table that is not there": (
        {"main": {"virtual_mailbox_maps": "hash:/nowhere/mailboxes"}},
        "table",
    ),
}


def test_other_header_checks_are_kept(site):
    """Nothing proposes to drop a whole table that has checks of the administrator in it."""
    table = site.folder / "header_checks"
    table.write_text("# mine\n/^X-Gm-Spam:/ IGNORE\n\n/^Subject: buy/ REJECT\n")
    inline = "regexp:{{/^X-Gm-Spam:/ IGNORE}, {/^Subject: buy/ REJECT}}"
    for each in (f"regexp:{table}", inline):
        site.reset(head="spam: gmail\n", main={"header_checks": each}, has_filter=False)
        (found,) = site.findings()
        assert found["check"] == "header-checks"
        assert "keep the others" in found["fix"]
        site.shell(found["fix"].partition("shows: ")[2])  # the entry is looked for only
        assert site.postfix.postconf("-h", "header_checks") == each
    table.write_text("# mine\n\n/^X-Gm-Spam:/ IGNORE\n")
    main = {"header_checks": f"regexp:{table}"}
    site.reset(head="spam: gmail\n", main=main, has_filter=False)
    site.repair()
    assert site.checks() == []


# Whose mending is left to a person.
BY_HAND = {
    "dead letters leave this host",
    "dead letters among spam",
    "dead letters that an alias sends to the target",
    "unrouted_to that leads back",
    "a copy for nobody",
    "twice",
    "recipients are verified by a class",
    "a table that is not there",
    "other milters for some",  # a command would take the exemptions away
}


@pytest.mark.parametrize("name", FAULTS)
def test_one_mistake_is_one_finding_and_its_command_mends_it(site, name):
    changes, expected = FAULTS[name]
    site.reset(**changes)
    assert site.checks() == ([expected] if isinstance(expected, str) else expected)
    if name not in BY_HAND:
        site.repair()
        assert site.findings() == []


RIGHT = {
    "added fields, and reports for nobody": {
        "text": ADDING,
        "main": {"smtpd_discard_ehlo_keywords": "etrn dsn"},
    },
    "our milter after others, through a variable": {
        "main": {"smtpd_milters": f"$dkim, {MILTER % 'tempfail'}", "dkim": OTHER},
    },
    "accept, where nothing is lost": {"main": {"smtpd_milters": MILTER % "accept"}},
    "shutdown": {"main": {"smtpd_milters": MILTER % "shutdown"}},
    "the entries in a table of one's own": {
        "aliases": f"{HELP} {IT}\n",
        "main": {"virtual_alias_maps": "texthash:$config_directory/virtual"},
    },
    "forged verdicts are stripped before a milter adds the true one": {
        "main": {
            "smtpd_milters": f"{OTHER}, {MILTER % 'tempfail'}",
            "header_checks": "regexp:{{/^X-Spam:/ IGNORE}}",
        }
    },
    "verification spares the address": {
        "main": {
            "smtpd_recipient_restrictions": "check_recipient_access"
            f" inline:{{{HELP}=OK}}, reject_unverified_recipient",
        }
    },
    "a table that has everybody": {"main": {"virtual_mailbox_maps": "static:all"}},
    "parameters by name": {"main": {"virtual_mailbox_domains": "$ours", "ours": "solarmora.com"}},
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_in_another_way_is_no_finding(site, name):
    site.reset(**RIGHT[name])
    assert site.findings() == []


def test_the_map_is_stale_missing_or_not_compiled(site):
    site.reset()
    source = site.postfix.config / "crm-milter-aliases"
    for spoil in (
        lambda: source.write_text(f"# old\n{HELP} boss@elsewhere.example\n"),
        source.unlink,
        source.with_name(source.name + ".db").unlink,
    ):
        spoil()
        assert site.checks() == ["map-stale"]
        site.repair()
        assert site.checks() == []


@pytest.mark.parametrize(
    "rest", ["", f"rules: [{{name: a, match: a@solarmora.com, replace_with: {CRM}}}]\n"]
)
def test_a_table_that_the_rules_would_empty(site, rest):
    """It is not called right, and the command asks for a look at the rules first."""
    three = "rules:\n" + "".join(
        f"  - {{name: r{n}, match: {n}@solarmora.com, replace_with: {CRM}}}\n" for n in range(9)
    )
    site.reset(three)
    head = site.yaml.read_text().partition("rules:")[0]
    site.yaml.write_text(head + rest)
    (found,) = site.findings()
    assert found["check"] == "map-stale"
    assert "check that no rule is missing" in found["fix"]
    assert "from 9 to" in found["fix"]
    site.repair()
    assert site.checks() == []


def test_the_socket_is_there_listens_and_may_be_used(site):
    site.reset()
    site.socket.chmod(0o600)
    (found,) = site.findings()
    assert found["check"] == "socket"
    assert 'the user "postfix"' in found["found"]
    site.repair()
    assert site.checks() == []
    moved = site.socket.with_name("moved")
    site.socket.rename(moved)
    assert site.checks() == ["socket"]
    moved.rename(site.socket)


def test_a_socket_outside_the_chroot(site):
    path = site.folder / "milter.sock"
    with planted.socket.socket(planted.socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o666)
        entry = f"{{ unix:{path}, default_action=tempfail }}"
        site.reset(main={"smtpd_milters": entry}, master=["9 inet n - y - - smtpd"])
        site.yaml.write_text(site.yaml.read_text().replace(str(site.socket), str(path)))
        (found,) = site.findings()
    assert found["check"] == "socket-path"
    assert '"9/inet"' in found["found"]


TWELVE = f"""
rules:
  - name: support
    match: {HELP}
    replace_with: support@crm.ours.example
  - name: sales
    match: sales@solarmora.com
    replace_with: {CRM}
    on_spam: reject
  - name: elsewhere
    match: help@elsewhere.example
    replace_with: {CRM}
"""


def test_twelve_planted_mistakes_are_twelve_findings(site):
    main = {
        "relay_domains": "ours.example",
        "smtpd_milters": "{ unix:crm-milter/milter.sock, content_timeout=2s,"
        f" default_action=accept }}, {OTHER}",
        "non_smtpd_milters": site.ours,
        "notify_classes": "resource",
        "enable_original_recipient": "no",
        "recipient_delimiter": "+",
    }
    site.reset(
        TWELVE,
        main,
        unrouted_to="nobody@solarmora.com",
        mailboxes=f"{IT} x\nsales@solarmora.com x\n",
        aliases=f"info@solarmora.com {HELP}\n",
        services={"submission": {"smtpd_milters": OTHER}},
    )
    assert site.checks() == sorted(
        [
            "address-domain",
            "real-account",
            "alias-member",
            "unrouted",
            "target-local",
            "milter-order",
            "milter-missing",
            "default-action",
            "timeout",
            "notify-classes",
            "original-recipient",
            "delimiter",
        ]
    )
    text = site.run("check", "--postfix")
    assert text.returncode == 1
    assert text.stdout.count("  why:  ") == text.stdout.count("  fix:  ") == 12
    assert text.stdout.endswith(": checked with Postfix: 10 errors, 2 warnings\n")


def test_a_postfix_that_is_not_there(site, tmp_path):
    site.reset()
    site.postfix.config.joinpath("main.cf").rename(tmp_path / "main.cf")
    done = site.run("check", "--postfix")
    assert done.returncode == 1
    assert done.stderr.startswith("crm-milter: ")
    assert "main.cf" in done.stderr


def test_check_without_postfix_in_json(site):
    site.reset()
    done = site.run("check", "--json")
    assert done.returncode == 0
    assert planted.json.loads(done.stdout)["findings"] == []


def test_a_socket_where_others_wait_to_be_accepted_is_listened_on(site):
    site.reset()
    waiting = []
    try:
        while len(waiting) < 10_000:
            waiting.append(socket.socket(socket.AF_UNIX))
            waiting[-1].setblocking(False)
            waiting[-1].connect(str(site.socket))
    except BlockingIOError:
        assert "socket" not in site.checks()
    else:
        pytest.fail("it never was full")
    finally:
        for each in waiting:
            each.close()


def test_a_domain_with_other_mail_stays(site):
    """The target is wrong, not the domain: without it all other mail there is rejected."""
    for target in ("boss@solarmora.com", "typo@solarmora.com"):
        site.reset(RULES.replace(CRM, target), mailboxes=f"{IT} x\nboss@solarmora.com x\n")
        (found,) = [each for each in site.findings() if each["check"] == "target-local"]
        assert "postconf" not in found["fix"]
        assert "replace the target" in found["fix"]


def test_no_message_may_be_larger_than_a_mailbox(site):
    """local(8) and virtual(8) deliver nothing then."""
    site.reset(RULES + "    max_size: 60M\n")
    (found,) = site.findings()
    assert found["check"] == "message-size"
    assert "postconf" not in found["fix"]
    site.yaml.write_text(site.yaml.read_text().replace("60M", "9M"))
    assert site.findings() == []


def test_a_wildcard_that_others_use_stays(site):
    site.reset(aliases="@solarmora.com boss@elsewhere.example\n")
    site.repair()
    text = (site.postfix.config / "virtual").read_text()
    assert text.split() == ["@solarmora.com", "boss@elsewhere.example", IT, IT]
