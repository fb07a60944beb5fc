"""The package, and the containers that a test needs: a mail host, a CRM, and the world."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mailhost import MailHost
from pods import ROOT, Container, base_image, image, run, why_not

_TIMEOUT = 900  # where images have to be made first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give the tests of this folder more time; skip them where containers cannot run."""
    reason = why_not()
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(_TIMEOUT))
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package, as the one command builds it; lintian has judged it."""
    folder = tmp_path_factory.mktemp("package")
    return Path(run(str(ROOT / "debian/build"), str(folder), timeout=900).splitlines()[-1])


@pytest.fixture(scope="session")
def newer_package(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package in a later version, which says so."""
    folder = tmp_path_factory.mktemp("newer")
    run("dpkg-deb", "-R", str(package), str(folder / "tree"))
    changes = {
        "DEBIAN/control": ("\nVersion: ", "\nVersion: 9"),
        "usr/lib/python3/dist-packages/crm_milter/__init__.py": ('version__ = "', 'version__ = "9'),
    }
    for name, (old, new) in changes.items():
        path = folder / "tree" / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
    result = folder / "crm-milter_9_all.deb"
    run("dpkg-deb", "-b", str(folder / "tree"), str(result))
    return result


@pytest.fixture(scope="session")
def crm() -> Iterator[Container]:
    """The mail server of the CRM."""
    with Container("crm", image("host"), "python3", "/source/tests/container/crm.py") as container:
        yield container


@pytest.fixture(scope="session")
def world() -> Iterator[Container]:
    """Who sends mail."""
    with Container("world", image("host"), "sleep", "infinity") as container:
        yield container


@pytest.fixture(scope="module")
def host(crm: Container, world: Container) -> Iterator[MailHost]:
    """A mail host as Debian makes it, without our package."""
    with MailHost("mail", image("host"), crm, world) as made:
        yield made


@pytest.fixture(scope="module")
def attached(host: MailHost, package: Path) -> MailHost:
    """The mail host with our package installed, configured and attached."""
    host.install(package)
    host.configure()
    host.before = host.run("postconf", "-n")
    host.run("crm-milter", "attach", "--yes")
    return host


# What a test beside other software may change, but for their data.
_CHANGED = (
    "/etc/postfix /etc/crm-milter /etc/rspamd /etc/amavis /etc/opendkim.conf /etc/opendmarc.conf"
)
_CHANGED += " /etc/default/postsrsd /etc/dovecot"
_STARTED = "rspamd spamd spamass-milter amavis opendkim opendmarc postsrsd dovecot postgresql"
_AS_IT_WAS = f"""\
crm-milter detach --yes >/dev/null 2>&1
systemctl stop {_STARTED}
postsuper -d ALL 2>/dev/null
rm -rf {_CHANGED}
tar -C / -xf /root/etc.tar
systemctl restart postfix crm-milter
"""


@pytest.fixture(scope="session")
def companions(crm: Container, world: Container, package: Path) -> Iterator[MailHost]:
    """A mail host with other software that is not started, and our package, not attached."""
    with MailHost("companions", image("companions"), crm, world) as host:
        host.install(package)
        host.run("useradd", "--create-home", "rejected")
        host.run("sh", "-c", f"tar -cPf /root/etc.tar {_CHANGED}")
        yield host


@pytest.fixture
def guarded(companions: MailHost) -> Iterator[MailHost]:
    """The same, as it was when the first test began."""
    companions.forget()
    companions.mark_journal()
    yield companions
    companions.run("sh", "-c", _AS_IT_WAS, timeout=120)


@pytest.fixture(scope="session")
def images(package: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The two images of postfix/Containerfile, of the package as it is now."""
    context = tmp_path_factory.mktemp("context")
    (context / "dist").mkdir()
    shutil.copy(package, context / "dist")
    shutil.copytree(ROOT / "postfix/container", context / "postfix/container")
    # The milter's is made of one that has its libraries already.
    made = {
        "postfix": ("crm-milter-postfix", base_image()),
        "crm-milter": ("crm-milter", image("host")),
    }
    for target, (name, base) in made.items():
        run(
            *("podman", "build", "-q", "--network=host", "--build-arg", f"BASE={base}"),
            *("-f", str(ROOT / "postfix/Containerfile"), "--target", target, "-t", name),
            str(context),
            timeout=600,
        )
