"""A spam filter for tests: a milter of its own, that stands before ours as a real one would.

Called with the path of its socket and that of a file, whose word says what it does to a message
with the GTUBE line: "mark" it, "refuse" it, or nothing, as if the client were exempt ("skip").
Ham is marked as ham by "mark" alone; "forged" says of all mail that it fails DMARC.
"""

import sys
from pathlib import Path

import Milter

GTUBE = b"GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL"


class Filter(Milter.Base):
    """One connection; ``mood`` is the file."""

    mood: Path

    def envfrom(self, _sender: str, *_parameters: str) -> int:
        self.seen = b""
        return Milter.CONTINUE

    def body(self, chunk: bytes) -> int:
        self.seen += chunk
        return Milter.CONTINUE

    def eom(self) -> int:
        spam = GTUBE in self.seen
        mood = self.mood.read_text()
        if mood == "refuse" and spam:
            self.setreply("554", "5.7.1", "Gtube pattern")
            return Milter.REJECT
        if mood == "mark":
            self.addheader("X-Spam-Flag", "YES" if spam else "NO")
        if mood == "forged":
            self.addheader("Authentication-Results", "mx.solarmora.com; dmarc=fail")
        return Milter.CONTINUE


def main() -> None:
    """Serve until SIGTERM."""
    socket, mood = sys.argv[1:]
    Filter.mood = Path(mood)
    Milter.factory = Filter
    Milter.set_flags(Milter.ADDHDRS)
    Milter.runmilter("filter", f"unix:{socket}", timeout=60)


if __name__ == "__main__":
    main()
