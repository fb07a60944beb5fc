"""`check --postfix` beside content filters: where our milter belongs, and what must not be."""

import pytest
from planted import Planted

SPAM_MILTER = "inet:127.0.0.1:11332"
BACK = {"content_filter": "", "receive_override_options": "no_unknown_recipient_checks"}
AMAVIS = {
    "content_filter": "smtp-amavis:[127.0.0.1]:10024",
    "receive_override_options": "no_address_mappings",
    "smtpd_milters": "",
    "non_smtpd_milters": "",
}


def amavis(site: Planted, main: dict[str, str] | None = None, **back: str) -> None:
    """The way of README.postfix of amavis, our milter behind the filter; `back` changes that."""
    site.reset(
        main={**AMAVIS, **(main or {})},
        head="spam: amavis\n",
        services={"back": {**BACK, "smtpd_milters": site.ours, **back}},
    )


def test_an_after_queue_filter(site):
    amavis(site)
    assert site.findings() == []


def test_our_milter_before_the_filter(site):
    amavis(site, {"smtpd_milters": site.ours}, smtpd_milters="")
    assert site.checks() == ["content-filter", "milter-missing"]
    site.repair()
    assert site.findings() == []


def test_no_milters_behind_the_filter(site):
    amavis(site, receive_override_options="no_unknown_recipient_checks,no_milters")
    assert site.checks() == ["milter-missing"]
    site.repair()
    assert site.findings() == []


def test_aliases_expanded_before_the_filter(site):
    amavis(site, {"receive_override_options": ""})
    assert site.checks() == ["address-mappings"]
    site.repair()
    assert site.findings() == []


def test_aliases_expanded_nowhere(site):
    amavis(site, receive_override_options="no_address_mappings")
    assert site.checks() == ["address-mappings"]
    site.repair()
    assert site.findings() == []


def test_verdict_stripped_on_its_way_back(site):
    strip = {"header_checks": "regexp:{{/^X-Spam-Flag:/ IGNORE}}"}
    amavis(site, strip)
    assert site.checks() == ["header-checks"]
    site.repair()
    assert site.findings() == []
    amavis(site, strip, receive_override_options="no_header_body_checks")
    assert site.findings() == []


def test_the_checks_stay_on_behind_the_filter_if_they_are_off_before_it(site):
    """Otherwise the advice would switch off all header_checks and body_checks of the host."""
    off = "no_address_mappings,no_header_body_checks"
    strip = {"header_checks": "regexp:{{/^X-Spam-Flag:/ IGNORE}}"}
    amavis(site, {**strip, "receive_override_options": off})
    (finding,) = site.findings()
    assert finding["check"] == "header-checks"
    assert "remove the entry" in finding["fix"]
    assert "no_header_body_checks" not in finding["fix"]
    site.repair()
    assert site.findings() == []


def test_milter_header_checks_behind_the_filter_are_not_switched_off_by_an_option(site):
    strip = {"milter_header_checks": "regexp:{{/^X-Spam-Flag:/ IGNORE}}"}
    amavis(site, strip, smtpd_milters=f"{SPAM_MILTER}, {site.ours}")
    (finding,) = site.findings()
    assert "no_header_body_checks" not in finding["fix"]
    site.repair()
    assert site.findings() == []


def test_a_filter_that_gives_no_verdict(site):
    main = {
        "content_filter": "archive:[127.0.0.1]:10024",
        "smtpd_milters": f"{SPAM_MILTER}, {site.ours}",
    }
    site.reset(main=main, services={"back": {**BACK, "smtpd_milters": ""}})
    assert site.findings() == []


def test_a_before_queue_filter(site):
    proxy = {"smtpd_proxy_filter": "127.0.0.1:10024"}
    site.reset(main=proxy, services={"back": {"smtpd_proxy_filter": ""}})
    assert site.findings() == []
    back = {"smtpd_proxy_filter": "", "smtpd_milters": ""}
    site.reset(main=proxy, services={"back": back})
    assert site.checks() == ["milter-missing"]
    site.repair()
    assert site.findings() == []


def test_a_before_queue_filter_that_hands_nothing_back(site):
    site.reset(services={"sub": {"smtpd_proxy_filter": "10.0.0.1:10024"}})
    (finding,) = site.findings()
    assert finding["check"] == "proxy-filter"
    assert "postconf" not in finding["fix"]  # the filter stays on


@pytest.mark.parametrize("own", ["syslog_name", "cleanup_service_name", "milter_macro_daemon_name"])
def test_a_before_queue_filter_whose_way_back_has_other_options(site, own):
    proxy = {"smtpd_proxy_filter": "127.0.0.1:10080"}
    back = f"127.0.0.1:10025 inet n - n - 10 smtpd\n  -o {own}=cleanup"
    site.reset(services={"sub": proxy}, master=[back])
    assert "proxy-filter" not in site.checks()
