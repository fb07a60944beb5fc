"""A rejected message as it was sent, without what delivery and we have added; from and to whom."""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from crm_milter import address as addresses
from crm_milter.libmilter import header as fields
from crm_milter.resend import report
from crm_milter.resend.report import NotOursError, Report
from crm_milter.routing.authors import addressees
from crm_milter.routing.decide import Policy
from crm_milter.routing.marker import ALL_RULES, DIGITS, MARKER_FIELD, marker

# What the delivery to a mailbox puts before a message, mbox's line included.
_DELIVERED = re.compile(
    rb"(?:From [^\n]*\n)?"
    rb"(?:(?:Return-Path|Delivered-To|X-Original-To|Envelope-To):[^\n]*\n(?:[ \t][^\n]*\n)*)*",
    re.IGNORECASE,
)
_RETURN_PATH = re.compile(rb"^Return-Path:[ \t]*<([^\n>]*)>", re.IGNORECASE | re.MULTILINE)
# Between two messages in a mailbox of the form mbox; within one it is quoted.
_NEXT = re.compile(rb"\n\r?\nFrom [^\r\n]*\d\d:\d\d[^\r\n]*\d{4}[^\r\n]*\r?\n[!-9;-~]+:")
_EMPTY_LINE = re.compile(rb"(?:\A|\n)\r?\n")
_MARK = re.compile(
    rb"^%b:[ \t]*([0-9a-f]{%d})[ \t]*\r?\n(?![ \t])" % (MARKER_FIELD.encode(), DIGITS),
    re.IGNORECASE | re.MULTILINE,
)

_UNREAD = (
    "it is a bounce in a form that is not read: save the message that it returns to a file,"
    " and hand in that file"
)


class Letter(NamedTuple):
    """A message to hand in; ``known_as`` tells it from every other one."""

    message: bytes  # lines end with CRLF
    sender: str  # "" is the null sender
    recipients: tuple[str, ...]
    known_as: str
    queue_id: str = ""  # under which it was rejected


