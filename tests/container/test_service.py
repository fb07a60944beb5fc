"""Our package on a mail host of Debian: installed, attached, and through all that may happen."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mailhost import CONFIG_FILE, HELP, SUPPORT, MailHost
from pods import Container, PodError, wait_for

FOLDER = "/var/spool/postfix/crm-milter"
SOCKET = f"{FOLDER}/milter.sock"
COMPLETE = """\
source /usr/share/bash-completion/completions/crm-milter
COMP_WORDS=(crm-milter "$@")
COMP_CWORD=$#
_shtab_crm_milter
echo "${COMPREPLY[@]}"
"""


@pytest.fixture(autouse=True)
def _fresh(host: MailHost) -> Iterator[None]:
    host.forget()
    yield
    host.run("systemctl", "reset-failed", "crm-milter", check=False)


def test_runs_as_soon_as_it_is_installed(host: MailHost, package: Path) -> None:
    host.install(package)
    assert host.show("ActiveState") == "active"
    assert "serving 0 rules" in host.status()
    assert host.run("systemctl", "is-enabled", "crm-milter").strip() == "enabled"
    # Nothing of Postfix's is changed before somebody says so.
    assert host.run("postconf", "-h", "smtpd_milters").strip() == ""
    assert host.status_of("crm-milter", "check") == 0
    assert "failed" not in host.run("systemctl", "is-system-running", check=False)


def test_bash_completes_what_the_help_lists(host: MailHost) -> None:
    """As the shtab of this release made the script."""

    def offered(*words: str) -> set[str]:
        return set(host.run("bash", "-c", COMPLETE, "bash", *words).split())

    listed = re.findall(r"(?m)^    ([a-z]+)", host.run("crm-milter", "--help"))
    assert len(listed) > 8
    assert offered("") == set(listed)
    assert offered("t") == {"test", "trace"}
    assert offered("attach", "--when-down", "") == {"tempfail", "accept"}
    assert offered("attach", "--when-down", "a") == {"accept"}
    assert offered("trace", "--fail") == {"--failing"}
    assert offered("check", "--config", "/etc/host") >= {"/etc/hosts", "/etc/hostname"}


def test_may_do_little_and_only_postfix_may_connect(host: MailHost) -> None:
    modes = host.run("stat", "-c", "%a %U %G", FOLDER, SOCKET, "/etc/crm-milter").splitlines()
    assert modes == ["2750 crm-milter postfix", "660 crm-milter postfix", "750 root crm-milter"]
    assert host.run("ps", "-o", "user=", "-p", host.show("MainPID")).strip().startswith("crm-mil")
    assert host.run("id", "-nG", "crm-milter").split() == ["crm-milter"]


def test_the_sandbox_is_in_force(host: MailHost) -> None:
    """Each namespace is its own, and what the unit hides is hidden."""
    pid = host.show("MainPID")
    for kind in ("mnt", "user"):
        own, first = (host.run("readlink", f"/proc/{each}/ns/{kind}") for each in (pid, "1"))
        assert own != first
    inside = ("nsenter", "--mount", "--target", pid)
    assert host.run(*inside, "ls", "/home", "/root", check=False).split() == ["/home:", "/root:"]
    assert host.status_of(*inside, "touch", "/etc/crm-milter/written") != 0
    assert host.status_of(*inside, "touch", "/usr/written") != 0


def test_systemd_finds_nothing_wrong_with_the_unit(host: MailHost) -> None:
    unit = "/lib/systemd/system/crm-milter.service"
    assert host.run("systemd-analyze", "verify", "--man=no", unit) == ""
    # The exposure in tenths, at most.
    host.run("systemd-analyze", "security", "--offline=true", "--threshold=11", unit)


def test_routes_mail_from_outside_once_it_is_attached(attached: MailHost) -> None:
    assert attached.run("crm-milter", "check", "--postfix").endswith(
        "OK, Postfix configuration included\n"
    )
    assert attached.send(name="first")["code"] == 250
    (to,) = attached.wait_for_crm("first")["to"]
    assert to.partition(" ")[0] == f"<{SUPPORT}>"
    assert "NOTIFY=NEVER" in to
    assert f"rerouted: to=<{HELP}> new=<{SUPPORT}> rule=support" in attached.journal()
    assert "crm_milter_messages_total" in scraped(attached)
    assert attached.run("stat", "-c", "%a", "/etc/postfix/crm-milter-aliases").strip() == "644"


def test_deliveries_are_read_from_the_journal(attached: MailHost) -> None:
    """As the unit lets it: the service may read what Postfix writes there."""
    assert attached.send(name="followed")["code"] == 250
    attached.wait_for_crm("followed")
    sent = re.compile(
        r'crm_milter_deliveries_total\{(?=.*kind="target")(?=.*outcome="sent")[^}]*\} [1-9]'
    )
    wait_for("the delivery", lambda: sent.search(scraped(attached)), 30)
    assert "crm_milter_delivery_log_readable 1.0" in scraped(attached)


def scraped(host: MailHost) -> str:
    page = "urllib.request.urlopen('http://127.0.0.1:9894/metrics').read().decode()"
    scrape = f"import urllib.request; print({page})"
    return host.run("python3", "-c", scrape)


def test_smtpd_is_in_its_chroot(attached: MailHost) -> None:
    assert attached.run("postconf", "-M", "smtp/inet").split()[4] == "y"


def test_a_bad_file_fails_the_reload_and_changes_nothing(attached: MailHost) -> None:
    good = attached.read(CONFIG_FILE)
    table = attached.read("/etc/postfix/crm-milter-aliases")
    attached.write(CONFIG_FILE, good.replace("replace_with", "replase_with"))
    try:
        with pytest.raises(PodError, match="failed"):
            attached.run("systemctl", "reload", "crm-milter")
        status = attached.status()
        assert "active (running)" in status
        assert 'did you mean "replace_with"?' in status
        assert attached.read("/etc/postfix/crm-milter-aliases") == table
        assert attached.send(name="old-rules")["code"] == 250
        attached.wait_for_crm("old-rules")
    finally:
        attached.configure(good)


def test_reloads_and_restarts_under_load_lose_nothing(attached: MailHost) -> None:
    with attached.load() as load:
        for _ in range(5):
            attached.run("systemctl", "reload", "crm-milter")
            time.sleep(0.5)
        for _ in range(2):
            attached.run("systemctl", "restart", "crm-milter", timeout=120)
            time.sleep(1)
    load.prove(attached)


def test_reloads_alone_are_not_noticed(attached: MailHost) -> None:
    with attached.load() as load:
        for _ in range(5):
            attached.run("systemctl", "reload", "crm-milter")
            time.sleep(0.5)
    load.prove(attached)
    assert set(load.replies) == {"250"}


def test_killed_it_is_missed_and_comes_again(attached: MailHost) -> None:
    before = attached.show("MainPID")
    with attached.load() as load:
        attached.run("systemctl", "kill", "--signal=KILL", "--kill-who=all", "crm-milter")
        reply = attached.send(name="during")
        wait_for("a new process", lambda: attached.show("MainPID") not in ("0", before))
        wait_for("the service", lambda: attached.show("ActiveState") == "active")
        time.sleep(2)
    # systemd has the socket: a session that begins meanwhile waits, one that was open gets 451.
    assert reply["code"] == 250
    attached.wait_for_crm("during")
    load.accepted.append("during")
    load.prove(attached)


def test_stopped_with_accept_the_mailbox_gets_it(attached: MailHost) -> None:
    attached.run("crm-milter", "attach", "--yes", "--when-down", "accept")
    try:
        attached.run("systemctl", "stop", "crm-milter")
        assert attached.send(name="unrouted")["code"] == 250
        attached.wait_for_mailbox("unrouted")
        assert not [each for each in attached.at_crm() if each["id"] == "unrouted"]
    finally:
        attached.run("systemctl", "start", "crm-milter")
        wait_for("the service", lambda: attached.show("ActiveState") == "active")
        attached.run("crm-milter", "attach", "--yes")


def test_the_queue_survives_a_reboot(attached: MailHost, crm: Container) -> None:
    attached.write("/etc/postfix/transport", ".my-crm.com smtp:[127.0.0.1]:9\n")
    attached.run("postfix", "reload")
    assert attached.send(name="waiting")["code"] == 250
    wait_for("a deferred mail", attached.queue)
    attached.reboot()  # which puts the transport right
    assert attached.show("ActiveState") == "active"
    attached.run("postqueue", "-f")
    attached.wait_for_crm("waiting")
    assert attached.send(name="rebooted")["code"] == 250
    attached.wait_for_crm("rebooted")


def test_an_upgrade_under_load_loses_nothing(attached: MailHost, newer_package: Path) -> None:
    before = attached.read(CONFIG_FILE)
    with attached.load() as load:
        attached.install(newer_package)
        time.sleep(1)
    load.prove(attached)
    assert attached.run("crm-milter", "--version").startswith("crm-milter 9")
    assert attached.show("ActiveState") == "active"
    assert attached.read(CONFIG_FILE) == before
    assert attached.run("crm-milter", "check", "--postfix").endswith(
        "OK, Postfix configuration included\n"
    )


def test_a_purge_leaves_postfix_as_it_was(attached: MailHost) -> None:
    attached.run("apt-get", "-q", "-y", "purge", "crm-milter", timeout=120)
    assert attached.run("postconf", "-n") == attached.before
    left = attached.run(
        "sh", "-c", "find /etc /var/lib/systemd /var/spool /usr /run -name '*crm-milter*' || true"
    )
    assert left == ""
    assert attached.status_of("getent", "passwd", "crm-milter") != 0
    assert attached.send("it@solarmora.com", name="as-before")["code"] == 250
    attached.wait_for_mailbox("as-before")
    assert attached.send(HELP)["code"] == 550
