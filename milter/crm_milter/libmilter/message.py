"""The state of one message in a session: new at MAIL, gone at its end."""

from time import time

from crm_milter import address as addresses
from crm_milter.libmilter.esmtp import parameters as esmtp
from crm_milter.libmilter.esmtp import text
from crm_milter.routing.decide import Policy
from crm_milter.routing.decision import Recipient
from crm_milter.routing.facts import Gathering
from crm_milter.rules.conditions import Occasion

_MAX_DIGITS = 20  # of SIZE (RFC 1870 section 3)
_OF_A_FIELD = 100  # bytes that a field takes besides its value: many may be empty


class Message:
    """Most messages have no match: the arguments of MAIL are looked at when they are needed."""

    __slots__ = (
        "_argument", "_fields", "_kept", "_occasion", "_parameters", "_sender", "fault",
        "gathering", "largest_limit", "matched", "recipients", "seen", "waits",
    )  # fmt: skip

    def __init__(self, argument: bytes, parameters: tuple[bytes, ...]) -> None:
        self._argument = argument
        self._parameters = parameters
        self._sender: str | None = None
        self._occasion: Occasion | None = None
        self.recipients: list[Recipient] = []
        self._fields: list[tuple[str, bytes]] = []  # whose facts are still to be gathered
        self._kept = 0  # bytes that they take
        self.gathering: Gathering | None = None
        self.seen = 0  # bytes of header and body, as far as they matter
        self.largest_limit = 0  # bytes; above it every rule's answer is known
        self.matched = False
        self.waits = False  # the header decides which rule applies
        self.fault = False

    def add(self, recipient: Recipient, limit: int) -> None:
        """Add a recipient, with the largest limit of its rules in bytes."""
        self.recipients.append(recipient)
        if recipient.match is not None:
            self.matched = True
            self.waits = self.waits or recipient.waits
            self.largest_limit = max(self.largest_limit, limit)

    def keep(self, name: str, value: bytes) -> int:
        """Keep a header field until ``gather``; return how many bytes they take together."""
        self._fields.append((name, value))
        self._kept += len(value) + _OF_A_FIELD
        return self._kept

    def gather(self, policy: Policy) -> None:
        """Add what is kept to the facts."""
        fields, self._fields, self._kept = self._fields, [], 0
        if self.gathering is None:
            self.gathering = policy.gathering(header=self.waits)
        for name, value in fields:
            self.gathering.add(name, text(value))

    @property
    def sender(self) -> str:
        """The envelope sender in normal form."""
        if self._sender is None:
            self._sender = addresses.sender(text(self._argument))
        return self._sender

    @property
    def occasion(self) -> Occasion:
        """What conditions may ask for before the header comes; one time for all recipients."""
        if self._occasion is None:
            self._occasion = Occasion(self.sender, now=time())
        return self._occasion

    @property
    def typed_sender(self) -> str:
        """The envelope sender as the client spelt it."""
        return addresses.strip_path(text(self._argument))

    @property
    def size(self) -> int:
        """Bytes: what MAIL declared (RFC 1870) or what was seen, if more."""
        declared = esmtp(self._parameters).get("SIZE", "")
        valid = declared.isascii() and declared.isdigit() and len(declared) <= _MAX_DIGITS
        return max(int(declared) if valid else 0, self.seen)

    @property
    def is_bracketed(self) -> bool:
        """Tell whether the sender came with ``<>``: always, by SMTP; never, by sendmail(1)."""
        return self._argument.startswith(b"<")
