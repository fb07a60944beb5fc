"""Random mail from a seed: what clients send, and a book of what was said to each message."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from random import Random

from model import BOXES, UNMATCHED, Letter

from lab import smtp
from lab.base import LabError, wait_for
from lab.whole import Lab

ANNA = "anna@customer.example"
_PATIENCE = 0.1  # seconds that a client waits when it was refused for now
SLOW = "slow@customer.example"  # see faults.py
SENDERS = (ANNA, ANNA, ANNA, "", "vip@customer.example", "jösé@kunde.example", "zoë@kunde.example",
           "support@crm.example", "Case@CRM.example")  # fmt: skip
AUTHORS = (ANNA, ANNA, ANNA, ANNA, "support@crm.example", "Open@CRM.example")
# What the header says, and what that means to a reader who believes X-Spam-Flag alone.
SPAM_FIELDS = (
    ("X-Spam-Flag: NO\n", "ham"),
    ("X-Spam-Flag: NO\n", "ham"),
    ("x-spam-flag:no\n", "ham"),
    ("", "none"),
    ("X-Spam-Flag: YES\n", "spam"),
    ("X-Spam-Flag:\n\tYES\n", "spam"),
    ("X-Spam-Flag: yes\n \t(really)\n", "spam"),
    ("X-SPAM-FLAG:   Yes  \n", "spam"),
    # Forged: fields of other filters, lookalikes, and words inside other fields.
    ("X-Spam-Status: Yes, score=99\nX-Spam: yes\n", "none"),
    ("X-Spam-Flagged: YES\nSubject: X-Spam-Flag: YES\n", "none"),
    ("X-Spam-Flag: NOYES\nX-Spam-Flag: YESTERDAY\n", "none"),
    ("Comments: x\n X-Spam-Flag: YES\nX-Spam-Flag: NO\n", "ham"),
    # Conflicting: somebody says spam.
    ("X-Spam-Flag: NO\nX-Spam-Flag: YES\n", "spam"),
    ("X-Spam-Flag: YES\nX-Spam-Flag:\n NO\n", "spam"),
)
AUTOMATIC_FIELDS = (
    "Auto-Submitted: auto-replied (vacation)\n", "Auto-Submitted:\n (no) auto-generated; x=no\n",
    "X-Autorespond: Re: x\n", "Precedence: BULK\n", "precedence: (a) list\n",
    "List-Id: <l.example>\n", "X-Precedence: auto_reply\n", "X-Failed-Recipients: j@b.example\n",
    'Content-Type: multipart/report;\n\treport-type="delivery-status"; boundary=x\n',
)  # fmt: skip
PEOPLES_FIELDS = ("", "", "", "Auto-Submitted: no; x=auto-replied\n", "List-Unsubscribe: <x>\n",
                  "X-Auto-Response-Suppress: All\n", "Precedence: first-class\n")  # fmt: skip
# Of two filters of ours and of others; and what that means.
DMARC_FIELDS = (
    *(("", False),) * 6,
    ("Authentication-Results: mx.solarmora.com; dmarc=pass (p=none)\n", False),
    ("Authentication-Results: evil.example; dmarc=fail\n", False),
    ('Authentication-Results: edge;\n\tspf=pass;\n\tdmarc=fail reason="x;y"\n', True),
    ("Authentication-Results: (a) MX.solarmora.com 1;DMARC = fail\n", True),
    ("Authentication-Results: edge; dmarc=pass\nAuthentication-Results: edge; dmarc=fail\n", True),
)
# What a person reads in them, and whether To or Cc has named@.
TOPIC_FIELDS = (
    *(("", ""),) * 4,
    ("X-Topic: Ihre RECHNUNG 7\n", "rechnung"),
    ("X-Topic: =?utf-8?q?Rech?=\n =?iso-8859-1?b?bnVuZw==?=\n", "rechnung"),
    ("X-Topic: hello\nx-topic:\n\t(rechnung)\n", "rechnung"),
    ("X-Topic: =?utf-8?b?!!!?= =?x?q?=?= =?=\nX-Topic: rech nung\n", "other"),
    ("x-topic:\n", "other"),
)
TO_FIELDS = (
    *(("", False),) * 2,
    ("To: Somebody <named@solarmora.com>\n", True),
    ("To: a@b.example\nCc: a@c.example,\n NAMED@SolarMora.com\n", True),
    ('To: named@solarmora.com.example, "named@solarmora.com" <a@b.example>\n', False),
    ("To: undisclosed-recipients:;\nReply-To: named@solarmora.com\n", False),
)
SIZES = (0, 100, 100, 3_000, 12_000, 40_000, 120_000)
_ASKED = ("", "", "", " NOTIFY=NEVER", " NOTIFY=FAILURE,DELAY", " NOTIFY=SUCCESS",
          " NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;x+2By@z.example")  # fmt: skip


@dataclass
class Sending:
    """A letter on its way, the bytes of it, and what became of it at the client's end."""

    letter: Letter
    text: bytes = field(repr=False)
    rcpts: list[str]
    how: str  # "send", or how it is given up
    reply: int = 0  # 0: none was seen
    said: str = ""
    accepted: list[int] = field(default_factory=list)  # which recipients were


