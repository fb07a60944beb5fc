"""The CRM's acknowledgement of a test message, seen in the log as mail to the sender of that.

The sender is an address that no other mail has. So it does not matter whether it has a mailbox:
Postfix logs mail to it that it refuses as well.
"""

import re
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from crm_milter import address as addresses
from crm_milter.config.load import Config
from crm_milter.rules.conditions import Occasion
from crm_milter.trace.history import group_by_message
from crm_milter.trace.lines import Line, delivery
from crm_milter.trace.sources import Source

_POLL_INTERVAL = 1.0  # seconds between two looks at the log
_REFUSED = re.compile(
    r"(?:NOQUEUE: )?reject: RCPT from .*; from=<(?P<sender>.*?)> to=<(?P<to>.*?)>"
)


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Mail to the sender of the test message; its own sender is "" if that came back."""

    sender: str
    seconds: float
    refusal: str = ""  # what Postfix said, if it did not take it


def marked(sender: str, delimiters: str) -> str:
    """Return a sender that no other mail has, as an extension if these are in use."""
    local, domain = addresses.split(sender)
    token = f"crm-milter-case-{secrets.token_hex(8)}"
    return addresses.join(f"{local}{delimiters[0]}{token}" if delimiters else token, domain)


def rerouted_by(config: Config, sender: str) -> str:
    """Return the rule that would apply to the acknowledgement, and open another case; or ""."""
    match = config.policy.table.match(addresses.normalise(sender), Occasion(""), sender)
    acting = [each for each in match.chain() if not each.rule.is_test] if match else []
    return acting[0].rule.name if acting else ""


def wait(
    sender: str, sources: list[Source], seconds: float, sent_at: float
) -> Acknowledgement | None:
    """Return the acknowledgement once it is in the log, None if it is not in time."""
    while True:
        now = time.monotonic()
        for from_, refusal in _seen(sender, sources):
            return Acknowledgement(from_, now - sent_at, refusal)
        if now - sent_at >= seconds:
            return None
        time.sleep(min(_POLL_INTERVAL, max(0.0, seconds - (now - sent_at))))


def reported(box: str, sources: list[Source]) -> bool:
    """Tell whether a report came to the mailbox for dead letters, which was the envelope sender."""
    return any(not from_ for from_, _ in _seen(box, sources))


def _seen(sender: str, sources: list[Source]) -> Iterator[tuple[str, str]]:
    """Yield the senders of mail to an address, and why it was refused."""
    wanted = addresses.normalise(sender)
    queue_ids = set()
    for source in sources:
        for line in source.lines([f"<{sender}>"], fold=True):
            refused = _REFUSED.match(line.text)
            if refused and addresses.normalise(refused["to"]) == wanted:
                yield refused["sender"], line.text.partition(": ")[2]
            elif _goes_to(line, wanted):
                queue_ids.add(line.queue_id)
    if queue_ids:
        ids = frozenset(queue_ids)
        entries = (line for source in sources for line in source.entries(ids))
        found = group_by_message(line for line in entries if line.queue_id in ids)
        yield from ((each.sender, "") for each in found if each.sender is not None)


def _goes_to(line: Line, wanted: str) -> bool:
    attempt = delivery(line)
    names = (attempt.to, attempt.original) if attempt else ()
    return wanted in map(addresses.normalise, names)


def shown(found: Acknowledgement | None, sender: str, seconds: float) -> str:
    """Return what is known of the case."""
    if found is None:
        return f"no acknowledgement: no mail to <{sender}> within {seconds:g} s"
    after = f"after {found.seconds:.0f} s"
    if not found.sender:
        return f"bounced later: the CRM accepted the message and returned it {after}"
    return f"case opened: acknowledged by <{found.sender}> {after}"


def advice(
    found: Acknowledgement | None, sender: str, box: str, say: Callable[[str], None]
) -> None:
    """Say what to do about it; ``box`` is where a report came to meanwhile, if one did."""
    if found is None and box:
        say(f"  but a delivery report came to <{box}>: perhaps the CRM bounced the message later")
        say("  the report names the message: look for the test message's subject in it")
    elif found is None:
        say("  does the CRM send an acknowledgement (auto-response rule) for this address?")
        domain = sender.rpartition("@")[2]
        say(f"  mail to {domain} must reach this server; otherwise use --from")
    elif not found.sender:
        say("  its report says why: check the address in the CRM, and which senders it accepts")
        say("  the log cannot tell a report from an acknowledgement with a null sender (RFC 3834)")
    elif found.refusal:
        say("  this server has no mailbox for that sender, and refused the acknowledgement")
