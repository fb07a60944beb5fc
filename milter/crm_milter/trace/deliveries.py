"""What became of rerouted mail, counted line by line in bounded memory.

Lines of crm-milter say which recipients of a message to follow, lines of Postfix what became of
each attempt. Either may be late, so recent lines of Postfix are kept, and searched when a line of
crm-milter arrives. A message that becomes another one (by a content filter, a forward or a
requeue) is followed further.
"""

import re
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from crm_milter.rules.rule import key
from crm_milter.trace.followed import Message, Messages, Part, RecentLines
from crm_milter.trace.frame import QUEUE_ID, Frame, unframed
from crm_milter.trace.lines import DecisionLine, Delivery, Line, decided, delivery
from crm_milter.trace.stamps import Clock

OUTCOMES = ("sent", "deferred", "bounced", "expired")
TARGET, COPY, INSURED, DEAD_LETTER = "target", "copy", "insured", "dead_letter"

_CANDIDATE = re.compile(
    rb": (?:rerouted|copied|quarantined): to=<|status=|removed\s*$|\(queue active\)|: client="
    rb"|: uid=|milter-reject: END-OF|notification: "
).search
_ENTRY = re.compile(rf"(?P<id>{QUEUE_ID}): ")
_OURS = ("rerouted: to=<", "copied: to=<", "quarantined: to=<")
_CLIENT = "client="
_BEGINNING = (_CLIENT, "uid=")
_EXPIRED = re.compile(r"from=<.*?>, status=(?:force-)?expired")
_REQUEUED = re.compile(r"uid=.* orig_id=(?P<id>[0-9A-Za-z]{6,20})\b")
_SILENCE = 86400.0  # seconds; Postfix tries more often, so a silent message is gone
_DELETED = b"]: Deleted: "  # what postsuper says of many messages, none of which it names
_INSURED = re.compile(r" insured=<(?P<box>.*?)>")
_NOTIFICATION = re.compile(r"sender non-delivery notification: (?P<id>[0-9A-Za-z]{6,20})$")
_CLOCK_LASTS = 3600.0  # seconds; it tells the years of time stamps by the day that it began


@dataclass(frozen=True, slots=True)
class Ours:
    """Addresses of a rule in normal form: of its copies, and for its dead letters."""

    copies: frozenset[str] = frozenset()
    dead_letters: str = ""


class OwnAddresses:
    """The addresses of all rules that our lines do not name, by rule and by mailbox."""

    def __init__(self, rules: Mapping[str, Ours]) -> None:
        self.rules = rules
        # Of several rules with one mailbox for dead letters the first.
        boxes = {each.dead_letters: rule for rule, each in reversed(list(rules.items()))}
        boxes.pop("", None)
        self.boxes = {box: (rule, DEAD_LETTER) for box, rule in boxes.items()}


