"""Who must get a message: an independent account, written from the promises, not from the code.

It knows nothing of ``decide()``. The rules stand here twice: as the YAML that the milter reads,
and as clauses that a person wrote beside it; which clause is for which recipient is said by hand,
box for box, so that no code of the product decides what is expected of it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

CONFIG = """
milter:
  listen: LISTEN
  socket_mode: "0666"
  workers: 2
  drain_timeout: 1
metrics:
  listen: METRICS
recipient_delimiter: "+"
known_recipients: [known]
unrouted_to: it@solarmora.com
dead_letters: Lost@solarmora.com
spam: amavis
authentication: [mx.solarmora.com, edge]
rules:
  - name: plain
    match: help@solarmora.com
    replace_with: support@crm.example
    also_deliver_to: [team@solarmora.com, {address: boss@solarmora.com, deliver_spam: true}]
  - {name: same, match: [hilfe@solarmora.com, hilfe@münchen.example], replace_with: Support@crm.example}
  - {name: glob, match: case-*@solarmora.com, replace_with: \\1@cases.example}
  - {name: regex, match: '/(?:bug|defect)-([0-9]+)@solarmora\\.com/', replace_with: ticket-\\1@crm.example}
  - {name: domain, match: "@moved.example", replace_with: "@new.example", bypass_spam_filter: true}
  - {name: list, match: "file:list", replace_with: listed@crm.example, also_deliver_to: [team@solarmora.com]}
  - {name: map, address_map: map}
  - {name: open, match: open@solarmora.com, replace_with: open@crm.example, bypass_spam_filter: true,
     also_deliver_to: [team@solarmora.com, {address: boss@solarmora.com, deliver_spam: true}]}
  - {name: reject, match: reject@solarmora.com, replace_with: r@crm.example, on_spam: reject}
  - {name: hold, match: hold@solarmora.com, replace_with: h@crm.example, on_spam: quarantine,
     also_deliver_to: [team@solarmora.com]}
  - {name: drop, match: drop@solarmora.com, replace_with: d@crm.example, on_spam: discard}
  - {name: copies, match: alice@solarmora.com, also_deliver_to: [archive@crm.example]}
  - {name: vip, match: desk@solarmora.com, senders: vip@customer.example, replace_with: vip@crm.example}
  - {name: nobounce, match: desk@solarmora.com, except_senders: "<>", replace_with: desk@crm.example}
  - {name: unknown, match: "@staff.example", apply_to: unknown, replace_with: lost@crm.example}
  - {name: human, match: human@solarmora.com, replace_with: human@crm.example, automatic: leave}
  - {name: signed, match: signed@solarmora.com, replace_with: signed@crm.example, on_unauthenticated: leave}
  - {name: proven, match: proven@solarmora.com, replace_with: proven@crm.example, on_unauthenticated: reject}
  - {name: counted, match: counted@solarmora.com, replace_with: counted@crm.example,
     flood: {limit: 1 in 7d, then: count}}
  - {name: enough, match: enough@solarmora.com, replace_with: enough@crm.example,
     flood: {limit: 1000000 in 7d, per: subject, then: tempfail}}
  - {name: loud, match: loud@solarmora.com, replace_with: loud@crm.example, also_deliver_to: [archive@crm.example],
     flood: {limit: 1 in 7d, then: leave}}
  - {name: later, match: later@solarmora.com, replace_with: later@crm.example,
     flood: {limit: 1 in 7d, then: tempfail}}
  - {name: held, match: held@solarmora.com, replace_with: held@crm.example, also_deliver_to: [archive@crm.example],
     flood: {limit: 1 in 7d, then: hold}}
  - {name: small, match: small@solarmora.com, replace_with: small@crm.example, max_size: 25K}
  - {name: tiny, match: tiny@solarmora.com, replace_with: tiny@crm.example, max_size: 25K,
     on_oversize: reject}
  - {name: trial, match: trial@solarmora.com, replace_with: trial@crm.example, mode: test}
  - {name: bounces, match: sales@solarmora.com, replace_with: sales@crm.example,
     dead_letters: bounces@solarmora.com, add_headers: {X-Original: "{recipient}"}}
  - {name: topic, match: topic@solarmora.com, headers: {X-Topic: "*rechnung*"}, replace_with: topic@crm.example}
  - {name: rest, match: topic@solarmora.com, except_headers: {X-Topic: "*"}, replace_with: rest@crm.example}
  - {name: named, match: named@solarmora.com, addressed: to_or_cc, replace_with: named@crm.example}
  - {name: over, match: dated@solarmora.com, until: 2020-01-01 00:00Z, replace_with: over@crm.example}
  - {name: dated, match: dated@solarmora.com, from: 2020-01-01 00:00Z, replace_with: dated@crm.example}
  - {name: case-a, match: ca@solarmora.com, replace_with: ca@crm.example, case_group: crm, automatic: leave}
  - {name: case-b, match: cb@solarmora.com, replace_with: cb@crm.example, case_group: crm,
     also_deliver_to: [archive@crm.example, {address: boss@solarmora.com, deliver_spam: true}]}
  - {name: case-c, match: cc@solarmora.com, replace_with: cc@crm.example, case_group: crm,
     bypass_spam_filter: true, also_deliver_to: [team@solarmora.com]}
  - {name: paused, match: paused@solarmora.com, replace_with: paused@crm.example, also_deliver_to: [archive@crm.example]}
  - {name: waits, match: waits@solarmora.com, replace_with: waits@crm.example, also_deliver_to: [archive@crm.example]}
  - {name: extend, match: ext@solarmora.com, replace_with: ext@crm.example, propagate_extension: true}
