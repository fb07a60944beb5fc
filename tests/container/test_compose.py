"""postfix/compose.yaml as podman-compose runs it, and what the images do by themselves."""

import os
import re
import shutil
import smtplib
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mailhost import HELP, SUPPORT
from pods import ENVIRONMENT, ROOT, Container, run, wait_for

from lab.base import free_port

_COMPOSE = str(Path(sys.executable).with_name("podman-compose"))
_PROJECT = f"crm-milter-compose-{os.getpid()}"


class Site:
    """The services, from a copy of the directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.smtp, self.metrics = free_port(), free_port()

    def compose(self, *arguments: str) -> None:
        """Run podman-compose."""
        ports = {"SMTP_PORT": str(self.smtp), "METRICS_PORT": str(self.metrics)}
        done = subprocess.run(
            [_COMPOSE, "-p", _PROJECT, *arguments],
            cwd=self.folder,
            env=ENVIRONMENT | ports,
            capture_output=True,
            text=True,
            timeout=170,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def has_delivered(self) -> bool:
        """Tell whether the metrics have a delivery to a target."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics}/metrics", timeout=10) as page:
            text = page.read().decode()
        sent = r'crm_milter_deliveries_total\{(?=.*kind="target")(?=.*outcome="sent")[^}]*\} [1-9]'
        return bool(re.search(sent, text)) and "crm_milter_delivery_log_readable 1" in text

    def send(self, name: str, recipient: str = HELP) -> int:
        """Send a message and return the code of the reply."""
        try:
            with smtplib.SMTP("127.0.0.1", self.smtp, timeout=10) as session:
                session.ehlo("world.example")
                session.mail("anna@customer.example")
                code, _ = session.rcpt(recipient)
                if code == 250:
                    code, _ = session.data(f"X-Test-Id: {name}\r\n\r\nhello\r\n".encode())
        except (OSError, smtplib.SMTPException):
            return 0
        return code


@pytest.fixture
def site(images: None, crm: Container, tmp_path: Path) -> Iterator[Site]:
    """The services, running, with another CRM than the configuration names."""
    shutil.copy(ROOT / "postfix/compose.yaml", tmp_path)
    # As the kubelet lays a ConfigMap out.
    config = tmp_path / "config"
    shutil.copytree(ROOT / "postfix/config", config / "..1")
    with (config / "..1/main.cf").open("a") as stream:
        stream.write(f"transport_maps = inline:{{{{ .my-crm.com = smtp:[{crm.address}]:25 }}}}")
    (config / "..data").symlink_to("..1")
    for name in ("main.cf", "crm-milter.yaml"):
        (config / name).symlink_to(f"..data/{name}")
    made = Site(tmp_path)
    made.compose("up", "--detach", "--no-build")
    yield made
    made.compose("down", "--volumes", "--timeout", "0")


def test_mail_is_routed_scraped_and_follows_a_change(site: Site, crm: Container) -> None:
    wait_for("mail to be taken", lambda: site.send("compose") == 250, 60)
    taken = wait_for(
        "the mail", lambda: '"id": "compose"' in (text := crm.read("/tmp/taken")) and text
    )
    assert f"<{SUPPORT}>" in taken
    with urllib.request.urlopen(f"http://127.0.0.1:{site.metrics}/metrics", timeout=10) as page:
        assert b"crm_milter_messages_total" in page.read()
    wait_for("the delivery", site.has_delivered, 30)
    assert site.send("early", "new@solarmora.com") == 250  # as any mail of the domain
    config = site.folder / "config"
    shutil.copytree(config / "..1", config / "..2")
    rules = config / "..2/crm-milter.yaml"
    rules.write_text(rules.read_text().replace(HELP, f"[{HELP}, new@solarmora.com]"))
    (config / "..new").symlink_to("..2")
    (config / "..new").rename(config / "..data")
    time.sleep(5)
    assert site.send("late", "new@solarmora.com") == 250
    wait_for("the mail", lambda: '"id": "late"' in crm.read("/tmp/taken"))
    assert '"id": "early"' not in crm.read("/tmp/taken")
    site.compose("stop")


def test_postfix_ends_at_once_while_it_waits_for_the_table(images: None) -> None:
    name = f"crm-milter-waiting-{os.getpid()}"
    volume = f"{ROOT / 'postfix/config'}:/config:ro"
    run("podman", "run", "-d", "--name", name, "-v", volume, "crm-milter-postfix")
    try:
        time.sleep(1)
        began = time.monotonic()
        run("podman", "stop", "--time", "20", name)
        assert time.monotonic() - began < 5
        state = run("podman", "inspect", "--format", "{{.State.ExitCode}}", name)
        assert state.strip() == "143"
    finally:
        run("podman", "rm", "--force", "--time", "0", name)


@pytest.mark.parametrize("user", ["1000680000:0", "65534:65534", "0:0"])
def test_the_milter_runs_as_any_user(images: None, user: str) -> None:
    name = f"crm-milter-user-{os.getpid()}"
    options = ("--user", user, "--cap-drop=all", "--read-only", "-v", "/milter")
    volume = f"{ROOT / 'postfix/config'}:/config:ro"
    run("podman", "run", "-d", "--name", name, *options, "-v", volume, "crm-milter")
    try:
        wait_for("the service", lambda: "serving 1 rule" in run("podman", "logs", name))
        began = time.monotonic()
        run("podman", "stop", "--time", "20", name)
        assert time.monotonic() - began < 10
        state = run("podman", "inspect", "--format", "{{.State.ExitCode}}", name)
        assert state.strip() == "0"
    finally:
        run("podman", "rm", "--force", "--volumes", "--time", "0", name)


def test_the_milter_refuses_to_start_with_an_invalid_file(images: None, tmp_path: Path) -> None:
    (tmp_path / "crm-milter.yaml").write_text("rules: 7\n")
    options = ("--rm", "-v", f"{tmp_path}:/config:ro", "-v", "/milter")
    done = subprocess.run(
        ["podman", "run", *options, "crm-milter"],
        env=ENVIRONMENT,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 78