class Tracker:
    """Counts deliveries.

    ``seconds`` is a histogram of targets reached: one more than ``bounds``, and the sum.
    """

    def __init__(self, ours: OwnAddresses, bounds: tuple[float, ...]) -> None:
        self._ours, self._boxes = ours.rules, ours.boxes
        self._bounds = bounds
        self.counts: Counter[tuple[str, str, str]] = Counter()
        self.seconds = [0.0] * (len(bounds) + 2)
        self.dropped = 0
        self._messages = Messages()
        self._recent = RecentLines()
        self._clock, self._clock_ends = Clock(datetime.now(UTC)), 0.0

    def take(self, octets: bytes) -> None:
        """Count what a line says; lines of other programs are ignored."""
        if not _CANDIDATE(octets):
            if _DELETED in octets:
                self._doubt(unframed(octets.decode("utf-8", "replace")))
            return
        frame = unframed(octets.decode("utf-8", "replace"))
        entry = _ENTRY.match(frame.text)
        if entry is None:
            return
        queue_id, text = entry["id"], frame.text[entry.end() :]
        if text.startswith(_OURS):
            if what := decided(Line(None, frame.program, queue_id, text)):
                self._decide(queue_id, what, self._time(frame.stamps))
        elif text.startswith(_BEGINNING):
            self._begin(queue_id, text)
        else:
            self._recent.add(queue_id, text)
            if text.startswith("from=<>, size=") and self._boxes:
                self._report(queue_id)
            if message := self._messages.get(queue_id):
                message.spoken_of = time.time()
                self._act(queue_id, message, text, message.parts)

    def _doubt(self, frame: Frame) -> None:
        """Count no message as waiting until the log mentions it again."""
        if frame.program != "postsuper":
            return
        for message in self._messages:
            message.spoken_of = 0.0

    def oldest(self) -> dict[str, float]:
        """Return for each rule when the oldest message came in that is not delivered."""
        found: dict[str, float] = {}
        since = time.time() - _SILENCE
        for message in self._messages:
            if message.spoken_of < since:
                continue
            for rule, _ in message.due.values():
                found[rule] = min(found.get(rule, message.arrived), message.arrived)
        return found

    def _time(self, stamps: str) -> float:
        now = time.time()
        if time.monotonic() > self._clock_ends:
            self._clock = Clock(datetime.fromtimestamp(now, UTC))
            self._clock_ends = time.monotonic() + _CLOCK_LASTS
        said = self._clock.read(stamps) if stamps else None
        return min(now, said.timestamp()) if said else now

    # Our lines

    def _decide(self, queue_id: str, what: DecisionLine, arrived: float) -> None:
        if what.test:
            return
        if not what.rule:  # the line was cut
            self.dropped += 1
            return
        parts = {key(each): (what.rule, TARGET) for each in what.new}
        if " copies=0 " not in what.text:
            for each in self._ours.get(what.rule, Ours()).copies:
                parts.setdefault(each, (what.rule, COPY))
        if insured := _INSURED.search(what.text):
            parts.setdefault(key(insured["box"]), (what.rule, INSURED))
        self._follow(queue_id, parts, arrived)

    def _follow(self, queue_id: str, parts: dict[str, Part], arrived: float) -> None:
        """Follow recipients of a message, those that are not yet, from what was said of it on."""
        message, is_over = self._messages.open(queue_id, arrived)
        known = message.parts
        new = {
            address: part
            for address, part in parts.items()
            if address not in known or (known[address][1] == COPY and part[1] == TARGET)
        }
        self._messages.add(message, new)
        message.spoken_of = time.time()
        if message.is_active:
            message.due.update(_targets(new))
        for text in self._recent.of(queue_id):
            self._act(queue_id, message, text, new)
        if is_over:
            self._messages.end(queue_id, message)
        self.dropped += self._messages.shrink()

    # Postfix's lines

    def _begin(self, queue_id: str, text: str) -> None:
        """A message begins: one with this queue id, which may be used again, is another."""
        self._messages.forget(queue_id)
        self._recent.forget(queue_id)
        self._recent.add(queue_id, _CLIENT if text.startswith(_CLIENT) else "")
        requeued = _REQUEUED.match(text)  # by postsuper -r
        if requeued and (before := self._messages.drop(requeued["id"])):
            self._follow(queue_id, before.parts, before.arrived)

    def _report(self, queue_id: str) -> None:
        """A delivery report of another server: what it returns may be ours."""
        from_outside = self._recent.of(queue_id)[:1] == (_CLIENT,)
        if from_outside and not self._messages.get(queue_id):
            self._follow(queue_id, dict(self._boxes), time.time())

    def _act(self, queue_id: str, message: Message, text: str, parts: dict[str, Part]) -> None:
        """Apply what a line of Postfix says about some recipients of a message."""
        if text.startswith("to=<"):
            if attempt := delivery(Line(None, "", queue_id, text)):
                self._attempt(message, attempt, parts)
        elif text.endswith("(queue active)"):
            if not message.is_active:
                message.due.update(_targets(message.parts))
            message.is_active = True
        elif _EXPIRED.match(text):
            for part in message.due.values():
                self._count(message, part, "expired")
            message.due.clear()
        elif (notification := _NOTIFICATION.match(text)) and notification["id"] != queue_id:
            self._returned(message, notification["id"])
        elif text == "removed":
            self._messages.end(queue_id, message)
        elif text.startswith("milter-reject: END-OF"):
            self._messages.drop(queue_id)

    def _returned(self, message: Message, queue_id: str) -> None:
        """A message comes back in a report, to dead_letters if its sender became that."""
        if box := self._ours.get(message.refused, Ours()).dead_letters:
            self._follow(queue_id, {box: (message.refused, DEAD_LETTER)}, message.arrived)

    def _attempt(self, message: Message, attempt: Delivery, parts: dict[str, Part]) -> None:
        if attempt.status not in OUTCOMES:
            return
        to = key(attempt.to)
        address = to if to in parts else key(attempt.original)
        part = parts.get(address)
        if part is None:
            return
        message.due.pop(address, None)
        message.due.pop(to, None)
        if self._goes_on(message, attempt, address, part):
            return
        self._count(message, part, attempt.status)
        if attempt.status == "deferred":
            message.due[to] = part
        elif attempt.status == "sent" and part[1] == TARGET and attempt.delay is not None:
            self.seconds[bisect_left(self._bounds, attempt.delay)] += 1
            self.seconds[-1] += attempt.delay

    def _count(self, message: Message, part: Part, outcome: str) -> None:
        self.counts[(*part, outcome)] += 1
        if part[1] == TARGET and outcome in ("bounced", "expired"):
            message.refused = message.refused or part[0]

    def _goes_on(self, message: Message, attempt: Delivery, address: str, part: Part) -> bool:
        """Tell whether the message was only handed on within this host, and follow it."""
        if attempt.status != "sent":
            return False
        for queue_id in Line(None, "", "", attempt.words).links:
            if queue_id in self._recent or "forwarded as" in attempt.words:
                self._follow(queue_id, {address: part}, message.arrived)
                return True
        return False

    # What outlives the process

    def forget_all_but(self, rules: Collection[str]) -> None:
        """Forget the counts of rules that are gone."""
        self.counts = Counter({what: n for what, n in self.counts.items() if what[0] in rules})

    def state(self) -> dict[str, Any]:
        """Return all of it as JSON has it."""
        return {
            "counts": [[*what, number] for what, number in self.counts.items()],
            "seconds": self.seconds,
            "dropped": self.dropped,
            **self._messages.written(),
            "recent": self._recent.written(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a state; raises LookupError, TypeError or ValueError if it is not one."""
        self.counts = Counter({(str(r), str(k), str(o)): int(n) for r, k, o, n in state["counts"]})
        if len(state["seconds"]) == len(self.seconds):  # otherwise of other bounds
            self.seconds = list(map(float, state["seconds"]))
        self.dropped = int(state["dropped"])
        self._messages.restore(state)
        self._recent.restore(state["recent"])


def _targets(parts: dict[str, Part]) -> dict[str, Part]:
    """Return the recipients that Postfix is sure to try: a copy may be withheld."""
    return {address: part for address, part in parts.items() if part[1] == TARGET}