"""  # noqa: E501 - a rule a line
FILES = {
    "known": "carol@staff.example x\n",
    "list": "one@solarmora.com\ntwo@solarmora.com\n",
    "map": "mapped@solarmora.com m1@crm.example, m2@crm.example\n@mapped.example all@crm.example\n",
}
PAUSED = {"paused": False, "waits": True}  # by rule: whether its mail is held
LIMIT = 25 * 1024  # bytes, of the rules "small" and "tiny"


@dataclass(frozen=True)
class Clause:
    """What one rule asks for; the words are those of the design."""

    targets: tuple[str, ...] = ()
    copies: tuple[str, ...] = ()
    spam_copies: tuple[str, ...] = ()  # those with deliver_spam, which ham gets as well
    bypass: bool = False
    on_spam: str = "leave"
    automatic: str = "route"
    forged: str = "route"
    topic: str | None = None  # what X-Topic must say: "rechnung", "" for nothing, None for any
    named: bool = False  # the address must stand in To or Cc
    case: int = 0  # of those with a number only the first opens a case
    oversize: str = ""  # what happens above LIMIT; "": there is no limit
    pause: str = ""  # what happens as long as the rule is paused
    flood: str = ""  # what happens to the second message of a sender
    test: bool = False
    dead: str = "lost@solarmora.com"  # gets whole what a target refuses


@dataclass(frozen=True)
class Box:
    """One address: how a client may write it, where it lands when left, and its clauses.

    A clause is for the senders that it names (None: for all), less the senders that it excepts.
    """

    spellings: tuple[str, ...]
    lands: str
    clauses: tuple[tuple[tuple[str, ...] | None, tuple[str, ...], Clause], ...] = ()

    def __repr__(self) -> str:
        return self.spellings[0]

    def clause(self, letter: Letter) -> Clause | None:
        """The first whose conditions hold."""
        for only, never, clause in self.clauses:
            if clause.topic not in (None, letter.topic) or (clause.named and not letter.named):
                continue
            if (only is None or letter.sender in only) and letter.sender not in never:
                return clause
        return None


BOUNCES = "bounces@solarmora.com"
TEAM, BOSS = ("team@solarmora.com",), ("boss@solarmora.com",)


def _box(name: str, clause: Clause, *spellings: str) -> Box:
    """An address that the map of virtual aliases sends to a mailbox of its own."""
    address = f"{name}@solarmora.com"
    more = (f"<{address}>", f"<{name.title()}@SolarMora.com>", address, *spellings)
    return Box(more, f"box-{name}@mailbox.example", ((None, (), clause),))


def _wild(address: str, clause: Clause | None) -> Box:
    """An address that a pattern takes: where it is left it is delivered as it stands."""
    clauses = ((None, (), clause),) if clause else ()
    return Box((f"<{address}>", f"<{address.title()}>"), address, clauses)


_PLAIN = Clause(("support@crm.example",), TEAM, BOSS)
_HILFE = Clause(("support@crm.example",))
_ODD = ("<@relay.example:{}@solarmora.com>", '<"{}"@solarmora.com>', "<{}@solarmora.com.>",
        "<{}+x@solarmora.com>")  # fmt: skip


def _odd(name: str) -> tuple[str, ...]:
    return tuple(each.format(name) for each in _ODD)


_MATCHED = (
    _box("help", _PLAIN, *_odd("help")),
    _box("hilfe", _HILFE, *_odd("hilfe")),
    Box(("<hilfe@münchen.example>", "<Hilfe@MÜNCHEN.example>", "<hilfe@xn--mnchen-3ya.example>"),
        "box-idn@mailbox.example", ((None, (), _HILFE),)),
    *(_wild(f"case-{n}@solarmora.com", Clause((f"{n}@cases.example",))) for n in (7, 8)),
    *(_wild(f"{word}-{n}@solarmora.com", Clause((f"ticket-{n}@crm.example",)))
      for word in ("bug", "defect") for n in (1, 2)),
    *(_wild(f"{who}@moved.example", Clause((f"{who}@new.example",), bypass=True))
      for who in ("ann", "ben")),
    _wild("postmaster@moved.example", None),
    *(_box(name, Clause(("listed@crm.example",), TEAM)) for name in ("one", "two")),
    _box("mapped", Clause(("m1@crm.example", "m2@crm.example"))),
    _wild("any@mapped.example", Clause(("all@crm.example",))),
    _box("open", Clause(("open@crm.example",), TEAM, BOSS, bypass=True), *_odd("open")),
    _box("reject", Clause(("r@crm.example",), on_spam="reject")),
    _box("hold", Clause(("h@crm.example",), TEAM, on_spam="quarantine")),
    _box("drop", Clause(("d@crm.example",), on_spam="discard")),
    _wild("alice@solarmora.com", Clause((), ("archive@crm.example",))),
    Box(("<desk@solarmora.com>", "<DESK@solarmora.com>"), "box-desk@mailbox.example", (
        (("vip@customer.example",), (), Clause(("vip@crm.example",))),
        (None, ("",), Clause(("desk@crm.example",))),
    )),
    _wild("nobody@staff.example", Clause(("lost@crm.example",))),
    _wild("carol@staff.example", None),
    _box("human", Clause(("human@crm.example",), automatic="leave")),
    _box("signed", Clause(("signed@crm.example",), forged="leave")),
    _box("proven", Clause(("proven@crm.example",), forged="refuse as forged")),
    *(_box(name, Clause((f"{name}@crm.example",))) for name in ("counted", "enough")),
    _box("loud", Clause(("loud@crm.example",), ("archive@crm.example",), flood="leave")),
    _box("later", Clause(("later@crm.example",), flood="put off")),
    _box("held", Clause(("held@crm.example",), ("archive@crm.example",), flood="hold a flood")),
    _box("small", Clause(("small@crm.example",), oversize="leave")),
    _box("tiny", Clause(("tiny@crm.example",), oversize="reject")),
    _box("trial", Clause(("trial@crm.example",), test=True)),
    _box("sales", Clause(("sales@crm.example",), dead=BOUNCES)),
    Box(("<topic@solarmora.com>", "<Topic@solarmora.com>"), "box-topic@mailbox.example", (
        (None, (), Clause(("topic@crm.example",), topic="rechnung")),
        (None, (), Clause(("rest@crm.example",), topic="")),
    )),
    _box("named", Clause(("named@crm.example",), named=True)),
    _box("dated", Clause(("dated@crm.example",))),
    _box("ca", Clause(("ca@crm.example",), case=1, automatic="leave")),
    _box("cb", Clause(("cb@crm.example",), ("archive@crm.example",), BOSS, case=2)),
    _box("cc", Clause(("cc@crm.example",), TEAM, case=3, bypass=True)),
    _box("paused", Clause(("paused@crm.example",), ("archive@crm.example",), pause="leave")),
    _box("waits", Clause(("waits@crm.example",), ("archive@crm.example",), pause="hold a pause")),
    Box(("<ext+a@solarmora.com>",), "box-ext@mailbox.example",
        ((None, (), Clause(("ext+a@crm.example",))),)),
)  # fmt: skip
UNMATCHED = tuple(
    _wild(address, None)
    for address in ("team@solarmora.com", "boss@solarmora.com", "dora@solarmora.com",
                    "joe@elsewhere.example", "helper@solarmora.com", "xhelp@solarmora.com")
)  # fmt: skip
BOXES = (*_MATCHED, *UNMATCHED)


def aliases() -> dict[str, str]:
    """The map that makes Postfix deliver what is left; each address has a mailbox of its own."""
    found = {
        f"{each.lands.removeprefix('box-').partition('@')[0]}@solarmora.com": each.lands
        for each in BOXES
        if each.lands.endswith("@mailbox.example")
    }
    idn = found.pop("idn@solarmora.com")
    return found | dict.fromkeys(("hilfe@münchen.example", "hilfe@xn--mnchen-3ya.example"), idn)


@dataclass(frozen=True)
class Letter:
    """A message as a client sends it; ``verdict`` is what an honest reader sees in its header."""

    number: str
    sender: str
    author: str  # the address in From
    boxes: tuple[tuple[Box, str], ...]  # with the spelling, in the order of RCPT
    verdict: str  # spam, ham, none
    automatic: bool = False  # its header says so; the null sender does as well
    size: int = 100  # bytes of text
    forged: bool = False  # DMARC says so
    topic: str = ""  # what a person reads in X-Topic: "rechnung", or something else
    named: bool = False  # To or Cc has named@


@dataclass
class Plan:
    """What must become of a letter: the reply, and who gets it."""

    reply: int = 250
    held: bool = False
    stay: Counter[str] = field(default_factory=Counter)  # where, in how many spellings
    gone: Counter[str] = field(default_factory=Counter)
    add: set[str] = field(default_factory=set)
    marked: bool = False  # the marker may be in it: nobody but ours gets it
    sender: str = ""  # the mailbox for dead letters, if it takes the place of the sender


def _fate(clause: Clause, letter: Letter, floods: frozenset[Clause]) -> str:
    """The first reason of the design's list, or "route"."""
    if clause.targets and {*clause.targets} <= {letter.sender.lower(), letter.author.lower()}:
        return "leave"
    if clause.automatic == "leave" and (letter.automatic or not letter.sender):
        return "leave"
    if clause.forged != "route" and letter.forged:
        return clause.forged
    if clause.oversize and letter.size > LIMIT:
        return "leave" if clause.oversize == "leave" else "refuse as too large"
    if letter.verdict == "spam" and not clause.bypass:
        return clause.on_spam
    if clause.pause:
        return clause.pause
    if clause in floods:
        return clause.flood
    return "leave" if clause.test else "route"


