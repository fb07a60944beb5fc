"""Kinds of mail host (hosts.py): checked, attached, used and detached, to the byte."""

import re
import time
from collections.abc import Callable, Iterator

import pytest
from attaching import CONFIG, CRM, MESSAGE, Site, attachable
from hosts import HOSTS, Host
from planted import HELP, IT, Done

from crm_milter.postfix.attach import proof as probe
from crm_milter.postfix.postconf import Postconf
from crm_milter.postfix.traces import Ours


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with attachable(services={"submission": {}, "back": {}}) as site:
        yield site


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(probe, "PATIENCE", 1.0)


def make(site: Site, host: Host) -> dict[str, bytes]:
    """Turn the Postfix into such a host; its files."""
    main = "".join(f"{name} = {value}\n" for name, value in host.main.items())
    before = site.restore(CONFIG.replace("rspamd", host.spam), main)
    own = host.master.format(**site.postfix.ports)
    replaced = {" ".join(line.split()[:2]) for line in own.splitlines() if line[:1].strip()}
    kept = [
        line
        for line in before["master.cf"].decode().splitlines(keepends=True)
        if " ".join(line.split()[:2]) not in replaced and " inet " not in line
    ]
    (site.postfix.config / "master.cf").write_text(own + "".join(kept))
    site.age()
    return site.texts()


def attached(site: Site, host: Host) -> Done:
    done = site.run("attach", "--yes")
    if not host.unproved:
        return done
    assert done.returncode == 1, done
    assert host.unproved in done.stdout, done
    assert "rolled back: not proved" in done.stdout, done
    return site.run("attach", "--yes", "--no-proof")


def arrived(site: Site, by: str) -> list[str]:
    if by != "sendmail":
        return site.lab.send("<a@customer.example>", [f"<{HELP}>"], MESSAGE, service=by).recipients
    site.postfix.sendmail("-f", "a@customer.example", HELP, stdin=MESSAGE)
    return [entry.recipient for entry in site.lab.sink.wait(1)]


def times(site: Site) -> dict[str, int]:
    """How often each service asks the milter."""
    postconf = Postconf(site.postfix.config)
    ours = Ours([], f"unix:{site.milter.socket}", postconf)
    return {
        f"{name} of {each.label}": sum(map(ours, _items(postconf.value(name, each))))
        for name, program in (("smtpd_milters", "smtpd"), ("non_smtpd_milters", "cleanup"))
        for each in postconf.running_as(program)
    }


def _items(value: str) -> list[str]:
    from crm_milter.postfix.postconf import split_list

    return split_list(value)


SPAM = b"X-Spam: Yes\nX-Spam-Flag: YES\nX-Spam-Status: Yes, score=9\n" + MESSAGE
NOBODYS = "bob@solarmora.com"


def mail_flows(site: Site, host: Host) -> None:
    """Mail of each class goes where it should: to the CRM, to unrouted_to, past the rules."""
    if not host.by:
        return
    assert CRM in arrived(site, host.by)
    if host.by == "sendmail":
        return
    for rcpt, message, expected in ((HELP, SPAM, IT), (NOBODYS, MESSAGE, NOBODYS)):
        sent = site.lab.send("<a@customer.example>", [f"<{rcpt}>"], message, service=host.by)
        assert sent.recipients == [expected]


def is_followed(site: Site, host: Host) -> None:
    """verify and trace see it, each by its own way."""
    logs = [str(each) for each in (site.postfix.maillog.path, site.milter.logfile.path)]
    if host.by not in ("", "sendmail"):
        server = f"127.0.0.1:{site.postfix.ports[host.by]}"
        done = site.run("verify", HELP, "--yes", "--timeout", "20", "--via", server, "--log", *logs)
        assert done.returncode == 0, done
        assert f"arrived: <{CRM}>" in done.stdout
        done = site.run("trace", HELP, "--log", *logs)
        assert (done.returncode, CRM in done.stdout) == (0, True), done


MOST = 10.0  # seconds that a check may take; it takes much less


def check_takes(site: Site, record: Callable[[str, object], None]) -> None:
    started = time.monotonic()
    assert site.run("check", "--postfix").returncode in (0, 1)
    took = time.monotonic() - started
    assert took < MOST
    record("seconds of check", f"{took:.2f}")


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_is_attached_and_comes_back_to_the_byte(site, name, record_property):
    host = HOSTS[name]
    before = make(site, host)
    check_takes(site, record_property)
    done = attached(site, host)
    if host.refused:
        assert done.returncode == 1
        assert host.refused in done.stderr
        assert site.texts() == before
        return
    assert done.returncode == 0, done.stdout[-700:] + done.stderr[-300:]
    text = "".join(data.decode() for key, data in site.texts().items() if key.endswith(".cf"))
    for each in host.expected:
        assert each in text
    assert max(times(site).values()) == 1, times(site)
    assert [each for each in site.findings() if each["severity"] == "error"] == []
    mail_flows(site, host)
    is_followed(site, host)
    done = site.run("detach", "--yes")
    assert done.returncode == 0, done.stdout[-700:] + done.stderr[-300:]
    assert site.texts() == before


COMMANDS = ("postconf ", "crm-milter ", "postmap ", "postalias ", "newaliases", "sed ", "printf ")


RELOAD = re.compile(r" && postfix -c \S+ reload$")


def follow(site: Site) -> int:
    """Do what the findings say as commands; how many there were. One reload is enough for all."""
    fixes = [each["fix"] for each in site.findings() if each["fix"].startswith(COMMANDS)]
    for each in fixes:
        command = RELOAD.sub("", each)
        site.shell(command)
        site.age()
    if fixes:
        site.postfix.take_up()
    return len(fixes)


@pytest.mark.parametrize("name", [name for name, host in HOSTS.items() if not host.refused])
def test_every_piece_of_advice_is_followed_and_mail_flows(site, name):
    host = HOSTS[name]
    make(site, host)
    assert follow(site) > 0
    assert follow(site) == 0
    assert [each for each in site.findings() if each["severity"] == "error"] == []
    assert max(times(site).values()) == 1, times(site)
    mail_flows(site, host)
    assert site.run("detach", "--yes").returncode == 0
    assert str(site.milter.socket) not in "".join(
        data.decode() for key, data in site.texts().items() if key.endswith(".cf")
    )
