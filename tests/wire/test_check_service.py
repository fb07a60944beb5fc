"""check judges as the service would: what its user can read, and how long its unit waits."""

import json
import shutil
from pathlib import Path

import pytest
import routes
from serving import run

from crm_milter.cli.check import _locked_out
from crm_milter.config.load import load
from crm_milter.config.problems import Severity
from crm_milter.config.sources import Disk
from crm_milter.daemon.unit import Unit, problems, unit, unreadable

TEXT = """spam: amavis
unrouted_to: it@solarmora.com
known_recipients: known
include: more.yaml
marker_key: key
rules:
  - {name: a, match: 'file:list', replace_with: a@crm.example}
  - {name: b, address_map: table, apply_to: unknown}
"""
FILES = {
    "crm-milter.yaml": TEXT,
    "known": "joe@solarmora.com -\n",
    "more.yaml": "rules: [{name: c, match: c@x.example, replace_with: c@crm.example}]\n",
    "key": "0123456789abcdef0123456789abcdef\n",
    "list": "l@x.example\n",
    "table": "t@x.example t@crm.example\n",
}


LIB = "lib/systemd/system/crm-milter.service"
ETC = "etc/systemd/system/crm-milter.service"


@pytest.fixture
def folder(tmp_path_factory) -> Path:
    made = Path(tmp_path_factory.mktemp("service"))
    for each in (made, *made.parents):
        if each.owner() == "root" and each != Path("/tmp") and str(each).startswith("/tmp/"):
            each.chmod(0o755)
    for name, text in FILES.items():
        (made / name).write_text(text)
        (made / name).chmod(0o644)
    return made


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_the_service_cannot_read(folder, name):
    disk = Disk()
    config = load(folder / "crm-milter.yaml", disk)
    assert unreadable("nobody", disk.digests) == []
    (folder / name).chmod(0o600)
    assert unreadable("nobody", disk.digests) == [str(folder / name)]
    assert unreadable("root", disk.digests) == []
    assert unreadable("crm-milter-no-such-user", disk.digests) == []
    (problem,) = problems(folder / "crm-milter.yaml", config, Unit("nobody"), disk.digests)
    assert problem.severity is Severity.WARNING  # it is not the file of the service
    assert 'the user "nobody"' in problem.message


def test_a_folder_that_the_service_cannot_search(folder):
    disk = Disk()
    load(folder / "crm-milter.yaml", disk)
    folder.chmod(0o700)
    assert len(unreadable("nobody", disk.digests)) == len(FILES)


@pytest.mark.parametrize(
    ("files", "user", "stop"),
    [
        ({}, "crm-milter", None),
        ({f"usr/{LIB}": "[Service]\nUser=crm\nTimeoutStopSec=90\n"}, "crm", 90),
        ({ETC: "TimeoutStopSec = 2min 30s\n"}, "crm-milter", 150),
        ({LIB: "TimeoutSec=infinity\n"}, "crm-milter", None),
        ({LIB: "#TimeoutStopSec=5\nUser=\n"}, "crm-milter", None),
        (
            {
                LIB: "User=a\nTimeoutStopSec=90\n",
                f"{ETC}.d/override.conf": "TimeoutStopSec=1h\n",
                "run/systemd/system/crm-milter.service.d/10-x.conf": "TimeoutStopSec=5\nUser=b\n",
            },
            "b",
            3600,
        ),
    ],
)
def test_the_unit_with_its_drop_ins(tmp_path, files, user, stop):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert unit(tmp_path) == Unit(user, stop)


@pytest.mark.parametrize(
    ("lines", "groups"),
    [
        (["SupplementaryGroups=systemd-journal adm"], ("systemd-journal", "adm")),
        (["SupplementaryGroups=adm", "SupplementaryGroups = postfix  4"], ("adm", "postfix", "4")),
        (
            ["SupplementaryGroups=adm", "SupplementaryGroups=", "SupplementaryGroups=tape"],
            ("tape",),
        ),
        (["SupplementaryGroups=adm", "SupplementaryGroups="], ()),
        (["#SupplementaryGroups=adm"], ()),
    ],
)
def test_the_groups_of_the_unit_add_up(tmp_path, lines, groups):
    for n, line in enumerate(lines):
        path = tmp_path / (f"{ETC}.d/{n}.conf" if n else LIB)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"[Service]\n{line}\n")
    assert unit(tmp_path).groups == groups


@pytest.mark.parametrize("group", ["adm", "4", "tape"])
def test_a_file_that_the_service_reads_by_a_group_of_its_unit(folder, group):
    path = folder / "list"
    path.chmod(0o640)
    shutil.chown(path, group="adm")
    disk = Disk()
    config = load(folder / "crm-milter.yaml", disk)
    closed = [str(path)] if group == "tape" else []
    found = Unit("nobody", groups=(group, "crm-milter-no-such-group"))
    files = [
        each.file for each in problems(folder / "crm-milter.yaml", config, found, disk.digests)
    ]
    assert files == closed


@pytest.mark.parametrize(("seconds", "wrong"), [(60, False), (89, False), (90, True), (600, True)])
def test_a_drain_that_systemd_would_cut_short(folder, seconds, wrong):
    path = folder / "crm-milter.yaml"
    path.write_text(f"milter: {{drain_timeout: {seconds}}}\n{TEXT}")
    found = list(problems(path, load(path), Unit("root", 90.0), []))
    assert [each.key for each in found] == (["milter.drain_timeout"] if wrong else [])
    assert list(problems(path, load(path), Unit("root", None), [])) == []


def test_check_runs_where_there_is_no_unit(folder):
    done = run("check", "--json", "--config", folder / "crm-milter.yaml")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["errors"] == []


def test_a_table_in_wal_mode_needs_the_right_to_write_beside_it(folder):
    routes.database(folder / "t.db", [("t@x.example", "t@crm.example")], mode="WAL")
    (folder / "crm-milter.yaml").write_text(
        "spam: amavis\nrules:\n  - {name: t, address_map: 'sqlite:t.db'}\n"
    )
    config = load(folder / "crm-milter.yaml")
    (problem,) = _locked_out(config, "nobody")
    assert 'WAL mode, and the user "nobody"' in problem.message
    folder.chmod(0o777)
    assert list(_locked_out(config, "nobody")) == []
    folder.chmod(0o755)
    routes.execute(folder / "t.db", "PRAGMA journal_mode = DELETE")
    assert list(_locked_out(config, "nobody")) == []


def test_a_table_that_the_service_cannot_read(folder):
    routes.database(folder / "t.db", [("t@x.example", "t@crm.example")])
    (folder / "t.db").chmod(0o600)
    (folder / "crm-milter.yaml").write_text(
        "spam: amavis\nrules:\n  - {name: t, address_map: 'sqlite:t.db'}\n"
    )
    disk = Disk()
    load(folder / "crm-milter.yaml", disk)
    assert unreadable("nobody", [*disk.digests, *disk.databases]) == [str(folder / "t.db")]
