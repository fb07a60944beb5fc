"""`check --postfix` finds the spam filter itself: which milter or content filter can be it."""

import pytest
from planted import Planted

DKIM = "inet:127.0.0.1:8891"
PIPE = "{} unix - n n - - pipe\n  flags=Rq user=nobody argv={} -e /usr/sbin/sendmail"


def reset(site: Planted, spam: str, milters: list[str], main: dict[str, str], *master: str) -> None:
    value = ", ".join([*milters, site.ours])
    site.reset(
        head=f"spam: {spam}\n",
        main={"smtpd_milters": value, **main},
        master=master,
        has_filter=False,
    )


FOUND = {
    "rspamd by its port": ("rspamd", ["inet:localhost:11332"]),
    "rspamd by its path": ("rspamd", ["unix:/run/rspamd/milter.sock"]),
    "rspamd in a container": ("rspamd-headers", ["inet:rspamd-mailcow:9900"]),
    "spamass-milter": ("spamassassin", ["unix:spamass/spamass.sock"]),
    "rspamd that writes the fields of another": ("spamassassin", ["inet:rspamd:11332"]),
    "in braces": ("rspamd", ["{ inet:127.0.0.1:11332, default_action=accept }"]),
    "next to OpenDKIM": ("rspamd", [DKIM, "inet:127.0.0.1:11332"]),
    "bogofilter": ("bogofilter", ["unix:/run/bogom.sock"]),
}


@pytest.mark.parametrize("name", FOUND)
def test_the_filter_is_found(site, name):
    reset(site, *FOUND[name], {})
    assert site.findings() == []


# Nothing here writes a verdict; what the finding has to name.
NONE = {
    "no milter": ("rspamd", [], ""),
    "OpenDKIM by its port": ("rspamd", [DKIM], "OpenDKIM"),
    "OpenDKIM by its socket": ("spamassassin", ["unix:opendkim/opendkim.sock"], "OpenDKIM"),
    "OpenDMARC": ("rspamd", ["unix:/run/opendmarc/opendmarc.sock"], "OpenDMARC"),
    "a virus scanner": ("rspamd", ["unix:/clamav/clamav-milter.ctl"], "clamav-milter"),
    "greylisting": ("rspamd", ["unix:/run/milter-greylist/milter-greylist.sock"], "greylist"),
    "another filter": ("rspamd", ["unix:/run/bogom.sock"], "bogofilter"),
}


@pytest.mark.parametrize("name", NONE)
def test_nothing_writes_the_fields(site, name):
    spam, milters, told = NONE[name]
    reset(site, spam, milters, {})
    (finding,) = site.findings()
    assert finding["check"] == "spam-filter"
    assert "nothing before crm-milter" in finding["found"]
    assert told in finding["found"]


def test_the_filter_that_is_there_is_proposed(site):
    reset(site, "rspamd", ["unix:/run/bogom.sock"], {})
    (finding,) = site.findings()
    assert "set spam: bogofilter" in finding["fix"]


@pytest.mark.parametrize("milter", ["inet:127.0.0.1:9", "unix:/run/filter.sock", "inet:mx:7777"])
def test_a_milter_that_may_be_anything_is_called_unknown(site, milter):
    reset(site, "rspamd", [milter], {})
    (finding,) = site.findings()
    assert finding["check"] == "spam-filter"
    assert finding["found"].startswith("it is unknown whether")
    assert milter in finding["found"]


def test_crm_milter_itself_is_not_taken_for_the_filter(site):
    # Behind a filter, as the second service looks, the milters of the first have seen the mail.
    behind = {"sub": {"mynetworks": "127.0.0.0/8"}}
    site.reset(head="spam: rspamd\n", services=behind, has_filter=False)
    (finding,) = site.findings()
    assert finding["found"].startswith("nothing before crm-milter")


@pytest.mark.parametrize("spam", ["microsoft", "gmail", "barracuda", "proofpoint"])
def test_a_gateway_is_not_looked_for(site, spam):
    reset(site, spam, [], {})
    assert site.findings() == []


# OpenDKIM does not judge spam: the verdict comes with the content filter, however it is named.
FILTER = "FILTER spamassassin:dummy"
EARLY = {
    "content_filter": {"content_filter": "spamassassin:"},
    "an access table": {
        "smtpd_client_restrictions": f"check_client_access static:{{{{{FILTER}}}}}"
    },
    "patterns of senders": {
        "smtpd_sender_restrictions": f"check_sender_access regexp:{{{{{{{{/^/ {FILTER}}}}}}}}}"
    },
    "networks": {
        "smtpd_client_restrictions": f"check_client_access cidr:{{{{{{{{0.0.0.0/0 {FILTER}}}}}}}}}"
    },
    "header_checks": {"header_checks": f"regexp:{{{{{{{{/./ {FILTER}}}}}}}}}"},
}


