"""The wheel and the source distribution, as "python -m build" makes them."""

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Nothing of the checkout, nor of Debian's packages.
_BARE = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

_MADE = (".git", ".venv", ".*_cache", ".hypothesis", "__pycache__", "*.egg-info", "dist")

_ENVELOPE = ("--from", "anna@customer.example", "--to", "help@solarmora.com")


def _run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=_BARE, capture_output=True, text=True, timeout=110, check=False
    )


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two files; the wheel is made of the other."""
    folder = tmp_path_factory.mktemp("distribution")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*_MADE), symlinks=True)
    done = _run(sys.executable, "-m", "build", "--outdir", folder, "source", cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def bare(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and what it requires."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=True)
    (wheel,) = built.glob("*.whl")
    done = _run(folder / "bin/python", "-m", "pip", "install", "--quiet", wheel, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_source_has_what_building_and_packaging_take(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"CHANGELOG.md", "LICENSE", "README.md", "milter/crm-milter.yaml", "doc/manual.py"}
    wanted |= {"debian/rules", "systemd/crm-milter.service", "postfix/kubernetes.yaml", "setup.cfg"}
    assert wanted - names == set()
    assert not [name for name in names if re.search(r"__pycache__|\.pyc$|^tests/", name)]


def test_the_wheel_says_what_it_is(built: Path) -> None:
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(name))
        names = archive.namelist()
    assert metadata["Author"] == "crm-milter developers"
    assert "GPL-2.0-or-later" in (metadata["License"] or metadata["License-Expression"])
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata.get_payload().startswith("# ")
    assert [each for each in names if each.endswith("LICENSE")]
    assert not [each for each in names if each.startswith(("tests/", "stubs/", "doc/"))]


def test_check_works_in_a_bare_environment(bare: Path) -> None:
    shared = bare / "share/crm-milter"
    done = _run(bare / "bin/crm-milter", "check", "--config", shared / "crm-milter.yaml", cwd=bare)
    assert done.returncode == 0, done.stderr
    assert "OK" in done.stdout
    names = {str(each.relative_to(shared)) for each in shared.rglob("*") if each.is_file()}
    units = {f"systemd/crm-milter.{kind}" for kind in ("service", "sysusers", "tmpfiles")}
    assert names == {"crm-milter.yaml", "crm-milter.test.yaml", "CHANGELOG.md", *units}


@pytest.mark.parametrize("command", ["schema", "rules", "explain", "map"])
def test_other_commands_work_without_libmilter(bare: Path, command: str) -> None:
    config = ("--config", bare / "share/crm-milter/crm-milter.yaml")
    arguments = {"schema": [], "explain": [*config, *_ENVELOPE]}.get(command, [*config])
    done = _run(bare / "bin/crm-milter", command, *arguments, cwd=bare)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr


def test_serve_says_in_one_line_what_to_install(bare: Path) -> None:
    config = bare / "share/crm-milter/crm-milter.yaml"
    done = _run(bare / "bin/crm-milter", "serve", "--config", config, cwd=bare)
    assert done.returncode == 78
    (line,) = done.stderr.splitlines()
    assert "python3-milter" in line
    assert "pymilter" in line