class Letters:
    """Makes letters of messages, by one configuration."""

    def __init__(self, policy: Policy) -> None:
        self._policy = policy
        boxes = [policy.dead_letters, *(each.dead_letters for each in policy.table.rules)]
        self._boxes = {addresses.normalise(each) for each in boxes if each}

    def letter(self, octets: bytes, to: str = "") -> Letter:
        """Return the letter in a report or a message; raises NotOursError."""
        if octets.startswith(b"From ") and _NEXT.search(octets):
            raise NotOursError(
                "it is a mailbox (mbox) with several messages: hand in each of them as a file"
            )
        delivered = _DELIVERED.match(octets)
        before, rest = octets[: delivered.end()], octets[delivered.end() :]  # type: ignore[union-attr]
        head = report.header(rest)
        # With our mark it is a report that a rule was applied to, and not one on our mail.
        if not report.is_report(head) or self._without_marker(rest) != rest:
            with self._advice(before, rest):
                recipients = (to,) if to else self._one_of(_addressed(rest))
            sender = self._sender(before, rest, "")
            return self._made(rest, sender, recipients, rest)
        found = report.take_apart(rest, head)
        inside = _DELIVERED.match(found.message).end()  # type: ignore[union-attr]
        before, rest = found.message[:inside], found.message[inside:]
        with self._advice(before, rest):
            recipients = (to,) if to else self._recipients(found, rest)
        envelope_id = report.unescaped(found.about.get("original-envelope-id", ""))
        sender = self._sender(before, rest, envelope_id)
        queue_id = found.about.get("x-postfix-queue-id", "")
        names = [found.about.get(each, "") for each in ("reporting-mta", "arrival-date")]
        origin = "\0".join([queue_id, *names]).encode() if queue_id else octets
        return self._made(rest, sender, recipients, origin)._replace(queue_id=queue_id)

    @contextmanager
    def _advice(self, before: bytes, message: bytes) -> Iterator[None]:
        """Advise no ``--to`` for a bounce, which would go to the CRM instead of what it returns.

        One with our mark is itself what a rule was applied to.
        """
        try:
            yield
        except NotOursError:
            path = _RETURN_PATH.search(before)
            is_bounce = report.is_bounce(message, has_null_sender=bool(path and not path[1]))
            if is_bounce and self._without_marker(message) == message:
                raise NotOursError(_UNREAD) from None
            raise

    def _made(
        self, octets: bytes, sender: str, recipients: tuple[str, ...], origin: bytes
    ) -> Letter:
        # A message that two targets reject one after the other gives two reports.
        to = sorted(map(addresses.normalise, recipients))
        known_as = hashlib.sha256("\0".join(to).encode() + b"\0" + origin).hexdigest()
        message = re.sub(rb"\r?\n", b"\r\n", self._without_marker(octets))
        return Letter(message, sender, recipients, known_as)

    def _recipients(self, found: Report, message: bytes) -> tuple[str, ...]:
        """Return the recipients that a report names, or else that the message itself does."""
        named = found.said("original-recipient")
        ours = tuple(each for each in named if self._is_routed(each))
        if ours:
            return ours
        # A server without DSN knows the target alone.
        rejecting = {addresses.normalise(each) for each in (*named, *found.said("final-recipient"))}
        addressed = list(_addressed(message))
        aimed = [each for each in addressed if not rejecting.isdisjoint(self._targets(each))]
        if named and not aimed:
            raise NotOursError(
                f"no rule replaces <{named[0]}>, which it was sent to: use --to ADDRESS"
            )
        return self._one_of(iter(aimed or addressed))

    def _one_of(self, named: Iterator[str]) -> tuple[str, ...]:
        ours = list(
            {addresses.normalise(each): each for each in named if self._is_routed(each)}.values()
        )
        if len(ours) == 1:
            return tuple(ours)
        if not ours:
            raise NotOursError("To and Cc name no address that a rule replaces: use --to ADDRESS")
        several = " and ".join(f"<{each}>" for each in ours)
        raise NotOursError(f"To and Cc name {several}: choose one with --to ADDRESS")

    def _is_routed(self, address: str) -> bool:
        normal = addresses.normalise(address)
        return any(match.rule.replaces for match in self._policy.table.possible(normal))

    def _targets(self, address: str) -> set[str]:
        """Return what an address may be replaced with, in normal form."""
        matches = self._policy.table.possible(addresses.normalise(address))
        return {addresses.normalise(each) for match in matches for each in match.targets() or ()}

    def _sender(self, before: bytes, message: bytes, envelope_id: str) -> str:
        """Return who sent it: by ENVID, by Return-Path if that is not ours, or else by From."""
        if _is_address(envelope_id):
            return envelope_id
        path = _RETURN_PATH.search(before)
        if path:
            sender = path[1].decode("utf-8", "replace")
            if not sender or (
                _is_address(sender) and addresses.normalise(sender) not in self._boxes
            ):
                return sender
        authors = report.values(report.header(message), "From")[:1]
        return next((each for value in authors for each in _addresses(value)), "")

    def _without_marker(self, message: bytes) -> bytes:
        """Return a message without our own marker; what others have written there stays."""
        end = _EMPTY_LINE.search(message)
        head = message[: end.end()] if end else message
        marks = _MARK.findall(head)
        if not marks:
            return message
        wanted = self._policy.wanted_fields
        facts = self._policy.facts(each for each in fields.fields(head) if each[0] in wanted)
        names = [ALL_RULES, *(rule.name for rule in self._policy.table.rules)]
        ours = {
            marker(self._policy.marker_key, name, identity).encode()
            for name in names
            for identity in facts.identities
        }
        kept = _MARK.sub(lambda found: b"" if found[1].lower() in ours else found[0], head)
        return kept + message[len(head) :]


def _addressed(message: bytes) -> Iterator[str]:
    head = report.header(message)
    for name in ("To", "Cc"):
        for value in report.values(head, name):
            yield from _addresses(value)


def _addresses(value: str) -> Iterator[str]:
    return filter(_is_address, addressees(value))


def _is_address(text: str) -> bool:
    return "@" in text.strip("@") and text.isprintable() and not re.search(r"[<>\r\n]", text)