_REFUSALS = {"reject": 550, "refuse as forged": 550, "refuse as too large": 552, "put off": 451}


def plans(letter: Letter) -> list[Plan]:
    """What the design says of this letter: only a clause with a limit leaves two ways.

    Which one depends on what the milter had counted, and a milter that was killed counts from zero.
    """
    guarded = {clause for box, _ in letter.boxes if (clause := box.clause(letter)) and clause.flood}
    ways = [frozenset[Clause]()]
    for clause in guarded:
        ways += [each | {clause} for each in ways]
    return [_plan(letter, each) for each in ways]


def _plan(letter: Letter, floods: frozenset[Clause]) -> Plan:
    fates = [(box, box.clause(letter)) for box, _ in letter.boxes]
    wishes = [
        (box, clause, _fate(clause, letter, floods) if clause else "") for box, clause in fates
    ]
    unanimous = {wish for *_, wish in wishes}
    (only,) = unanimous if len(unanimous) == 1 else ("",)
    if only in _REFUSALS:
        return Plan(reply=_REFUSALS[only], gone=Counter(box.lands for box, _ in letter.boxes))
    result = Plan(held=only in ("quarantine", "hold a flood", "hold a pause"))
    wanted: set[str] = set()
    aims: set[str] = set()
    dead: set[str] = set()
    kept: set[str] = set()  # where a rule only gives company
    sent = [clause for _, clause, wish in wishes if clause and (wish == "route" or result.held)]
    case = min((clause.case for clause in sent if clause.case), default=0)
    for box, clause, wish in wishes:
        acts = wish in ("route", "discard") or result.held
        leaves = acts and (wish == "discard" or bool(clause and clause.targets))
        (result.gone if leaves else result.stay)[box.lands] += 1
        if clause and acts and not clause.targets:
            kept.add(box.lands)
        if clause and acts and wish != "discard":
            spam = letter.verdict == "spam" and not result.held
            targets = {*clause.targets} - {letter.sender.lower(), letter.author.lower()}
            targets = targets if clause.case in (0, case) else set()
            aims |= targets
            dead |= {clause.dead} if targets else set()
            wanted |= {*targets, *clause.spam_copies, *(() if spam else clause.copies)}
    result.marked = bool(wanted) and {*result.stay} <= wanted | kept
    if len(dead) == 1 and letter.sender and {*result.stay} <= wanted - aims:
        (result.sender,) = dead
    else:
        wanted |= dead  # a copy at once
    result.add = wanted - {*result.stay}
    return result


