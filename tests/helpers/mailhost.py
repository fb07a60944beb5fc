"""A mail host in a container: Debian's Postfix as packaged, between the world and a CRM."""

import json
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

from pods import Container, PodError, run, wait_for

HELP = "help@solarmora.com"
REPORTS = "report-spam@solarmora.com"
CRM_DOMAIN = "v1su0245ewejzhe7.case.my-crm.com"
SUPPORT = f"support@{CRM_DOMAIN}"
CONFIG = f"""\
unrouted_to: it@solarmora.com
recipient_delimiter: "+"
spam: {{spam}}
rules:
  - name: support
    match: {HELP}
    replace_with: {SUPPORT}
  - name: reports
    match: {REPORTS}
    replace_with: reports@{CRM_DOMAIN}
    bypass_spam_filter: true
"""
CONFIG_FILE = "/etc/crm-milter/crm-milter.yaml"
HAM = "From: anna@customer.example\r\nTo: help@solarmora.com\r\nSubject: test\r\n"


class MailHost(Container):
    """The host, which takes mail for solarmora.com and has the account it@, where spam goes."""

    def __init__(self, name: str, image: str, crm: Container, world: Container) -> None:
        super().__init__(name, image, booted=True)
        self._crm = crm
        self._world = world
        self.before = ""  # main.cf before we were attached
        self._since: tuple[str, ...] = ()  # the first entry of the journal that counts

    def wait_until_up(self) -> None:
        """Return when mail is taken, and the CRM can be reached."""
        super().wait_until_up()
        self.run("useradd", "--create-home", "it", check=False)
        self.write("/etc/postfix/transport", f".my-crm.com smtp:[{self._crm.address}]:25\n")
        # Retries come soon, so that the tests need not wait for them.
        settings = (
            "mydestination=solarmora.com, localhost",
            "transport_maps=texthash:/etc/postfix/transport",
            "minimal_backoff_time=5s",
            "queue_run_delay=5s",
        )
        self.run("postconf", "-e", *settings)
        self.run("postfix", "reload")

    # The package

    def install(self, package: Path, *, check: bool = True) -> str:
        """Install a package as a sysadmin does."""
        run("podman", "cp", str(package), f"{self.name}:/tmp/crm-milter.deb")
        keep = ("-o", "Dpkg::Options::=--force-confold")
        return self.run(
            *("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-q", "-y", "install", *keep),
            "/tmp/crm-milter.deb",
            timeout=180,
            check=check,
        )

    def configure(self, text: str = CONFIG.format(spam="gmail")) -> None:
        """Give it a configuration, and have it taken up."""
        self.write(CONFIG_FILE, text)
        self.run("systemctl", "reload", "crm-milter")
        wait_for("the new rules", lambda: "serving 2 rules" in self.status())

    def status(self) -> str:
        """Return what systemd says of our unit."""
        return self.run("systemctl", "status", "--no-pager", "crm-milter", check=False)

    def show(self, name: str) -> str:
        """Return a property of our unit."""
        return self.run("systemctl", "show", "--value", "-p", name, "crm-milter").strip()

    def journal(self, unit: str = "crm-milter") -> str:
        """Return what our unit wrote, since mark_journal() if that was called."""
        return self.run("journalctl", "--no-pager", "-q", "-o", "cat", *self._since, "-u", unit)

    def mark_journal(self) -> None:
        """Leave out what the journal has so far."""
        said = self.run("journalctl", "-q", "-n", "0", "--show-cursor")
        self._since = ("--after-cursor", said.partition("-- cursor: ")[2].strip())

    # Mail

    def send(self, recipient: str = HELP, body: str = "hello", name: str = "one") -> dict[str, Any]:
        """Send a mail from the world, once, and return the reply."""
        message = f"{HAM}X-Test-Id: {name}\r\n\r\n{body}\r\n"
        program = ("python3", "/source/tests/container/world.py", self.address, recipient)
        reply: dict[str, Any] = json.loads(self._world.run(*program, text=message))
        return reply

    def load(self, threads: int = 4) -> "Load":
        """Send from the world for as long as the block lasts."""
        program = ("python3", "/source/tests/container/world.py", self.address, HELP, str(threads))
        return Load(self._world.start(*program))

    def at_crm(self) -> list[dict[str, Any]]:
        """Return what the CRM has taken, in order."""
        return [json.loads(line) for line in self._crm.read("/tmp/taken").splitlines()]

    def refuse(self, *addresses: str) -> None:
        """Have the CRM refuse these for good."""
        self._crm.write("/tmp/refused", "\n".join(addresses))

    def forget(self) -> None:
        """Have the CRM, and the mailbox, start anew."""
        self._crm.run("rm", "-f", "/tmp/taken", "/tmp/refused")
        self.run("sh", "-c", "rm -f /var/mail/it")

    def wait_for_crm(self, name: str, timeout: float = 60) -> dict[str, Any]:
        """Return the message of that name, once the CRM has it."""

        def found() -> dict[str, Any] | None:
            return next((each for each in self.at_crm() if each["id"] == name), None)

        try:
            return wait_for(f"{name} at the CRM", found, timeout)
        except PodError as error:
            raise PodError(f"{error}\n{self.maillog()}\n{self.journal()[-2000:]}") from error

    def wait_for_mailbox(self, name: str) -> str:
        """Return the mailbox of it@, once it has the message of that name."""

        def found() -> str | None:
            box = self.read("/var/mail/it")
            return box if f"X-Test-Id: {name}\n" in box else None

        try:
            return wait_for(f"{name} in the mailbox", found)
        except PodError as error:
            raise PodError(f"{error}\n{self.maillog()}\n{self.journal()[-2000:]}") from error

    def queue(self) -> list[str]:
        """Return the queue ids of mail under way."""
        return [json.loads(line)["queue_id"] for line in self.run("postqueue", "-j").splitlines()]

    def wait_for_empty_queue(self) -> None:
        """Return when all mail has left."""
        wait_for("an empty queue", lambda: not self.queue(), 90)

    def maillog(self) -> str:
        """Return the end of Postfix's log."""
        return self.run(
            "sh", "-c", "journalctl --no-pager -q -o cat | grep '[0-9A-F]*: ' | tail -40"
        )


class Load:
    """Mail that keeps coming while the block lasts; ``result`` is what came of it."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.accepted: list[str] = []
        self.unknown: list[str] = []
        self.replies: Counter[str] = Counter()

    def __enter__(self) -> "Load":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            output, _error = self._process.communicate(timeout=90)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        result = json.loads(output)
        self.accepted, self.unknown = result["accepted"], result["unknown"]
        self.replies = Counter(result["replies"])

    def prove(self, host: MailHost) -> None:
        """Accepted is delivered: all of it, once, to the CRM; and nobody was refused for good."""
        host.wait_for_empty_queue()
        taken = Counter(each["id"] for each in host.at_crm())
        assert len(self.accepted) > 100
        assert set(self.accepted) - taken.keys() == set()
        assert taken.keys() <= {*self.accepted, *self.unknown}
        assert set(taken.values()) == {1}
        assert not [code for code in self.replies if code.startswith("5")]
        envelopes = {to.partition(" ")[0] for each in host.at_crm() for to in each["to"]}
        assert envelopes == {f"<{SUPPORT}>"}
