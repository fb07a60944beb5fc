"""A running Postfix with a real milter that is not attached to it yet, restored for each test."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from planted import HELP, IT, RULES, Done, Planted

from lab.milter import Milter
from lab.sink import Sink
from lab.whole import Lab

CONFIG = f"unrouted_to: {IT}\nspam: rspamd\n{RULES}"
CRM = "support@v1.case.my-crm.com"
MESSAGE = b"Subject: kaputt\n\nhelp\n"
# rspamd by its port; nobody is there, and mail goes on.
OTHER = "{ inet:127.0.0.1:11332, default_action=accept, connect_timeout=1s }"

# main.cf as people write it.
FOLDED = f"""
# milters of ours
smtpd_milters =
    # signs
    $opendkim,
    {OTHER}
opendkim = inet:127.0.0.1:9
milter_default_action = accept
non_smtpd_milters = $smtpd_milters
# the end"""


class Site(Planted):
    """A Postfix, and a real milter to attach to it."""

    def __init__(self, lab: Lab, milter: Milter) -> None:
        self.lab, self.postfix, self.milter, self.yaml = lab, lab.postfix, milter, milter.config
        self.folder = milter.folder
        self._texts = self.texts()

    def texts(self) -> dict[str, bytes]:
        return {
            path.name: path.read_bytes() for path in self.postfix.config.iterdir() if path.is_file()
        }

    def _put(self, name: str, data: bytes) -> None:
        # At once: a daemon that starts just then and finds no main.cf, or half of it, dies, and
        # master waits a minute before it starts the next.
        new = self.postfix.config / f"{name}.new"
        new.write_bytes(data)
        new.replace(self.postfix.config / name)

    def restore(self, text: str = CONFIG, main: str = "") -> dict[str, bytes]:
        """The first configuration, with more lines of main.cf; what it is."""
        for path in [*self.postfix.config.rglob("*")][::-1]:
            if path.is_dir():
                path.rmdir()
            elif path.parent != self.postfix.config or path.name not in self._texts:
                path.unlink()
        for name, data in self._texts.items():
            self._put(name, data)
        if main:
            names = {line.split(" =")[0] for line in main.splitlines()}
            lines = self._texts["main.cf"].decode().splitlines(keepends=True)
            kept = [line for line in lines if line.split(" =")[0] not in names]
            self._put("main.cf", ("".join(kept) + main).encode())
        self.milter.configure(text)
        if not self.milter.running():
            self.milter.start()
        self.age()
        self.lab.fresh()
        return self.texts()

    def arrives(self) -> list[str]:
        return self.lab.send("<anna@customer.example>", [f"<{HELP}>"], MESSAGE).recipients


@contextmanager
def attachable(**settings: Any) -> Iterator[Site]:
    """A Postfix with these settings, and a milter beside it."""
    settings = {"main": {"mydestination": "solarmora.com"}, **settings}
    with Sink() as sink, Milter(CONFIG) as milter, Lab(sink=sink, **settings) as lab:
        yield Site(lab, milter)


def attach(site: Site, *arguments: str) -> Done:
    return site.run("attach", "--yes", *arguments)


def main_cf(site: Site) -> str:
    return site.texts()["main.cf"].decode()
