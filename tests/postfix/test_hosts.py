"""Kinds of mail host (hosts.py): checked, attached, used and detached, to the byte."""

from collections.abc import Iterator

import pytest
from attaching import CONFIG, CRM, MESSAGE, Site, attachable
from hosts import HOSTS, Host
from planted import HELP, Done

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


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_is_attached_and_comes_back_to_the_byte(site, name):
    host = HOSTS[name]
    before = make(site, host)
    assert site.run("check", "--postfix").returncode in (0, 1)
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
    if host.by:
        assert CRM in arrived(site, host.by)
    done = site.run("detach", "--yes")
    assert done.returncode == 0, done.stdout[-700:] + done.stderr[-300:]
    assert site.texts() == before
