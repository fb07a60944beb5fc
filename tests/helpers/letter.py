"""The messages that the Postfix tests send."""

from crm_milter.routing.decide import Policy
from crm_milter.routing.marker import marker
from crm_milter.rules.table import RuleTable

JOE = "<joe@customer.example>"
HAM = "X-Spam-Flag: NO"
SPAM = "X-Spam-Flag: YES"


def looping(rule: str) -> str:
    """The header fields of a message that this rule of a milter without a key was applied to."""
    message_id = "<20261128.1@customer.example>"
    identity, *_ = Policy(RuleTable()).facts([("message-id", message_id)]).identities
    return f"Message-ID: {message_id}\r\nX-CRM-Milter: {marker(b'', rule, identity)}"


def letter(*fields: str, body: str = "It does not work.\r\n") -> bytes:
    """A message with these header fields between its first and its last."""
    lines = ["From: Joe <joe@customer.example>", *fields, "Subject: help"]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("utf-8", "surrogateescape")
