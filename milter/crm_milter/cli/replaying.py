"""The command ``replay``: old mail through the rules."""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from crm_milter.cli import options as common
from crm_milter.cli.terminal import EX_NO, EX_OK, EX_USAGE, load_config, say
from crm_milter.config.load import load
from crm_milter.daemon import floodtable
from crm_milter.daemon.floodtable import FloodTable
from crm_milter.dryrun import histogram, replayreport
from crm_milter.dryrun.mailboxes import OldMail, Warn, messages, octets
from crm_milter.dryrun.replay import Change, Replay, Replayed
from crm_milter.dryrun.tally import Tally
from crm_milter.routing.floodguard import Meter
from crm_milter.routing.logline import outcome_words
from crm_milter.wording import and_more, printable, why

_MAX_CHANGES = 1000  # that are shown
_REDRAWN = 0.2  # seconds


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "mailboxes",
        nargs="+",
        metavar="MAILBOX",
        help="mbox file, Maildir or single message, also compressed; - is standard input",
    )
    command.add_argument(
        "--against", type=Path, metavar="FILE", help="also show what another configuration changes"
    )
    command.add_argument(
        "--verbose", action="store_true", help="show each message and where its envelope was found"
    )
    command.add_argument(
        "--plot", type=Path, metavar="FILE",
        help="write a PNG of the messages per hour; needs matplotlib, else it is printed as text",
    )  # fmt: skip
    common.json(command)


def replay_mail(options: argparse.Namespace) -> int:
    """Run old mail through the rules and report what would happen; nothing is sent.

    The envelope is that of Return-Path, X-Original-To or Delivered-To; if no rule matches that, the
    addresses in To and Cc that one matches are taken. Shown per rule: what is routed and left, what
    would be too much for the CRM, and the lines to write against it.
    """
    policy = load_config(options.config).policy
    against = load(options.against).policy if options.against else None
    replay, tally = Replay(policy, against, _meter), Tally.of(policy.table.rules)
    changes: list[Change] = []
    changed = 0
    try:
        for mail in _mail(options):
            done = replay.message(mail)
            tally.add(mail, done.envelope, done.decided)
            changed += len(done.changes)
            changes += done.changes[: _MAX_CHANGES - len(changes)]
            if options.verbose and not options.json:
                print("\n".join(_story(done)))
    except _UnreadableError as error:
        say(str(error))
        return EX_NO
    except _NoMailError:
        say(f"no message in {and_more(options.mailboxes, 3)}; expected mbox files, Maildirs or"
            " messages with their header")  # fmt: skip
        return EX_USAGE
    if options.json:
        found = replayreport.as_json(tally)
        if against:
            found |= {"changed": changed, "changes": [each._asdict() for each in changes]}
        print(json.dumps(found, indent=2))
    else:
        print("\n".join([*replayreport.text(tally), *_changes(changes, changed, options)]))
    return _plot(options, tally)


def _meter(clock: Callable[[], float]) -> Meter:
    """Return the daemon's own, in a table of this process."""
    return FloodTable(floodtable.create(), clock).exceeds


def _mail(options: argparse.Namespace) -> Iterator[OldMail]:
    """Yield the mail of all mailboxes, with a bar of progress on a terminal."""
    bar = _Bar(sum(map(octets, options.mailboxes)))  # of files; a Maildir is only counted
    has_complained = False

    def warn(text: str) -> None:
        nonlocal has_complained
        has_complained = True
        say(text)

    try:
        for name in options.mailboxes:
            for mail in _messages(name, warn, bar):
                bar.messages += 1
                yield mail
    finally:
        bar.clear()
    if has_complained and not bar.messages:
        raise _NoMailError


class _UnreadableError(Exception):
    """A mailbox cannot be read; the text says which and why."""


class _NoMailError(Exception):
    """There is nothing to replay."""


def _messages(name: str, warn: Warn, bar: "_Bar") -> Iterator[OldMail]:
    try:
        yield from messages(name, warn, bar.advance)
    except OSError as error:
        raise _UnreadableError(f"{name}: {why(error)}") from error


class _Bar:
    """A bar of progress on standard error, if that is a terminal and the output is not there."""

    def __init__(self, total: int) -> None:
        self.messages = 0
        self._total = total
        self._done = 0
        self._next = time.monotonic() + _REDRAWN
        self._is_shown = sys.stderr.isatty()

    def advance(self, octets: int) -> None:
        self._done += octets
        now = time.monotonic()
        if self._is_shown and now >= self._next:
            self._next = now + _REDRAWN
            share = f"{min(100 * self._done // self._total, 100)} %, " if self._total else ""
            self._draw(f"{share}{self.messages} messages")

    def clear(self) -> None:
        if self._is_shown:
            self._draw("")

    def _draw(self, words: str) -> None:
        print(f"\r{words}\x1b[K", end="", file=sys.stderr, flush=True)


def _story(done: Replayed) -> Iterator[str]:
    envelope, decision = done.envelope, done.decided.decision
    to = ", ".join(f"<{printable(each)}>" for each in envelope.recipients) or "unknown"
    source = " (from To or Cc)" if envelope.guessed else ""
    yield f"{done.mail.where}: from=<{printable(envelope.sender)}> to={to}{source}"
    if decision is None:
        yield "  no rule matches"
        return
    for outcome in decision.outcomes:
        yield f"  {outcome_words(outcome, decision.judgement)}"


def _changes(changes: list[Change], number: int, options: argparse.Namespace) -> Iterator[str]:
    if not options.against:
        return
    yield ""
    yield f"Changed since {options.against}: {number}"
    for each in changes:
        yield f"{each.where}: to=<{printable(each.to)}>"
        yield f"  - {each.before}"
        yield f"  + {each.after}"
    if number > len(changes):
        yield f"and {number - len(changes)} more"


def _plot(options: argparse.Namespace, tally: Tally) -> int:
    if options.plot is None:
        return EX_OK
    mean, most = replayreport.by_hour(tally)
    if not histogram.has_library():
        say("matplotlib is not installed (Debian: python3-matplotlib), so no picture is written")
        if not options.json:
            print("\n".join(["", *histogram.lines(mean, most)]))
        return EX_OK
    try:
        histogram.draw(options.plot, mean, most)
    except OSError as error:
        say(f"{options.plot}: {why(error)}")
        return EX_NO
    return EX_OK
