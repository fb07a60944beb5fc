"""`map --write --in-force`: the table of each attached instance, after the daemon's verdict."""

import os
from collections.abc import Iterator
from pathlib import Path

import planted
import pytest
from planted import CRM, RULES, Planted

from crm_milter.config import standing
from crm_milter.config.load import load
from crm_milter.config.sources import Disk
from crm_milter.config.standing import Standing
from crm_milter.postfix import in_force
from crm_milter.postfix.postconf import Postconf
from lab.sink import Sink

MANY = "rules:\n" + "".join(
    f"  - {{name: r{number}, match: a{number}@solarmora.com, replace_with: {CRM}}}\n"
    for number in range(9)
)


@pytest.fixture(scope="module")
def sites() -> Iterator[list[Planted]]:
    with Sink() as sink:
        made = [planted.make(sink), planted.make(sink)]
        yield made
        for each in made:
            each.postfix.stop()
            each.listener.close()


@pytest.fixture(autouse=True)
def runtime(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path))
    return tmp_path


def accepted(site: Planted, *, is_last_good: bool = False) -> None:
    """The daemon says that it serves the file as it is now."""
    sources = Disk()
    load(site.yaml, sources)
    standing.publish(Standing(os.getpid(), digest=sources.digest(), is_last_good=is_last_good))


def table(site: Planted) -> str:
    return (site.postfix.config / "crm-milter-aliases").read_text()


def add_rule(site: Planted) -> None:
    more = f"  - {{name: more, match: more@solarmora.com, replace_with: {CRM}}}\n"
    site.yaml.write_text(site.yaml.read_text() + more)


def write(site: Planted) -> tuple[int, str]:
    done = site.run("map", "--write", "--in-force")
    return done.returncode, done.stdout + done.stderr


def test_what_the_daemon_has_accepted_is_written(sites):
    site = sites[0]
    site.reset()
    add_rule(site)
    accepted(site)
    status, said = write(site)
    assert (status, "written, 2 entries" in said) == (0, True)
    assert "more@solarmora.com" in table(site)
    status, said = write(site)
    assert (status, "unchanged, 2 entries" in said) == (0, True)


def test_what_it_has_not_accepted_is_not(sites):
    site = sites[0]
    site.reset()
    accepted(site)
    add_rule(site)
    status, said = write(site)
    assert (status, "is not in force: it, or a file that it names, has changed" in said) == (
        1,
        True,
    )
    assert "more@solarmora.com" not in table(site)


@pytest.mark.parametrize("data", [None, "", "{}", "[]", '{"pid": "x"}', "\0" * 99])
def test_without_a_daemon_nothing_is_written(sites, runtime, data):
    site = sites[0]
    site.reset()
    if data is not None:
        (runtime / "in-force.json").write_text(data)
    add_rule(site)
    status, said = write(site)
    assert (status, "crm-milter is not running as a service" in said) == (1, True)
    assert "more@solarmora.com" not in table(site)


def test_a_bad_file_or_the_last_good_one_in_force_changes_nothing(sites):
    site = sites[0]
    site.reset()
    accepted(site, is_last_good=True)
    before = table(site)
    site.yaml.write_text("rules: nonsense\n")
    status, said = write(site)
    assert (status, "the virtual alias tables stay as they are" in said) == (0, True)
    standing.publish(Standing(os.getpid(), digest="x"))
    status, said = write(site)
    assert (status, "is not in force: " in said) == (1, True)
    assert table(site) == before


def test_a_table_that_would_shrink_is_left(sites):
    site = sites[0]
    site.reset(MANY)
    before = table(site)
    head = site.yaml.read_text().partition("rules:")[0]
    site.yaml.write_text(head + RULES)
    accepted(site)
    status, said = write(site)
    assert (status, "would shrink from 9 to 1 entries" in said) == (1, True)
    assert table(site) == before


def both(monkeypatch, sites: list[Planted]) -> tuple[bool, list[str]]:
    """The tables of all instances, by the first one's configuration."""
    found = [Postconf(each.postfix.config) for each in sites]
    monkeypatch.setattr(in_force, "all_instances", lambda: found)
    said: list[str] = []
    done = in_force.write(sites[0].yaml, None, said.append, said.append)
    return done, said


def test_every_attached_instance_and_the_others_if_one_fails(sites, monkeypatch):
    for each in sites:
        each.reset()
    add_rule(sites[0])
    accepted(sites[0])
    done, said = both(monkeypatch, sites)
    assert (done, len(said)) == (True, 2)
    assert all("more@solarmora.com" in table(each) for each in sites)
    # What cannot be written in the first keeps the second from nothing.
    add = f"  - {{name: third, match: third@solarmora.com, replace_with: {CRM}}}\n"
    sites[0].yaml.write_text(sites[0].yaml.read_text() + add)
    accepted(sites[0])
    source = sites[0].postfix.config / "crm-milter-aliases"
    source.unlink()
    source.mkdir()
    done, said = both(monkeypatch, sites)
    source.rmdir()
    assert not done
    assert "third@solarmora.com" in table(sites[1])


def test_an_instance_that_is_not_attached_has_no_table(sites, monkeypatch):
    sites[0].reset(main={"virtual_alias_maps": ""})
    (sites[0].postfix.config / "crm-milter-aliases").unlink(missing_ok=True)
    accepted(sites[0])
    status, said = write(sites[0])
    assert (status, "no Postfix instance uses one" in said) == (0, True)
    assert not (sites[0].postfix.config / "crm-milter-aliases").exists()
    monkeypatch.setattr(in_force, "all_instances", list)
    said_all: list[str] = []
    assert in_force.write(sites[0].yaml, None, said_all.append, said_all.append)
    assert said_all == ["no virtual alias table to write: no Postfix instance uses one"]
