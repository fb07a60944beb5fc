"""Explain the decision for a message on disk, in the words of the log."""

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crm_milter import address as addresses
from crm_milter.cli import options
from crm_milter.cli.terminal import EX_NO, EX_OK, load_config, read_stdin, say
from crm_milter.config.paused import paused_now
from crm_milter.dryrun.decided import DryRun, Mail
from crm_milter.routing import dead_letters
from crm_milter.routing.decide import Policy
from crm_milter.routing.decision import NONE_PAUSED, Decision, Envelope, Recipient
from crm_milter.routing.logline import outcome_line
from crm_milter.rules.conditions import Occasion
from crm_milter.rules.table import Considered, RuleTable
from crm_milter.wording import printable, why

QUEUE_ID = "explain"
# A table may have a hundred thousand rules; the story of one address names this many.
MAX_PASSED_OVER = 20


@dataclass(frozen=True, slots=True)
class Step:
    """One rule that was looked at for a recipient, or many that do not take its address."""

    rule: str
    applies: bool
    why: str


@dataclass(frozen=True, slots=True)
class Story:
    """All that was decided for one message, and from what."""

    envelope: Envelope
    looked_at: tuple[tuple[Recipient, tuple[Step, ...]], ...]
    decision: Decision | None  # None: no rule applies, accepted at DATA
    sender_parameters: str = ""  # what a new sender comes with


def explain(
    policy: Policy,
    sender: str,
    recipients: list[str],
    message: bytes,
    now: float | None = None,
    paused: Mapping[str, bool] = NONE_PAUSED,
) -> Story:
    """Return the story of a message; addresses are as a client would send them."""
    envelope, occasion, _, decision = DryRun(policy, paused=paused).decided(
        Mail(sender, recipients, message, len(message), now=now)
    )
    looked_at = tuple(
        (each, tuple(_steps(policy.table, each.address, occasion))) for each in envelope.recipients
    )
    replaced = decision is not None and decision.envelope_sender is not None
    parameters = dead_letters.parameters(addresses.strip_path(sender)) if replaced else ""
    return Story(envelope, looked_at, decision, parameters)


def _steps(table: RuleTable, address: str, occasion: Occasion) -> Iterator[Step]:
    """Yield what became of each rule up to the one that applies, in the order of the file."""
    considered: dict[str, Considered] = {}
    for each in table.considered(address, occasion):
        considered.setdefault(each.match.rule.name, each)
        if _acts(each):
            break
    spared = table.is_protected(address)
    passed_over = 0
    for rule in table.rules:
        found = considered.get(rule.name)
        if found is None:
            passed_over += 1
            if passed_over <= MAX_PASSED_OVER:
                yield Step(rule.name, False, _not_taken(spared))
            continue
        yield Step(rule.name, not found.failing, _why(found))
        if _acts(found):
            break
    if passed_over > MAX_PASSED_OVER:
        more = passed_over - MAX_PASSED_OVER
        yield Step("", False, f"{more} more rules do not match")


def _acts(considered: Considered) -> bool:
    return not considered.failing and not considered.match.rule.is_test


def _not_taken(spared: bool) -> str:
    reason = "does not match"
    return f"{reason} (wildcards never match this address)" if spared else reason


def _why(considered: Considered) -> str:
    if considered.failing is not None:
        return considered.failing.refusal(considered.occasion)
    if considered.match.trouble:
        return "its table cannot be read: in mode test this changes nothing"
    if considered.match.rule.is_test:
        return "applies in mode test: logged, not done"
    return "applies"


def acting_rule(recipient: Recipient) -> str | None:
    """Return the name of the rule that acts on a recipient; one in mode test does not."""
    matches = recipient.match.chain() if recipient.match else ()
    return next((each.rule.name for each in matches if not each.rule.is_test), None)


