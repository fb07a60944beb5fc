"""reload: watch: a change of any file is taken up, complete and valid, and a bad one said once."""

import os
import time

import pytest
from mta import Mta
from serving import Serve

from lab.base import LabError

HAM = [("X-Spam", "no")]
HEAD = """
reload: watch
unrouted_to: it@solarmora.com
spam: rspamd
include: rules.d/*.yaml
known_recipients: accounts
marker_key: key
rules:
  - {name: first, match: first@solarmora.com, replace_with: first@crm.example}
  - {name: listed, match: 'file:list', replace_with: listed@crm.example, apply_to: unknown}
  - {name: table, address_map: table}
"""
FILES = {
    "accounts": "it@solarmora.com x\n",
    "key": "0123456789abcdef\n",
    "list": "l@solarmora.com\n",
    "table": "t@solarmora.com t@crm.example\n",
}


@pytest.fixture
def milter():
    made = Serve(HEAD)
    (made.folder / "rules.d").mkdir()
    for name, text in FILES.items():
        (made.folder / name).write_text(text)
    with made:
        yield made


def rule(name):
    return f"{{name: {name}, match: {name}@solarmora.com, replace_with: {name}@crm.example}}"


def target(milter, address):
    with Mta(milter.address) as mta:
        mta.connect()
        result = mta.message([f"<{address}@solarmora.com>"], HAM)
    return [edit[0].strip("<>") for edit in result.of("add")]


def reloads(milter, number):
    milter.log.wait(f"(?s)(^|\n)reloaded, serving(.*\nreloaded, serving){{{number - 1}}}", 20)


def test_every_file_is_watched(milter):
    folder = milter.folder
    changes = {
        "list": ("l2@solarmora.com\n", "l2", "listed@crm.example"),
        "table": ("t2@solarmora.com t2@crm.example\n", "t2", "t2@crm.example"),
        "rules.d/new.yaml": (f"rules:\n  - {rule('new')}\n", "new", "new@crm.example"),
        "rules.d/newer.yaml": (f"rules:\n  - {rule('newer')}\n", "newer", "newer@crm.example"),
    }
    for count, (name, (text, address, wanted)) in enumerate(changes.items(), 1):
        assert target(milter, address) == []
        (folder / name).write_text(text)
        reloads(milter, count)
        assert target(milter, address) == [wanted]
    (folder / "rules.d/new.yaml").unlink()
    reloads(milter, 5)
    assert target(milter, "new") == []
    (folder / "key").write_text("fedcba9876543210\n")
    reloads(milter, 6)
    (folder / "accounts").write_text("it@solarmora.com x\nl2@solarmora.com x\n")
    reloads(milter, 7)
    assert target(milter, "l2") == []


def test_a_bad_file_is_said_once_for_each_change(milter):
    good = milter.config.read_text()
    milter.config.write_text(good.replace("replace_with: first", "replase_with: first"))
    milter.log.wait("keeping the previous rules", 20)
    time.sleep(6)
    assert milter.log.text().count("keeping the previous rules") == 1
    assert target(milter, "first") == ["first@crm.example"]
    milter.config.write_text(good.replace("match: first@", "match: /first@"))
    milter.log.wait("(?s)keeping the previous rules.*keeping the previous rules", 20)
    milter.config.write_text(good.replace("first@crm", "second@crm"))
    reloads(milter, 1)
    assert target(milter, "first") == ["second@crm.example"]


def test_an_included_file_that_goes_and_comes(milter):
    path = milter.folder / "list"
    path.unlink()
    milter.log.wait("keeping the previous rules", 20)
    assert target(milter, "l") == ["listed@crm.example"]
    path.write_text("back@solarmora.com\n")
    reloads(milter, 1)
    assert target(milter, "back") == ["listed@crm.example"]


def test_a_file_that_is_being_written_is_waited_for(milter):
    path = milter.folder / "rules.d" / "slow.yaml"
    with path.open("w") as stream:
        stream.write("rules:\n")
        for number in range(30):
            stream.write(f"  - {rule(f'slow{number}')}\n  - {{name: x{number}, match: x{number}@")
            stream.flush()
            time.sleep(0.2)
            stream.write("solarmora.com, replace_with: x@crm.example}\n")
    reloads(milter, 1)
    assert "keeping the previous rules" not in milter.log.text()
    assert milter.log.text().count("reloaded, serving") == 1
    assert target(milter, "x29") == ["x@crm.example"]


def test_a_config_map_that_is_replaced_as_a_whole(milter):
    """As the kubelet does it: files are links into ..data, which is a link that is replaced."""
    folder = milter.folder / "rules.d"
    for version in (1, 2):
        there = folder / f"..2026_{version}"
        there.mkdir()
        (there / "map.yaml").write_text(f"rules:\n  - {rule(f'map{version}')}\n")
        os.utime(there / "map.yaml", (1, 1))
        (folder / "..new").symlink_to(there.name)
        (folder / "..new").rename(folder / "..data")
        if version == 1:
            (folder / "map.yaml").symlink_to("..data/map.yaml")
        reloads(milter, version)
        assert target(milter, f"map{version}") == [f"map{version}@crm.example"]
    assert target(milter, "map1") == []


def test_what_editors_leave_and_what_was_only_touched_is_cheap(milter):
    for name in (".new.yaml.swp", "new.yaml~", ".#new.yaml"):
        (milter.folder / "rules.d" / name).write_text("nonsense")
    with pytest.raises(LabError):
        milter.log.wait("reloaded|keeping", 7)


def test_watching_begins_and_ends_with_the_key():
    text = HEAD.replace("reload: watch\n", "").replace("include: rules.d/*.yaml\n", "")
    made = Serve(text)
    for name, content in FILES.items():
        (made.folder / name).write_text(content)
    with made:
        (made.folder / "list").write_text("l2@solarmora.com\n")
        with pytest.raises(LabError):
            made.log.wait("reloaded|keeping", 7)
        made.config.write_text("reload: watch\n" + made.config.read_text())
        made.signal(1)
        reloads(made, 1)
        made.config.write_text(made.config.read_text().replace("first@crm", "second@crm"))
        reloads(made, 2)
        assert target(made, "first") == ["second@crm.example"]


def test_a_start_with_a_bad_file_serves_the_last_good_one_and_watches(milter):
    state = milter.folder / "state"
    state.mkdir()
    other = Serve(HEAD, environment=f"STATE_DIRECTORY={state}")
    (other.folder / "rules.d").mkdir()
    for name, text in FILES.items():
        (other.folder / name).write_text(text)
    with other:
        assert target(other, "first") == ["first@crm.example"]
    good = other.config.read_text()
    other.config.write_text("nonsense")
    with other:
        other.log.wait("serving the last good configuration", 20)
        other.config.write_text(good.replace("first@crm", "second@crm"))
        other.log.wait("reloaded, serving", 20)
        assert target(other, "first") == ["second@crm.example"]
