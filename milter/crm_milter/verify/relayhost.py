"""The host that Postfix sends through, and whether a server that the log names is it.

postconf(5), relayhost: ``[host]:port`` is that host, ``domain:port`` is found by the MX records of
the domain, so the log names hosts that main.cf does not. Several stand in a list. A next hop in
transport_maps is written alike (transport(5)).
"""

import re
from dataclasses import dataclass

# "host mx.isp.example[192.0.2.9] said", "connect to ...", "lost connection with ...".
_SERVER = re.compile(r"[\w.-]+\[[0-9a-fA-F.:]+\]")


@dataclass(frozen=True, slots=True)
class Relayhost:
    """A next hop that is not the CRM's server: hosts, and domains whose MX records name hosts.

    One that transport_maps names for the CRM alone may be the CRM's own server all the same.
    """

    hosts: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    what: str = "the relayhost of this Postfix"
    unless: str = ""

    @classmethod
    def parse(cls, text: str, named_by: str = "relayhost") -> "Relayhost":
        """Return the meaning of an expanded value of a parameter, or of an entry of its table."""
        items = [item for item in re.split(r"[\s,]+", text) if item]
        hosts = tuple(item[1:].partition("]")[0] for item in items if item.startswith("["))
        domains = tuple(item.partition(":")[0] for item in items if not item.startswith("["))
        if "relayhost" in named_by:
            return cls(hosts, domains)
        unless = ", unless that is the CRM's own server"
        return cls(hosts, domains, f"the next hop in {named_by}", unless)

    def told(self, words: str, what: str) -> str:
        """Return a sentence where the server of a log line is, or may be, the next hop, or ""."""
        for name in (*self.hosts, *self.domains):
            if _names(words, name):
                return f"not the CRM but {self.what} ({name}) {what}{self.unless}"
        if self.domains and _SERVER.search(words):
            names = ", ".join(self.domains)
            elsewhere = ", unless transport_maps sends mail for the CRM elsewhere"
            return (
                f"not the CRM but a mail server of {self.what} ({names})"
                f" {what}{self.unless or elsewhere}"
            )
        return ""


def direct(_sender: str, _recipient: str) -> Relayhost:
    """Return the next hop of a Postfix that sends to the mail servers of the recipients."""
    return Relayhost()


def _names(words: str, host: str) -> bool:
    """Tell whether a text names this host, not one whose name contains its name."""
    own = rf"(?<![\w.:-]){re.escape(host)}(?![\w:-]|\.\w)"
    return re.search(own, words, re.IGNORECASE) is not None
