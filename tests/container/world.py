"""Runs in a container: the world that sends mail, as a server that tries again does.

    world.py SERVER RECIPIENT THREADS [PREFIX]    sends until its standard input ends, and until
                                                  more than a hundred were accepted
    world.py SERVER RECIPIENT                     sends the message on standard input, once

prints JSON: the ids of the messages that were accepted, those of which nobody knows, since the
connection broke after the last dot, how often it was told to try again, and what else was said.
"""

import json
import smtplib
import sys
import threading
import time
from collections import Counter

ENOUGH = 100
PATIENCE = 45  # seconds after the end of the input
SENDER = "anna@customer.example"
TEXT = "From: anna@customer.example\r\nTo: help@solarmora.com\r\nSubject: test\r\n"


class World:
    """What all threads share."""

    def __init__(self, server: str, recipient: str, prefix: str) -> None:
        self.server = server
        self.prefix = prefix
        self.recipient = recipient
        self.ended = float("inf")  # when the input ended
        self.accepted: list[str] = []
        self.unknown: list[str] = []
        self.replies: Counter[str] = Counter()

    def send_many(self, number: int) -> None:
        """Send until told to end, several messages a connection."""
        count = 0
        while not self._is_over():
            try:
                with smtplib.SMTP(self.server, timeout=30) as session:
                    for _ in range(5):
                        count += 1
                        self._send(session, f"{self.prefix}{number}-{count}")
                        time.sleep(0.02)
            except (OSError, smtplib.SMTPException) as error:
                self.replies[type(error).__name__] += 1
                time.sleep(0.1)

    def _is_over(self) -> bool:
        late = time.monotonic() - self.ended
        return late > (0 if len(self.accepted) > ENOUGH else PATIENCE)

    def _send(self, session: smtplib.SMTP, name: str) -> None:
        session.ehlo_or_helo_if_needed()
        for command in (f"MAIL FROM:<{SENDER}>", f"RCPT TO:<{self.recipient}>", "DATA"):
            code, _ = session.docmd(command)
            if code >= 400:
                self.replies[str(code)] += 1
                session.rset()
                return
        session.send(f"{TEXT}X-Test-Id: {name}\r\n\r\nhello\r\n.\r\n".encode())
        try:
            code, _ = session.getreply()
        except (OSError, smtplib.SMTPException):
            self.unknown.append(name)
            raise
        self.replies[str(code)] += 1
        if code == 250:
            self.accepted.append(name)


def send_once(server: str, recipient: str, message: bytes) -> None:
    """Send one message and print the reply."""
    with smtplib.SMTP(server, timeout=30) as session:
        session.ehlo("world.example")
        code, words = session.mail(SENDER)
        if code == 250:
            code, words = session.rcpt(recipient)
        if code == 250:
            code, words = session.data(message)
        print(json.dumps({"code": code, "words": words.decode()}))


def main(server: str, recipient: str, threads: int, prefix: str = "") -> None:
    """Send from so many threads until standard input ends."""
    world = World(server, recipient, prefix)
    running = [
        threading.Thread(target=world.send_many, args=(number,)) for number in range(threads)
    ]
    for each in running:
        each.start()
    sys.stdin.read()
    world.ended = time.monotonic()
    for each in running:
        each.join()
    result = {"accepted": world.accepted, "unknown": world.unknown, "replies": world.replies}
    print(json.dumps(result))


if len(sys.argv) > 3:
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), *sys.argv[4:])
else:
    send_once(sys.argv[1], sys.argv[2], sys.stdin.buffer.read())
