"""attach where the files are generated, the socket is out of sight or another Postfix has it."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from attaching import CRM, Site, attach, attachable, main_cf

from crm_milter.postfix import files
from crm_milter.postfix.attach.attach import Terminal


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with attachable() as site:
        yield site


@pytest.fixture
def read_only(tmp_path) -> Iterator[Path]:
    """A file system that main.cf and master.cf can be moved to, read-only from then on."""
    subprocess.run(["mount", "-t", "tmpfs", "none", tmp_path], check=True)
    yield tmp_path
    subprocess.run(["umount", tmp_path], check=True)


def freeze(directory: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", directory], check=True)


def test_files_that_are_generated_are_left_and_it_is_said(site, read_only):
    before = site.restore()
    for name in ("main.cf", "master.cf"):
        path = site.postfix.config / name
        shutil.copy2(path, read_only / name)
        path.unlink()
        path.symlink_to(read_only / name)
    freeze(read_only)
    done = attach(site)
    assert done.returncode == 1
    assert (
        f'rolled back: cannot write "{read_only}/main.cf": read-only file system;'
        " if it is generated, change its source\n"
    ) in done.stdout
    assert "+smtpd_milters" in done.stdout  # the lines to write there
    assert "Traceback" not in done.stdout + done.stderr
    assert site.texts() == before
    assert not (site.postfix.config / "crm-milter-attached").exists()
    for name in ("main.cf", "master.cf"):
        (site.postfix.config / name).unlink()
        (site.postfix.config / name).write_bytes(before[name])


def test_a_symbolic_link_that_can_be_written_to_stays_one(site, tmp_path):
    before = site.restore()
    path = site.postfix.config / "main.cf"
    path.rename(tmp_path / "main.cf")
    path.symlink_to(tmp_path / "main.cf")
    assert attach(site).returncode == 0
    assert path.is_symlink()
    assert site.arrives() == [CRM]
    assert site.run("detach", "--yes").returncode == 0
    assert path.is_symlink()
    assert site.texts() == before
    path.unlink()


def test_a_link_out_of_the_chroot_is_not_offered(site):
    before = site.restore()
    place = site.postfix.folder / "queue" / "linked"
    place.mkdir()
    (place / "milter.sock").symlink_to(site.milter.socket)
    text = site.yaml.read_text().replace(str(site.milter.socket), f"{place}/milter.sock")
    site.yaml.write_text(text)
    master = site.postfix.config / "master.cf"
    master.write_bytes(before["master.cf"] + b"9 inet n - y - - smtpd\n")
    site.age()
    done = attach(site)
    shutil.rmtree(place)
    assert done.returncode == 1
    assert '"9/inet" runs in the chroot' in done.stderr


def test_a_second_instance_is_not_told_to_cut_off_the_first(site, monkeypatch, tmp_path):
    site.restore()
    assert attach(site).returncode == 0
    second = tmp_path / "second"
    shutil.copytree(site.postfix.config, second)
    shutil.rmtree(second / "crm-milter-attached")
    text = (second / "main.cf").read_text()
    kept = [line for line in text.splitlines(keepends=True) if "milter" not in line]
    (second / "main.cf").write_text("".join(kept))
    master = second / "master.cf"
    master.write_text(master.read_text() + "9 inet n - y - - smtpd\n")
    site.age()
    monkeypatch.setenv("MAIL_CONFIG", str(site.postfix.config))
    from planted import Done, Planted

    other = Planted.__new__(Planted)
    other.yaml, other.postfix = site.yaml, type("Postfix", (), {"config": second})()
    done: Done = other.run("attach", "--yes")
    assert done.returncode == 1
    assert "set milter.listen" not in done.stderr
    assert f"run postconf -c {second} -F 9/inet/chroot=n" in done.stderr
    assert site.run("detach", "--yes").returncode == 0


def test_a_write_waits_for_postconf_and_sees_what_it_wrote(tmp_path):
    path = tmp_path / "main.cf"
    path.write_text("a\n")
    draft = tmp_path / "main.cf.tmp"
    with draft.open("w") as stream:
        import fcntl
        import threading

        fcntl.flock(stream, fcntl.LOCK_EX)
        failed: list[BaseException] = []

        def write() -> None:
            try:
                files.replace_if(path, "a\n", "ours\n")
            except files.ChangedError as error:
                failed.append(error)

        thread = threading.Thread(target=write)
        thread.start()
        thread.join(0.2)
        assert thread.is_alive()
        stream.write("theirs\n")
        stream.flush()
        draft.rename(path)
    thread.join(5)
    assert failed
    assert path.read_text() == "theirs\n"
    assert not draft.exists()


def test_a_person_may_keep_what_is_not_proved(site, monkeypatch):
    before = site.restore(main="smtpd_client_restrictions = reject\nsmtpd_delay_reject = no\n")
    from crm_milter.config.load import load
    from crm_milter.postfix.attach import proof as probe
    from crm_milter.postfix.attach.attach import Wish
    from crm_milter.postfix.attach.attach import attach as attach_to
    from crm_milter.postfix.postconf import Postconf
    from crm_milter.postfix.site import Site as Both

    monkeypatch.setattr(probe, "PATIENCE", 0.2)
    asked: list[str] = []
    lines: list[str] = []

    def consents(question: str) -> bool:
        asked.append(question)
        return True

    terminal = Terminal(lines.append, lambda _: True, consents)
    both = Both(load(site.yaml), site.yaml, Postconf(site.postfix.config))
    assert attach_to(both, Wish(), terminal)
    assert asked == [each for each in asked if each.startswith("not proved: ")]
    assert asked
    assert "smtpd_milters = {" in main_cf(site)
    assert site.run("detach", "--yes").returncode == 0
    assert site.texts() == before
