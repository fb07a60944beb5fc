"""One real message, sent as a client would, by which ``verify`` tests the whole chain."""

import secrets
import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import formatdate
from typing import Any

from crm_milter.wording import why

# What every spam filter takes for spam (https://spamassassin.apache.org/gtube/).
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
SMTP_PORT, SMTPS_PORT = 25, 465
SERVICE_READY = 220
_GLIMPSE = 10.0  # seconds for a server's greeting
_GREETING = 12.0  # and until a server is taken for one that waits for TLS; postscreen waits 6
_SECONDS = 60.0  # for the whole dialogue; Postfix may wait for its milters


@dataclass(frozen=True, slots=True)
class ServerReply:
    """What the server said last; ``stage`` is the command it answered, code 0 for no answer."""

    stage: str
    code: int
    text: str

    @property
    def accepted(self) -> bool:
        """Tell whether the message is the server's now."""
        return self.stage == "message" and self.code == 250

    @property
    def queue_id(self) -> str:
        """Return the queue id, that of the last server if one relayed to another, or ""."""
        words = self.text.rpartition("queued as ")[2].split() if "queued as" in self.text else []
        return words[0] if words else ""

    def __str__(self) -> str:
        return f"{self.code} {self.text}" if self.code else self.text


@dataclass(frozen=True, slots=True)
class Probe:
    """A mail to ``recipient``; the token stands in its subject and message id, and nowhere else.

    ``until_case`` is how many seconds to wait for an answer to its sender, 0 for none.
    """

    token: str
    sender: str
    recipient: str
    spam_line: str = ""
    until_case: float = 0.0

    def message(self) -> EmailMessage:
        message = EmailMessage()
        message["From"] = self.sender
        message["To"] = self.recipient
        message["Date"] = formatdate(localtime=True)
        message["Subject"] = f"test message {self.token}"
        message["Message-ID"] = f"<{self.token}@{self.sender.rpartition('@')[2]}>"
        message.set_content(
            'This is a test message sent by "crm-milter verify" to check that mail to\n'
            f"{self.recipient} reaches its destination.\n"
            "If it opened a case, the case can be closed.\n"
            + (f"\n{self.spam_line}\n" if self.spam_line else "")
        )
        return message

    def send(
        self, host: str, port: int, *, connected: Callable[[], None] = lambda: None
    ) -> ServerReply:
        """Send it; every failure is a reply. ``connected`` may raise before there is mail."""
        name = self.sender.rpartition("@")[2]
        return hand_in((host, port), self.sender, [self.recipient], self._octets(), name, connected)

    @property
    def _is_ascii(self) -> bool:
        return self.sender.isascii() and self.recipient.isascii()

    def _octets(self) -> bytes:
        message = self.message()
        return message.as_bytes(policy=SMTP if self._is_ascii else SMTPUTF8)


def hand_in(
    server: tuple[str, int],
    sender: str,
    recipients: Sequence[str],
    octets: bytes,
    own_name: str = "",
    connected: Callable[[], None] = lambda: None,
) -> ServerReply:
    """Send a message, lines ending with CRLF; every failure is a reply.

    ``connected`` may raise before there is mail.
    """
    dialogue = _Dialogue(*server, own_name or socket.getfqdn())
    with suppress(_NotEncryptedError):
        return _transaction(dialogue, sender, recipients, octets, connected)
    dialogue.with_tls = False  # as Postfix does with smtp_tls_security_level=may
    return _transaction(dialogue, sender, recipients, octets, connected)


def _transaction(
    dialogue: "_Dialogue",
    sender: str,
    recipients: Sequence[str],
    octets: bytes,
    connected: Callable[[], None],
) -> ServerReply:
    stage = "connect"
    try:
        with dialogue.open() as client:
            if dialogue.greeting.code != SERVICE_READY:
                return dialogue.greeting
            connected()
            options = [] if "".join([sender, *recipients]).isascii() else ["SMTPUTF8"]
            options += [] if octets.isascii() and not options else ["BODY=8BITMIME"]
            stage = "MAIL"
            code, text = client.mail(sender, options)
            for each in recipients:
                if code in (250, 251):
                    stage = "RCPT"
                    code, text = client.rcpt(each)
            if code not in (250, 251):
                return _reply(stage, code, text)
            stage = "message"
            return _reply(stage, *client.data(octets))
    except _NotEncryptedError:
        raise
    except smtplib.SMTPResponseException as error:
        return _reply(stage, error.smtp_code, error.smtp_error)
    except (OSError, smtplib.SMTPException) as error:
        where = f"{dialogue.host}:{dialogue.port}"
        return ServerReply(stage, 0, f"no answer from {where}: {why(error)}")


