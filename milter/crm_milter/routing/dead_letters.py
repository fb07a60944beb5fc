"""Where mail goes whole that a target refuses: to a mailbox of ours, by a bounce or by a copy.

If all recipients are ours, that mailbox becomes the envelope sender, and Postfix returns the mail
to it (RFC 3461: RET=FULL, NOTIFY=FAILURE), and so does the target's own server if it bounces the
mail later. If the sender has to stay, for the sake of another recipient, because it is null or
because a rule wants it to get bounces, the mailbox gets a copy at once. One copy too many is
acceptable, one too few is not.
"""

from collections.abc import Iterable, Mapping, Set
from typing import NamedTuple

from crm_milter import address as addresses
from crm_milter.routing.decision import Action, Addition, Envelope, Outcome
from crm_milter.rules.rule import key

_LONGEST_ENVID = 100  # RFC 3461 section 4.4


def mailboxes(changing: Iterable[Outcome], default: str | None) -> dict[str, Addition]:
    """Return the mailboxes for dead letters of these outcomes, by normal form, as copies."""
    boxes: dict[str, Addition] = {}
    for outcome in changing:
        box = outcome.rule.dead_letters or default
        if box and _is_sent(outcome):
            boxes.setdefault(key(box), Addition(box, never=True))
    return boxes


def _is_dropped(outcome: Outcome) -> bool:
    return outcome.action is Action.DISCARDED


def _is_sent(outcome: Outcome) -> bool:
    return bool(outcome.targets) and outcome.changes_envelope and not _is_dropped(outcome)


class Caught(NamedTuple):
    """What is added, the new sender if there is one, and the outcomes with what was insured."""

    wanted: dict[str, Addition]
    sender: str | None
    outcomes: tuple[Outcome, ...]


def caught(
    envelope: Envelope,
    outcomes: tuple[Outcome, ...],
    wanted: dict[str, Addition],
    present: Set[str],
    default: str | None,
) -> Caught:
    """Return the additions with those that keep what a target refuses.

    ``present`` are the recipients that stay: a target among them was written by the client, keeps
    the client's NOTIFY, and might not bounce.
    """
    changing = [each for each in outcomes if each.changes_envelope and not _is_dropped(each)]
    targets = {key(target) for each in changing for target in each.targets}
    if present <= wanted.keys() - targets:
        sender = _new_sender(envelope, changing, default)
        if sender:
            return Caught(_owned(wanted, changing), sender, outcomes)
    wanted = {**mailboxes(changing, default), **wanted}
    return Caught(wanted, None, tuple(_insured(each, default) for each in outcomes))


def _new_sender(envelope: Envelope, changing: list[Outcome], default: str | None) -> str | None:
    """Return the mailbox that may become the envelope sender, as far as sender and rules go."""
    bounces = any(
        not each.rule.suppress_bounces or not all(copy.suppress_bounces for copy in each.copies)
        for each in changing
    )
    boxes = {each.rule.dead_letters or default or "": None for each in changing if _is_sent(each)}
    one = len({key(box) for box in boxes}) == 1
    return next(iter(boxes)) if one and envelope.sender and not bounces else None


def parameters(sender: str) -> str:
    """Return what the new sender comes with: all of the mail is wanted back, and whose it was.

    That is the old sender as the client spelt it.
    Postfix takes no ENVID that stands for other characters than ASCII; these are written as in
    ORCPT (RFC 6533 section 3).
    """
    written = "".join(each if each.isascii() else f"\\x{{{ord(each):X}}}" for each in sender)
    envid = addresses.xtext(written)
    fits = sender.isprintable() and len(envid) <= _LONGEST_ENVID
    return f"RET=FULL ENVID={envid}" if fits else "RET=FULL"


def _owned(wanted: Mapping[str, Addition], changing: Iterable[Outcome]) -> dict[str, Addition]:
    """Return the additions to mail of which the sender is ours: only targets bounce.

    ORCPT then says where to hand the mail in again, to this host alone; what the client wrote
    there could be any address.
    """
    origins: dict[str, str] = {}
    for outcome in changing:
        for target in outcome.targets:
            origins.setdefault(key(target), addresses.xtext(outcome.recipient.raw))
    return {
        name: Addition(each.address, False, f"rfc822;{origins[name]}")
        if name in origins
        else Addition(each.address, True)
        for name, each in wanted.items()
    }


def _insured(outcome: Outcome, default: str | None) -> Outcome:
    """Return an outcome, noted if the mailbox gets a copy for this reason alone."""
    box = outcome.rule.dead_letters or default
    if not box or not _is_sent(outcome):
        return outcome
    if key(box) in {key(each.address) for each in outcome.copies}:
        return outcome
    return outcome._replace(insured=box)
