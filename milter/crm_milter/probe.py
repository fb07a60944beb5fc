"""One real mail, sent as a client would: what ``verify`` asks the whole chain with."""

import secrets
import smtplib
from dataclasses import dataclass
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8
from email.utils import formatdate

# What every spam filter takes for spam (https://spamassassin.apache.org/gtube/).
GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
SMTP_PORT = 25
_SECONDS = 60.0  # for the whole dialogue; Postfix may wait for its milters


@dataclass(frozen=True, slots=True)
class Reply:
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
    """A mail to ``recipient``; the token stands in its subject and message id, and nowhere else."""

    token: str
    sender: str
    recipient: str
    spam_line: str = ""

    def message(self) -> EmailMessage:
        """Return the mail."""
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

    def send(self, host: str, port: int) -> Reply:
        """Send it; every failure is a reply."""
        stage = "connect"
        try:
            with smtplib.SMTP(local_hostname=self.sender.rpartition("@")[2]) as client:
                client.timeout = _SECONDS
                code, text = client.connect(host, port)
                if code != 220:
                    return _reply(stage, code, text)
                client.ehlo_or_helo_if_needed()
                options = [] if self._is_ascii else ["SMTPUTF8", "BODY=8BITMIME"]
                stage = "MAIL"
                code, text = client.mail(self.sender, options)
                if code == 250:
                    stage = "RCPT"
                    code, text = client.rcpt(self.recipient)
                if code not in (250, 251):
                    return _reply(stage, code, text)
                stage = "message"
                return _reply(stage, *client.data(self._octets()))
        except smtplib.SMTPResponseException as error:
            return _reply(stage, error.smtp_code, error.smtp_error)
        except (OSError, smtplib.SMTPException) as error:
            reason = getattr(error, "strerror", None) or str(error)
            return Reply(stage, 0, f"no answer from {host}:{port}: {reason.lower()}")

    @property
    def _is_ascii(self) -> bool:
        return self.sender.isascii() and self.recipient.isascii()

    def _octets(self) -> bytes:
        message = self.message()
        return message.as_bytes(policy=SMTP if self._is_ascii else SMTPUTF8)


def new_token() -> str:
    """Return a word that no other mail has."""
    return f"crm-milter-verify-{secrets.token_hex(8)}"


def _reply(stage: str, code: int, text: bytes | str) -> Reply:
    words = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
    return Reply(stage, code, " ".join(words.split()))
