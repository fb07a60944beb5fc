"""The host that Postfix sends through, and whether a server that the log names is it.

postconf(5), relayhost: ``[host]:port`` is that host, ``domain:port`` is found by the MX records of
the domain, so the log names hosts that main.cf does not. Several stand in a list.
"""

import re
from dataclasses import dataclass

# "host mx.isp.example[192.0.2.9] said", "connect to ...", "lost connection with ...".
_SERVER = re.compile(r"[\w.-]+\[[0-9a-fA-F.:]+\]")


@dataclass(frozen=True, slots=True)
class Relayhost:
    """What ``relayhost`` says: hosts, and domains whose MX records name hosts."""

    hosts: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Relayhost":
        """Return the meaning of an expanded value."""
        items = [item for item in re.split(r"[\s,]+", text) if item]
        hosts = (item[1:].partition("]")[0] for item in items if item.startswith("["))
        domains = (item.partition(":")[0] for item in items if not item.startswith("["))
        return cls(tuple(hosts), tuple(domains))

    def told(self, words: str, what: str) -> str:
        """Return a sentence where the server of a log line is, or may be, the relayhost, or ""."""
        for name in (*self.hosts, *self.domains):
            if _names(words, name):
                return f"not the CRM but the relayhost of this Postfix ({name}) {what}"
        if self.domains and _SERVER.search(words):
            names = ", ".join(self.domains)
            return (
                f"not the CRM but a mail server of the relayhost of this Postfix ({names}) {what},"
                " unless transport_maps sends mail for the CRM elsewhere"
            )
        return ""


def _names(words: str, host: str) -> bool:
    """Tell whether a text names this host, not one whose name contains its name."""
    own = rf"(?<![\w.:-]){re.escape(host)}(?![\w:-]|\.\w)"
    return re.search(own, words, re.IGNORECASE) is not None