def sending(random: Random, number: str, slow: float = 0.0) -> Sending:
    """One random message; ``slow`` is how likely it takes too long at its end."""
    spam, verdict = random.choice(SPAM_FIELDS)
    sender = SLOW if random.random() < slow else random.choice(SENDERS)
    author, size = random.choice(AUTHORS), random.choice(SIZES)
    automatic = random.random() < 0.15
    pool = UNMATCHED if random.random() < 0.1 else BOXES
    chosen = [random.choice(pool) for _ in range(random.choice((1, 1, 1, 2, 2, 3, 4, 8)))]
    if random.random() < 0.15:
        chosen.append(random.choice(chosen))  # a duplicate, perhaps in another spelling
    boxes = tuple((box, random.choice(box.spellings)) for box in chosen)
    dmarc, forged = random.choice(DMARC_FIELDS)
    topics, topic = random.choice(TOPIC_FIELDS)
    to, named = random.choice(TO_FIELDS)
    letter = Letter(
        number, sender, author, boxes, verdict, automatic, size, forged, topic, named
    )  # fmt: skip
    head = f"X-Ledger: {number}\nFrom: Somebody <{author}>\n{spam}"
    head += random.choice(AUTOMATIC_FIELDS if automatic else PEOPLES_FIELDS)
    head += dmarc + topics + to
    rcpts = [spelling + (random.choice(_ASKED) if "@" in sender else "") for _, spelling in boxes]
    how = random.choice(("send",) * 16 + ("rset", "drop", "drop in data", "ehlo"))
    body = ("x" * 69 + "\n") * (size // 70)
    text = f"{head}Subject: kaputt\n\n{body}.\n".encode() + b"\xff\xe9 in 8 bits\n"
    return Sending(letter, text, rcpts, how)


@dataclass
class Book:
    """All that was sent, and how many messages were accepted and refused so far."""

    sendings: list[Sending] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def enter(self, one: Sending) -> None:
        """Take down what was said to a message."""
        self.sendings.append(one)
        kind = {2: "accepted", 4: "refused for now", 5: "refused", 0: "no reply"}[one.reply // 100]
        self.counts[kind if one.how == "send" else "given up"] += 1

    def wait(self, kind: str, more: int, timeout: float = 60) -> None:
        """Return when so many more of a kind were entered."""
        goal = self.counts[kind] + more
        wait_for(f"{more} more {kind}", lambda: self.counts[kind] >= goal or self.broken, timeout)


@dataclass
class Client:
    """One of several that send without a pause; its mail depends on the seed and its name."""

    lab: Lab
    book: Book
    seed: str
    stopping: threading.Event
    slow: float = 0.0

    def run(self) -> None:
        """Session after session, until told to stop; a fault of the client itself is noted."""
        random, number = Random(self.seed), 0
        try:
            while not self.stopping.is_set():
                session = [
                    sending(random, f"{self.seed}.{number + each}", self.slow)
                    for each in range(random.choice((1, 2, 4)))
                ]
                number += len(session)
                self._session(session)
        except Exception as error:  # a thread cannot fail otherwise
            self.book.broken.append(repr(error))

    def _session(self, sendings: list[Sending]) -> None:
        with smtp.Session(self.lab.postfix.port) as session:
            for each in sendings:
                if self.stopping.is_set():
                    return
                try:
                    goes_on = _send(session, each)
                except (LabError, OSError):  # smtpd hung up: there was no reply, or 421
                    goes_on = False
                self.book.enter(each)
                if each.reply // 100 == 4:
                    self.stopping.wait(_PATIENCE)
                if not goes_on:
                    return


def _send(session: smtp.Session, one: Sending) -> bool:
    """Send it, or give it up as it says; whether the session can go on."""
    # Postfix takes a sender in UTF-8 without SMTPUTF8 as well, but no such recipient (501).
    needed = one.letter.sender.startswith("jös") or not "".join(one.rcpts).isascii()
    utf8 = " SMTPUTF8" if needed else ""
    reply = session.cmd(f"MAIL FROM:<{one.letter.sender}>{utf8}")
    for number, rcpt in enumerate(one.rcpts if reply.code == 250 else ()):
        reply = session.cmd(f"RCPT TO:{rcpt}")
        if reply.code == 250:
            one.accepted.append(number)
    if one.how in ("rset", "ehlo"):
        session.cmd("RSET" if one.how == "rset" else "EHLO again.example")
        return True
    if one.how == "drop":
        return False
    if one.accepted:
        reply = session.cmd("DATA")
    if reply.code == 354 and one.how == "drop in data":
        session.send_raw(one.text[: len(one.text) // 2])
        return False
    if reply.code == 354:
        reply = session.content(one.text)
    one.reply, one.said = reply
    if reply.code != 250:
        session.cmd("RSET")
    return True