def lines(story: Story) -> Iterator[str]:
    """Yield the story as text."""
    yield f"from <{printable(story.envelope.sender)}>, {story.envelope.size} bytes"
    decision = story.decision
    if decision is not None:
        judgement = decision.judgement
        decided_by = printable(judgement.field) or "no header field from the spam filter"
        yield f"spam: {judgement.verdict.value} ({decided_by})"
    for recipient, steps in story.looked_at:
        yield ""
        yield f"to <{printable(recipient.address)}>"
        for step in steps:
            yield f"  rule {step.rule}: {step.why}" if step.rule else f"  {step.why}"
        if acting_rule(recipient) is None:
            yield "  no rule applies"
    yield ""
    yield from _end(decision, story.sender_parameters)


def _end(decision: Decision | None, sender_parameters: str) -> Iterator[str]:
    if decision is None:
        yield "no rule matches any recipient: accepted at DATA, message neither read nor changed"
        return
    for outcome in decision.outcomes:
        yield outcome_line(QUEUE_ID, outcome, decision.judgement)
    for addition in decision.add:
        yield f"add <{addition.address}> {addition.parameters}"
    for raw in decision.remove:
        yield f"remove <{printable(raw)}>"
    if decision.envelope_sender is not None:
        yield f"envelope sender <{decision.envelope_sender}> {sender_parameters}"
    for name, value in decision.headers:
        yield f"header {name}: {value}"
    if decision.hold:
        yield "hold"
    yield f"reply {decision.reply.value}"


def as_json(story: Story) -> dict[str, Any]:
    """Return the story as what json.dumps takes."""
    decision = story.decision
    return {
        "from": story.envelope.sender,
        "size": story.envelope.size,
        "recipients": [
            {
                "to": recipient.address,
                "rule": acting_rule(recipient),
                "rules": [
                    {"rule": step.rule, "applies": step.applies, "why": step.why} for step in steps
                ],
            }
            for recipient, steps in story.looked_at
        ],
        "decision": _decision_json(decision, story.sender_parameters) if decision else None,
    }


def _decision_json(decision: Decision, sender_parameters: str) -> dict[str, Any]:
    return {
        "spam": decision.judgement.verdict.value,
        "spam_field": decision.judgement.field,
        "outcomes": [
            {
                "to": each.recipient.address,
                "rule": each.rule.name,
                "action": each.action.value,
                "reason": each.reason.value if each.reason else None,
                "targets": list(each.targets),
                "copies": [copy.address for copy in each.copies],
                "insured": each.insured or None,
                "test": each.test,
            }
            for each in decision.outcomes
        ],
        "add": [{"address": each.address, "parameters": each.parameters} for each in decision.add],
        "remove": list(decision.remove),
        "envelope_sender": decision.envelope_sender,
        "sender_parameters": sender_parameters,
        "headers": [list(each) for each in decision.headers],
        "hold": bool(decision.hold),
        "reply": decision.reply.value,
    }


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--from",
        dest="sender",
        required=True,
        metavar="ADDRESS",
        help='envelope sender; "" is the null sender',
    )
    command.add_argument(
        "--to", action="append", required=True, metavar="ADDRESS", help="recipient; may be repeated"
    )
    command.add_argument(
        "message", nargs="?", default="-", help="message file; - is standard input (default)"
    )
    options.json(command)


def explain_message(options: argparse.Namespace) -> int:
    """Show what would happen to a message, rule by rule, and the log lines it would produce."""
    config = load_config(options.config)
    try:
        message = _read_message(options.message)
    except OSError as error:
        say(f"{options.message}: {why(error)}")
        return EX_NO
    story = explain(config.policy, options.sender, options.to, message, time.time(), paused_now())
    if options.json:
        print(json.dumps(as_json(story), indent=2))
    else:
        print("\n".join(lines(story)))
    return EX_OK


def _read_message(name: str) -> bytes:
    return read_stdin() if name == "-" else Path(name).read_bytes()
