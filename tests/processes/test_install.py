"""On which systems postfix/install works: those that are tested, and with a warning later ones."""

import os
import subprocess
from pathlib import Path

import pytest

_INSTALL = Path(__file__).parents[2] / "postfix/install"
_REFUSED = {
    'ID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"': "Ubuntu 24.04.1 LTS",
    'ID=debian\nVERSION_ID="11"': "Debian GNU/Linux 11 (bullseye)",
    "ID=debian\nVERSION_ID=9": "Debian GNU/Linux 9 (stretch)",
    'ID="fedora"\nVERSION_ID=43': "Fedora Linux 43",
    "ID=raspbian\nID_LIKE=debian\nVERSION_ID='12'": "Raspbian 12",
    "ID=arch": "",
    "": "",
}
_WARNED = {
    'ID=debian\nVERSION_ID="14"': "Debian GNU/Linux 14 (forky)",
    "ID=debian": "Debian GNU/Linux forky/sid",
    "ID=debian\nVERSION_ID=112": "Debian GNU/Linux 112",
}
_QUIET = (
    'ID=debian\nVERSION_ID="12"',
    "ID=debian\nVERSION_ID=13",
    "ID='debian'\nVERSION_ID='12.4'",
)


def _install(
    system: str, name: str, folder: Path, path_first: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Run it where /etc/os-release says so, seen by this process alone."""
    path = folder / "os-release"
    path.write_text(f'{system}\nPRETTY_NAME="{name}"\n' if name else f"{system}\n")
    script = 'mount --bind "$1" /etc/os-release && exec "$2"'
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", path, _INSTALL],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env=os.environ | {"PATH": f"{path_first}:{os.environ['PATH']}"} if path_first else None,
    )


@pytest.mark.parametrize("system", _REFUSED)
def test_another_system_is_refused_in_one_line(system: str, tmp_path: Path) -> None:
    name = _REFUSED[system]
    done = _install(system, name, tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert (
        done.stderr == f"install: {name or 'this system'} is not supported; use Debian 12 or 13\n"
    )


@pytest.mark.parametrize("system", _WARNED)
def test_a_later_debian_works_with_a_warning(system: str, tmp_path: Path) -> None:
    name = _WARNED[system]
    done = _install(system, name, tmp_path)
    assert done.returncode == 0
    expected = f"install: warning: not tested on {name}, only on Debian 12 and 13\n"
    assert done.stderr == expected


@pytest.mark.parametrize("system", _QUIET)
def test_a_tested_release_needs_no_words(system: str, tmp_path: Path) -> None:
    done = _install(system, "", tmp_path)
    assert done.returncode == 0
    assert done.stderr == ""


@pytest.mark.parametrize("state", ["installed", "half-installed", "unpacked"])
@pytest.mark.parametrize("provides", ["mail-transport-agent", "x, mail-transport-agent (= 1), y"])
def test_another_mta_is_left_alone(state: str, provides: str, tmp_path: Path) -> None:
    query = tmp_path / "bin/dpkg-query"
    query.parent.mkdir()
    query.write_text(
        '#!/bin/sh\ncase "$3" in *Provides*) '
        f"printf '{state}\\texim4-daemon-light\\t{provides}\\n';; esac\n"
    )
    query.chmod(0o755)
    for tool in ("apt-get", "debconf-set-selections"):  # would show that something was changed
        (query.parent / tool).write_text(f"#!/bin/sh\ntouch {tmp_path}/changed\n")
        (query.parent / tool).chmod(0o755)
    done = _install(_QUIET[0], "", tmp_path, str(query.parent))
    assert done.returncode == 1
    assert done.stderr == (
        "install: another MTA is installed (exim4-daemon-light), and installing Postfix would"
        " remove it; nothing was changed\n"
    )
    assert not (tmp_path / "changed").exists()
