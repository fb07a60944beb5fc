"""The marker in a message that a rule was applied to: by it mail that comes back is known.

A sender can read it (Postfix returns the header with a delivery report, RFC 3461), and so can
every recipient. It is an HMAC (RFC 2104) under a secret key, over the rule and over what names the
message, so that it tells neither the rule nor where the mail goes, and differs in every message. A
message gets one, however many rules were applied: a second would tell each reader that there is
another recipient. It then stands for all rules.
"""

import hmac
from collections.abc import Collection
from functools import lru_cache
from typing import NamedTuple

MARKER_FIELD = "X-CRM-Milter"
DIGITS = 16  # hexadecimal
ALL_RULES = ""  # instead of the name of a rule


def marker(key: bytes, rule: str, identity: str) -> str:
    """Return the mark of a rule on a message: 16 hex digits."""
    made = _keyed(key).copy()
    made.update(f"{rule}\0{identity}".encode("utf-8", "surrogatepass"))
    return made.hexdigest()[:DIGITS]


@lru_cache(maxsize=4)
def _keyed(key: bytes) -> hmac.HMAC:
    return hmac.new(key, digestmod="sha256")


class Signature(NamedTuple):
    """What the markers of one message are made with."""

    key: bytes = b""
    identity: str = ""

    def of(self, stands_for: str) -> tuple[str, str]:
        """Return the header field with the marker of a message, for a rule or for all."""
        return MARKER_FIELD, marker(self.key, stands_for, self.identity)


UNSIGNED = Signature()


def stands_for(rules: Collection[str]) -> str:
    """Return what the one marker of a message stands for that these rules were applied to."""
    return next(iter(rules)) if len(rules) == 1 else ALL_RULES
