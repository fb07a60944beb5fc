"""A Postfix to plant mistakes in: right for the rule of the README until told otherwise."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from crm_milter.cli import main as cli
from lab.base import scratch
from lab.postfix import Postfix
from lab.sink import Sink

RSPAMD = "inet:127.0.0.1:11332"
HELP, IT, CRM = "help@solarmora.com", "it@solarmora.com", "support@v1.case.my-crm.com"

RULES = f"""
rules:
  - name: support
    match: {HELP}
    replace_with: {CRM}
"""

# The parameter that makes solarmora.com ours, and the one that lists its mailboxes.
CLASSES = {
    "local": ("mydestination", "local_recipient_maps"),
    "mailbox": ("virtual_mailbox_domains", "virtual_mailbox_maps"),
    "relay": ("relay_domains", "relay_recipient_maps"),
    "alias": ("virtual_alias_domains", None),
}


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


class Planted:
    """A private Postfix; `reset` makes it right, `check` says what the checks find."""

    def __init__(self, postfix: Postfix, kind: str = "mailbox") -> None:
        self.postfix = postfix
        self.kind = kind
        self.folder = scratch()
        self.yaml = self.folder / "crm-milter.yaml"
        self.socket = postfix.folder / "queue" / "crm-milter" / "milter.sock"
        self.mailboxes = self.folder / "mailboxes"
        self.listener = socket.socket(socket.AF_UNIX)
        self.socket.parent.mkdir(exist_ok=True)
        self.socket.unlink(missing_ok=True)
        self.listener.bind(str(self.socket))
        self.listener.listen()

    @property
    def ours(self) -> str:
        return "{ unix:crm-milter/milter.sock, default_action=tempfail }"

    def reset(
        self,
        text: str = RULES,
        main: Mapping[str, str] | None = None,
        *,
        head: str = "spam: rspamd\n",
        unrouted_to: str = "",
        mailboxes: str = f"{IT} x\n",
        aliases: str = "",
        services: Mapping[str, Mapping[str, str]] | None = None,
        master: Sequence[str] = (),
        has_filter: bool = True,
    ) -> None:
        """Write a configuration that is right but for what is given, the spam milter in front."""
        self.socket.chmod(0o666)
        domains, recipients = CLASSES[self.kind]
        mailbox = unrouted_to or ("it@elsewhere.example" if self.kind == "alias" else IT)
        self.yaml.write_text(
            f'milter:\n  listen: "unix:{self.socket}"\nunrouted_to: {mailbox}\n{head}{text}'
        )
        self.mailboxes.write_text(mailboxes)
        settings = {
            domains: "solarmora.com",
            "smtpd_milters": self.ours,
            "non_smtpd_milters": "$smtpd_milters",
            "notify_classes": "resource, software, bounce",
            "virtual_alias_maps": "texthash:$config_directory/virtual,"
            " hash:$config_directory/crm-milter-aliases",
        }
        if recipients:
            settings[recipients] = f"texthash:{self.mailboxes}"
        settings |= main or {}
        milters = settings["smtpd_milters"]
        if has_filter and milters and RSPAMD not in milters:
            settings["smtpd_milters"] = f"{RSPAMD}, {milters}"
        self.postfix.settings.main = settings
        self.postfix.settings.virtual_alias_maps = aliases
        self.postfix.settings.services = services or {}
        self.postfix.settings.master = master
        self.postfix.ports |= dict.fromkeys(services or {}, 9)
        self.postfix.write_config()
        self.age()
        self.run("map", "--write", "--force")

    def run(self, *arguments: str) -> Done:
        """A command of crm-milter for this Postfix, in this process: that is much faster."""
        which = ("--config", str(self.yaml), "--config-directory", str(self.postfix.config))
        out = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True)
        with redirect_stdout(out), redirect_stderr(io.StringIO()) as err:
            status = cli.main([*arguments, *which])
        return Done(status, out.buffer.getvalue().decode(), err.getvalue())

    def findings(self) -> list[dict[str, Any]]:
        """What `check --postfix --json` finds, its exit status checked."""
        done = self.run("check", "--postfix", "--json")
        assert done.stdout, done.stderr
        found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
        errors = [each for each in found if each["severity"] == "error"]
        assert done.returncode == (1 if errors else 0)
        for each in found:
            assert each["found"]
            assert each["why"]
            assert each["fix"]
        return found

    def checks(self) -> list[str]:
        """The names of the checks that found something, sorted."""
        return sorted(each["check"] for each in self.findings())

    def environment(self) -> dict[str, str]:
        """What a shell needs to find the commands that findings name."""
        path = f"{Path(sys.executable).parent}:/usr/sbin:{os.environ['PATH']}"
        return {**os.environ, "PATH": path}

    def shell(self, command: str) -> None:
        """Run the command of a finding."""
        arguments = ["/bin/sh", "-ec", command]
        subprocess.run(arguments, env=self.environment(), check=True, timeout=60)

    def repair(self) -> None:
        """Do what the findings tell, without the reload of a Postfix that nobody asks."""
        for each in self.findings():
            # "what else could be done: COMMAND"
            command = re.sub(
                r"^(remove|add|check) .*?: (?=sed|postconf|crm-milter)", "", each["fix"]
            )
            command = re.sub(r" && (postfix -c \S+|systemctl) reload( crm-milter)?$", "", command)
            self.shell(command)
            self.age()

    def age(self) -> None:
        """Let the files look old: Postfix waits until main.cf or a texthash is two seconds old."""
        then = time.time() - 60
        files = (self.postfix.config / name for name in ("main.cf", "master.cf", "virtual"))
        for path in (*files, *self.folder.iterdir()):
            os.utime(path, (then, then))


def make(sink: Sink, kind: str = "mailbox") -> Planted:
    """A running Postfix of its own, the domain in this class."""
    return Planted(Postfix(sink).start(), kind)
