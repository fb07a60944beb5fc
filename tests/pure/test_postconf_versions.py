"""What postconf of Postfix 3.5 to 3.11 prints is understood, as recorded on Debian 11 to testing.

Each directory has what the calls printed there, of parameters that crm-milter asks for; main.cf and
master.cf were Debian's, with a second milter, a submission service and a re-injection.
"""

from pathlib import Path

import pytest

from crm_milter.postfix.postconf import Postconf

_RECORDED = Path(__file__).parent / "postconf"
_VERSIONS = sorted(each.name for each in _RECORDED.iterdir())
_REPLAY = """\
#!/bin/sh
case "$*" in
    "") cat {folder}/all ;;
    "-h config_directory") cat {folder}/h ;;
    "-x -o "*) cat {folder}/x-submission ;;
    *) cat {folder}/"${{1#-}}" ;;
esac
"""
_MILTERS = "{ unix:/crm-milter/milter.sock, default_action=tempfail }, inet:127.0.0.1:11332"


@pytest.fixture(params=_VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def postconf(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Postconf:
    """An instance whose postconf answers as it did."""
    program = tmp_path / "postconf"
    program.write_text(_REPLAY.format(folder=_RECORDED / version))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setenv("MAIL_CONFIG", "/tmp/c")  # as when it was recorded
    return Postconf()


def test_all_versions_are_there() -> None:
    assert _VERSIONS == ["3.10", "3.11", "3.5", "3.7"]


def test_parameters_are_read(postconf: Postconf, version: str) -> None:
    assert postconf.value("mail_version").startswith(f"{version}.")
    assert postconf.raw("smtpd_milters") == _MILTERS
    assert postconf.raw("mydestination") == "$myhostname, solarmora.com"
    assert postconf.value("mydestination") == "mail.solarmora.example, solarmora.com"
    assert postconf.value("recipient_delimiter") == "+-"
    assert postconf.is_on("enable_original_recipient")
    assert {"smtpd_milters", "recipient_delimiter"} <= postconf.explicit
    assert "enable_original_recipient" not in postconf.explicit
    assert postconf.directory == Path("/tmp/c")


def test_services_are_read(postconf: Postconf) -> None:
    found = {each.label: each for each in postconf.running_as("smtpd")}
    assert {"smtp/inet", "submission/inet", "127.0.0.1:10025/inet"} <= found.keys()
    submission = found["submission/inet"]
    assert submission.overrides == {
        "smtpd_milters": "",
        "smtpd_client_restrictions": "permit_mynetworks, reject",
    }
    assert submission.chroot
    assert not found["127.0.0.1:10025/inet"].chroot
    assert postconf.raw("smtpd_milters", submission) == ""
    assert postconf.value("smtpd_milters", submission) == ""
    assert postconf.raw("smtpd_milters", found["smtp/inet"]) == _MILTERS


def test_the_default_of_chroot_is_known(postconf: Postconf, version: str) -> None:
    """Debian's master.cf says "y" until 3.10; testing leaves it to the compatibility level."""
    (smtp,) = (each for each in postconf.services if each.label == "smtp/inet")
    assert smtp.chroot == (version != "3.11")