@dataclass(slots=True)
class _Dialogue:
    """A connection, encrypted if the server offers it, without checking its certificate."""

    host: str
    port: int
    own_name: str
    with_tls: bool = True
    greeting: ServerReply = ServerReply("connect", 0, "")

    @contextmanager
    def open(self, timeout: float = _SECONDS) -> Iterator[smtplib.SMTP]:
        """Connect, greet and encrypt; raises OSError and SMTPException."""
        with self._greeted(timeout) as client:
            if client.sock:
                client.sock.settimeout(timeout)
            if self.greeting.code == SERVICE_READY:
                client.ehlo_or_helo_if_needed()
                if self.with_tls and client.has_extn("starttls"):
                    _encrypt(client)
            yield client

    def _greeted(self, timeout: float) -> smtplib.SMTP:
        """Connect; a server that waits for TLS first (smtpd_tls_wrappermode) is silent."""
        if self.port == SMTPS_PORT:
            try:
                return self._connected(smtplib.SMTP_SSL, timeout)
            except ssl.SSLError as error:
                if error.reason != "WRONG_VERSION_NUMBER":  # not a TLS record
                    raise
        elif timeout > _GREETING:
            with suppress(smtplib.SMTPServerDisconnected):
                return self._connected(smtplib.SMTP, _GREETING)
            with suppress(OSError, smtplib.SMTPException):
                return self._connected(smtplib.SMTP_SSL, _GREETING)
        return self._connected(smtplib.SMTP, timeout)

    def _connected(self, kind: type[smtplib.SMTP], timeout: float) -> smtplib.SMTP:
        own: dict[str, Any] = {"context": _context()} if kind is smtplib.SMTP_SSL else {}
        client: Any = kind(local_hostname=self.own_name, **own)
        client._host = self.host  # smtplib takes it for SNI from its constructor alone
        client.timeout = timeout
        try:
            self.greeting = _reply("connect", *client.connect(self.host, self.port))
        except BaseException:
            client.close()
            raise
        opened: smtplib.SMTP = client
        return opened


class _NotEncryptedError(smtplib.SMTPException):
    """The server offers STARTTLS and cannot do it."""


def _encrypt(client: smtplib.SMTP) -> None:
    try:
        client.starttls(context=_context())
        client.ehlo_or_helo_if_needed()
    except (OSError, smtplib.SMTPException) as error:
        raise _NotEncryptedError(why(error)) from error


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(frozen=True, slots=True)
class Offer:
    """Whether a server offers an extension in plain text, and encrypted; None if it cannot be."""

    plain: bool
    encrypted: bool | None


def offers_dsn(host: str, port: int) -> Offer:
    """Tell whether a server offers DSN (RFC 3461); raises OSError with the reason if unknown."""
    dialogue = _Dialogue(host, port, socket.getfqdn(), with_tls=False)
    try:
        with dialogue.open(_GLIMPSE) as client:
            if dialogue.greeting.code != SERVICE_READY:
                raise OSError(0, str(dialogue.greeting))
            plain = client.has_extn("dsn")
            if not client.has_extn("starttls"):
                return Offer(plain, None)
            with suppress(_NotEncryptedError):
                _encrypt(client)
                return Offer(plain, client.has_extn("dsn"))
            return Offer(plain, None)
    except smtplib.SMTPException as error:
        raise OSError(0, why(error)) from error


def new_token() -> str:
    """Return a word that no other mail has."""
    return f"crm-milter-verify-{secrets.token_hex(8)}"


def _reply(stage: str, code: int, text: bytes | str) -> ServerReply:
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return ServerReply(stage, code, " ".join(words.split()))
