"""The messages that the Postfix tests send."""

JOE = "<joe@customer.example>"
HAM = "X-Spam-Flag: NO"
SPAM = "X-Spam-Flag: YES"


def letter(*fields: str, body: str = "It does not work.\r\n") -> bytes:
    """A message with these header fields between its first and its last."""
    lines = ["From: Joe <joe@customer.example>", *fields, "Subject: help"]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode("utf-8", "surrogateescape")