class ImbalanceError(AssertionError):
    """The ledger does not balance."""


def account(expected: Plan, got: Counter[str], may_be_partial: bool) -> str:
    """Tell how a letter that was accepted arrived: "exact", or what an accept may lead to.

    With default_action=accept Postfix keeps the edits that it had when the milter failed: any
    additions; removals only after all additions. Raises ImbalanceError.
    """
    surplus = {*got} - {*expected.stay, *expected.add, *expected.gone}
    lost = [each for each in expected.stay if not got[each]]
    doubled = [each for each, count in got.items()
               if count > max(expected.stay[each] + expected.gone[each], 1)]  # fmt: skip
    if surplus or lost or doubled:
        raise ImbalanceError(f"surplus {surplus}, lost {lost}, doubled {doubled}")
    kept = {each for each in expected.gone if each not in {*expected.stay, *expected.add}}
    arrived = {each for each in kept if got[each]}
    missing = {each for each in expected.add if not got[each]}
    if not arrived and not missing and expected.reply == 250:
        return "exact"
    if not may_be_partial:
        raise ImbalanceError(f"missing {missing}, not removed {arrived}")
    if (missing or expected.reply != 250) and arrived != kept:
        raise ImbalanceError(f"lost: {kept - arrived} were removed before {missing} were added")
    return "partial" if arrived and {*expected.add} - missing else "unmodified"
