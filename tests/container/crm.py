"""Runs in a container: the CRM's mail server, with the sink of the lab on port 25.

Each transaction that it takes becomes a line of JSON in /tmp/taken. It refuses for good the
addresses that are in /tmp/refused, one a line.
"""

import json
import re
import sys
from pathlib import Path

sys.path.insert(0, "/source/postfix")

from lab.delivery import Delivery, Rcpt
from lab.sink import Sink, _Handler, _Server

TAKEN = Path("/tmp/taken")
REFUSED = Path("/tmp/refused")


class Recorder(Sink):
    """A sink that everybody can reach, and that writes down what it takes."""

    def __init__(self) -> None:
        super().__init__()
        self._server.server_close()
        self._server = _Server(("0.0.0.0", 25), _Handler)
        self._server.sink = self

    def reply_to(self, rcpt: Rcpt) -> str | None:
        """Return the refusal that the file asks for."""
        refused = REFUSED.read_text("utf-8").split() if REFUSED.exists() else []
        return "550 5.1.1 no such address" if rcpt.address in refused else None

    def take(self, delivery: Delivery) -> None:
        """Write it down before it is answered for."""
        found = re.search(rb"(?mi)^X-Test-Id: (\S+)", delivery.data)
        entry = {
            "from": delivery.sender,
            "to": [rcpt.raw for rcpt in delivery.rcpts],
            "id": found[1].decode() if found else "",
            "data": delivery.data.decode("utf-8", "replace"),
        }
        with TAKEN.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(entry) + "\n")


Recorder()._server.serve_forever()
