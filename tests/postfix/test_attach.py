"""attach and detach: a real Postfix before, with and without our milter, which is up or down."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from attaching import CONFIG, CRM, FOLDED, MESSAGE, OTHER, Site, attach, attachable, main_cf
from planted import HELP, IT, RULES


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    services = {"submission": {"smtpd_milters": OTHER, "mynetworks": "127.0.0.0/8"}}
    with attachable(services=services) as site:
        yield site


def test_attach_then_detach_leaves_both_files_byte_identical(site):
    before = site.restore()
    done = attach(site)
    assert done.returncode == 0, done
    assert "+smtpd_milters = { unix:" in done.stdout
    assert "test session reached the milter\nattached\n" in done.stdout
    assert site.findings() == []
    assert site.arrives() == [CRM]
    kept = site.postfix.config / "crm-milter-attached" / "main.cf"
    assert kept.read_bytes() == before["main.cf"]
    site.yaml.write_text("detaching needs: no configuration\n")
    done = site.run("detach", "--yes")
    assert done.returncode == 0, done
    assert site.texts() == before
    assert not kept.parent.exists()
    assert site.arrives() == [HELP]


def test_all_rules_in_test_mode(site):
    """It works, says what it means, and what a live rule needs comes with the next attach."""
    before = site.restore(CONFIG.rstrip() + "\n    mode: test\n")
    site.milter.stop()
    site.milter.start()
    done = attach(site)
    assert done.returncode == 0, done
    assert "all rules are in test mode: no mail changes its way" in done.stdout
    assert site.arrives() == [HELP]
    site.milter.wait_log("would_reroute: ")
    assert site.findings() == []
    site.milter.configure(CONFIG)
    site.milter.stop()
    site.milter.start()
    done = attach(site)
    assert done.returncode == 0, done
    assert "all rules are in test mode" not in done.stdout
    assert site.arrives() == [CRM]
    assert site.run("detach", "--yes").returncode == 0
    assert site.texts() == before


@pytest.mark.parametrize("main", ["", "bounce_size_limit = 0 ", "bounce_size_limit = 20480000"])
def test_reports_will_hold_whole_messages_and_the_limit_comes_back(site, main):
    before = site.restore(CONFIG + f"dead_letters: {IT}\n", main)
    done = attach(site)
    assert done.returncode == 0, done
    is_enough = "20480000" in main
    assert ("+bounce_size_limit = 10240000\n" in done.stdout) is not is_enough
    assert [each for each in site.checks() if each != "dead-letters-shared"] == []
    assert site.run("detach", "--yes").returncode == 0
    assert site.texts() == before


@pytest.mark.parametrize("main", [FOLDED, FOLDED.replace("# the end", ""), "smtpd_milters ="])
def test_existing_milters_stay_first_and_come_back_as_they_were(site, main):
    before = site.restore(main=main)
    assert attach(site).returncode == 0
    assert site.findings() == []
    if "opendkim" in main:
        assert f"smtpd_milters = $opendkim, {OTHER}, {{ unix:" in main_cf(site)
        assert "non_smtpd_milters = $smtpd_milters\n" in main_cf(site)
    assert site.run("detach", "--yes").returncode == 0
    assert site.texts() == before


def test_attach_again_changes_nothing_but_when_down(site):
    before = site.restore(main=FOLDED)
    attach(site)
    attached = site.texts()
    done = attach(site)
    assert (done.returncode, done.stdout) == (
        0,
        "test session reached the milter\nalready attached, nothing to do\n",
    )
    assert site.texts() == attached
    done = attach(site, "--when-down", "accept")
    assert done.returncode == 0, done
    assert main_cf(site) == attached["main.cf"].decode().replace("=tempfail", "=accept")
    assert site.findings() == []
    assert site.run("detach", "--yes").returncode == 0
    assert site.texts() == before


def test_with_tempfail_mail_waits_while_the_milter_is_down(site):
    site.restore()
    attach(site, "--when-down", "tempfail")
    site.milter.stop()
    sent = site.lab.send("<anna@customer.example>", [f"<{HELP}>"], MESSAGE).sent
    assert sent.reply.code == 451
    site.milter.start()
    assert site.arrives() == [CRM]


def test_with_accept_mail_goes_to_unrouted_to_while_the_milter_is_down(site):
    site.restore()
    assert attach(site, "--when-down", "accept").returncode == 0
    site.milter.stop()
    assert site.arrives() == [IT]
    site.milter.start()
    assert site.arrives() == [CRM]


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (RULES + "    on_spam: reject\n", 'rule "support" has on_spam: reject'),
        (RULES + "    on_spam: discard\n", 'rule "support" has on_spam: discard'),
        (
            RULES + "    max_size: 1M\n    on_oversize: reject\n",
            'rule "support" has on_oversize: reject',
        ),
        (RULES.replace("help@", "help-*@"), 'rule "support" matches "help-*@solarmora.com"'),
    ],
)
def test_accept_is_refused_where_it_would_lose_mail(site, rule, reason):
    before = site.restore(f"unrouted_to: {IT}\nspam: rspamd\n{rule}")
    done = attach(site, "--when-down", "accept")
    assert done.returncode == 1
    assert "crm-milter: --when-down accept would lose or change mail: " in done.stderr
    assert reason in done.stderr
    assert site.texts() == before


def test_detach_leaves_what_others_changed(site):
    site.restore(main=FOLDED)
    attach(site)
    path = site.postfix.config / "main.cf"
    text = path.read_text().replace("# the end", "myhostname = new.example")
    text = text.replace("default_action=tempfail }", "default_action=tempfail }, inet:127.0.0.1:7")
    path.write_text(text)
    master = site.postfix.config / "master.cf"
    master.write_text(master.read_text() + "# added\n")
    site.age()
    assert site.run("detach", "--yes").returncode == 0
    after = main_cf(site)
    assert "myhostname = new.example\n" in after
    assert f"smtpd_milters = $opendkim, {OTHER}, inet:127.0.0.1:7\n" in after
    assert "crm-milter" not in after
    assert str(site.milter.folder) not in after
    assert "notify_classes" not in after
    texts = site.texts()
    assert texts["master.cf"].endswith(b"# added\n")
    assert str(site.milter.folder).encode() not in texts["master.cf"]


def test_what_does_not_work_is_rolled_back(site, monkeypatch):
    monkeypatch.setattr("crm_milter.postfix.attach.proof.PATIENCE", 0.5)
    before = site.restore()
    site.milter.socket.chmod(0o600)
    done = attach(site)
    site.milter.socket.chmod(0o666)
    assert done.returncode == 1
    assert "rolled back: no session reaches the milter" in done.stdout
    assert "451" in done.stdout
    assert site.texts() == before
    assert not (site.postfix.config / "crm-milter-attached").exists()
    assert site.arrives() == [HELP]


def test_a_milter_that_is_not_there_is_not_attached(site):
    before = site.restore()
    site.milter.stop()
    done = attach(site)
    assert done.returncode == 1
    assert "start crm-milter first" in done.stderr
    assert site.texts() == before


def test_the_change_is_shown_and_asked_for(site, monkeypatch, tmp_path):
    before = site.restore()
    (tmp_path / "answer").write_text("n\n")
    with (tmp_path / "answer").open() as answer:
        monkeypatch.setattr("sys.stdin", answer)
        done = site.run("attach")
    assert done.returncode == 1
    assert done.stderr.endswith("crm-milter: apply these changes? [y/N]\n")
    assert f"+++ {site.postfix.config}/main.cf (new)\n" in done.stdout
    assert "crm-milter-aliases: 1 entries" in done.stdout
    assert done.stdout.endswith("nothing was changed\n")
    assert site.texts() == before


def test_detach_without_attach(site):
    before = site.restore()
    done = site.run("detach", "--yes")
    assert done.returncode == 0
    assert done.stdout.startswith("nothing to detach: ")
    assert site.texts() == before


def test_behind_an_after_queue_filter(site):
    back = f"127.0.0.1:{site.postfix.ports['submission']}/inet"
    main = "content_filter = smtp:[127.0.0.1]:10024\nreceive_override_options = no_milters\n"
    before = site.restore(CONFIG.replace("rspamd", "amavis"), main)
    overrides = ("content_filter=", "smtpd_milters=", "receive_override_options=no_milters")
    for each in overrides:
        site.postfix.run("postconf", "-P", f"{back}/{each}")
    site.age()
    before["master.cf"] = site.texts()["master.cf"]
    done = attach(site)
    assert done.returncode == 0, done
    assert site.findings() == []
    settings = site.postfix.postconf("-P")
    assert f"{back}/smtpd_milters = {{unix:{site.milter.socket},connect_timeout=10s," in settings
    assert "no_address_mappings" in site.postfix.postconf("-h", "receive_override_options")
    assert site.run("detach", "--yes").returncode == 0
    assert site.texts() == before


def test_a_socket_that_the_chroot_hides(site):
    before = site.restore()
    master = site.postfix.config / "master.cf"
    master.write_bytes(before["master.cf"] + b"9 inet n - y - - smtpd\n")
    site.age()
    done = attach(site)
    assert done.returncode == 1
    assert '"9/inet" runs in the chroot' in done.stderr
    assert Path(site.postfix.folder / "queue/crm-milter/milter.sock").as_posix() in done.stderr


def test_an_option_over_several_lines_is_refused_with_what_to_do(site):
    site.restore()
    master = site.postfix.config / "master.cf"
    first, rest = master.read_text().split("\n", 1)
    milters = "{ inet:127.0.0.1:9, default_action=accept, connect_timeout=1s }"
    folded = f"{first}\n  -o {{ smtpd_milters =\n    {milters} }}\n{rest}"
    master.write_text(folded)
    site.age()
    done = attach(site)
    assert done.returncode == 1
    assert "write that option on one line, -o { smtpd_milters = value }" in done.stderr
    assert master.read_text() == folded
    master.write_text(f"{first}\n  -o {{ smtpd_milters = {milters} }}\n{rest}")
    site.age()
    assert attach(site).returncode == 0
    assert site.arrives() == [CRM]