@pytest.mark.parametrize("name", EARLY)
def test_opendkim_is_not_taken_for_the_filter(site, name):
    pipe = PIPE.format("spamassassin", "/usr/bin/spamc")
    reset(site, "spamassassin", [DKIM], EARLY[name], pipe)
    assert "content-filter" in site.checks()


def test_a_filter_by_what_its_pipe_runs(site):
    main = {"content_filter": "scan:"}
    reset(site, "spamassassin", ["inet:127.0.0.1:9"], main, PIPE.format("scan", "/usr/bin/spamc"))
    assert "content-filter" in site.checks()


@pytest.mark.parametrize(
    ("command", "expected"),
    [("/usr/bin/spamc", []), ("/usr/local/bin/scan", ["it is unknown whether"])],
)
def test_a_filter_that_hands_everything_back_by_sendmail(site, command, expected):
    main = {
        "smtpd_milters": "",
        "content_filter": "scan:",
        "receive_override_options": "no_address_mappings",
        "non_smtpd_milters": site.ours,
    }
    reset(site, "spamassassin", [], main, PIPE.format("scan", command))
    found = [each["found"] for each in site.findings()]
    assert len(found) == len(expected)
    assert all(map(str.startswith, found, expected))


def test_a_filter_that_gets_some_mail_only(site):
    table = f"inline:{{{{ {{{{big.example = {FILTER}}}}} }}}}"
    main = {"smtpd_sender_restrictions": f"check_sender_access {table}"}
    pipe = PIPE.format("spamassassin", "/usr/bin/spamc")
    reset(site, "spamassassin", [DKIM], main, pipe)
    found = {each["check"]: each for each in site.findings()}
    assert "sends some mail" in found["content-filter"]["found"]


@pytest.mark.parametrize("kind", ["sqlite", "socketmap", "proxy", "pipe"])
def test_a_table_that_may_send_mail_to_a_filter_is_called_unknown(site, kind):
    """What an access table in a database answers for each client cannot be listed."""
    table = {
        "sqlite": f"sqlite:{site.folder}/access.cf",
        "socketmap": "socketmap:inet:127.0.0.1:9:access",
        "proxy": f"proxy:sqlite:{site.folder}/access.cf",
        "pipe": "tcp:127.0.0.1:9",
    }[kind]
    (site.folder / "access.cf").write_text("dbpath = /nowhere\nquery = SELECT 1\n")
    reset(site, "rspamd", [DKIM], {"smtpd_client_restrictions": f"check_client_access {table}"})
    (finding,) = [each for each in site.findings() if each["check"] == "spam-filter"]
    assert finding["found"].startswith("it is unknown whether")
    assert table in finding["found"]


CLASS = {"smtpd_restriction_classes": "some"}
BY_CLASS = {
    "a class that an access table names": {
        **CLASS,
        "some": "check_policy_service unix:private/scan",
        "smtpd_recipient_restrictions": "check_recipient_access inline:{solarmora.com=some}",
    },
    "a class that a restriction names": {
        **CLASS,
        "some": "check_sender_access sqlite:/nowhere/access.cf",
        "smtpd_sender_restrictions": "some",
    },
    "a policy service": {
        "smtpd_end_of_data_restrictions": "check_policy_service inet:127.0.0.1:10031"
    },
    "a policy service with settings": {
        "smtpd_data_restrictions": "check_policy_service { inet:127.0.0.1:10031, timeout=10s }"
    },
    "a policy service beside one for greylisting": {
        "smtpd_client_restrictions": "check_policy_service unix:postgrey/socket,"
        " check_policy_service inet:127.0.0.1:10031"
    },
}


@pytest.mark.parametrize("name", BY_CLASS)
def test_what_may_answer_filter_is_called_unknown(site, name):
    reset(site, "rspamd", [DKIM], BY_CLASS[name])
    (finding,) = [each for each in site.findings() if each["check"] == "spam-filter"]
    assert finding["found"].startswith("it is unknown whether")
    server = {"a class that a restriction names": "sqlite:/nowhere/access.cf"}.get(name, "")
    assert (server or ("private/scan" if "table" in name else "10031")) in finding["found"]
    assert "postgrey" not in finding["found"]


@pytest.mark.parametrize("server", ["unix:postgrey/socket", "unix:private/policyd-spf"])
def test_a_policy_service_that_filters_no_content(site, server):
    main = {"smtpd_recipient_restrictions": f"check_policy_service {server}"}
    reset(site, "rspamd", [DKIM], main)
    (finding,) = site.findings()
    assert finding["found"].startswith("nothing before crm-milter")


def test_a_class_that_sends_mail_to_the_filter(site):
    main = {
        **CLASS,
        "some": f"check_sender_access static:{{{{{FILTER}}}}}",
        "smtpd_sender_restrictions": "some",
    }
    pipe = PIPE.format("spamassassin", "/usr/bin/spamc")
    reset(site, "spamassassin", [DKIM], main, pipe)
    assert "content-filter" in site.checks()
