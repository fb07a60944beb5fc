"""The net change: outcomes to the additions, removals and header fields that carry them out.

Postfix edits at once and in order, compares removals letter by letter and delivers twice to
what is added twice, so here the end is computed first and only the difference is said.
"""

import re
from collections.abc import Iterable, Iterator, Set

from crm_milter import address as addresses
from crm_milter.routing import dead_letters
from crm_milter.routing.decision import Action, Addition, Decision, Envelope, Outcome
from crm_milter.routing.marker import UNSIGNED, Signature, stands_for
from crm_milter.rules.rule import key
from crm_milter.spam.verdict import Judgement
from crm_milter.wording import printable

_GOING = (Action.DISCARDED, Action.MERGED)
_PLACEHOLDER = re.compile(r"\{(?:recipient|rule|spam)\}")


def edits(
    envelope: Envelope,
    outcomes: tuple[Outcome, ...],
    judgement: Judgement,
    signature: Signature = UNSIGNED,
    dead_letters_to: str | None = None,
) -> Decision:
    """Return the decision where mail is delivered; raises RuntimeError if no recipient is left."""
    changing = [each for each in outcomes if each.changes_envelope]
    wanted = _additions(changing)
    boxes = dead_letters.mailboxes(changing, dead_letters_to)
    removed = _leaving(envelope, changing, wanted.keys() | boxes.keys())
    staying = [each for each in envelope.recipients if each.raw not in removed]
    present = {each.address for each in staying}
    # What all recipients see is said only where all of them are ours; the marker also to those
    # that a rule gives company.
    ours_alone = bool(wanted) and present <= wanted.keys()
    marked = _marked(changing, present - wanted.keys()) if wanted else None
    sender = None
    if boxes:
        wanted, sender, outcomes = dead_letters.caught(
            envelope, outcomes, wanted, present, dead_letters_to
        )
    add = tuple([wanted[each] for each in sorted(wanted) if each not in present])
    if not add and not staying:
        raise RuntimeError("the decision would leave the envelope empty")
    kept = {each.raw for each in staying}
    bare, ambiguous = _bare_local_parts(envelope, removed, kept)
    return Decision(
        add=add,
        remove=tuple(sorted(removed | bare - kept)),
        headers=tuple(_shown(changing, judgement, signature, marked, ours_alone)),
        marked=marked,
        envelope_sender=sender,
        hold=_hold(changing),
        judgement=judgement,
        outcomes=_noted(outcomes, ambiguous) if ambiguous else outcomes,
    )


def _leaving(envelope: Envelope, changing: list[Outcome], wanted: Set[str]) -> set[str]:
    """Return the spellings that go."""
    removed = {
        each.recipient.raw
        for each in changing
        if each.targets or each.action in _GOING  # else it only gets company
    }
    return removed - _kept_as_copy(envelope, removed, wanted)


def _shown(
    changing: list[Outcome],
    judgement: Judgement,
    signature: Signature,
    marked: str | None,
    ours_alone: bool,
) -> Iterator[tuple[str, str]]:
    """Yield the header fields: the marker, and those of the rules if all recipients are ours."""
    if marked is not None:
        yield signature.of(marked)
    if ours_alone:
        # Of what is merged, only those who get a copy see the header.
        seeing = [each for each in changing if each.copies or each.action is not Action.MERGED]
        yield from _added(seeing, judgement)


def _hold(changing: list[Outcome]) -> str:
    """Return why the message is held, "" if it is not; all its recipients have the same reason."""
    reasons = (each.reason for each in changing if each.action is Action.QUARANTINED)
    return next((reason.value for reason in reasons if reason), "")


def _noted(outcomes: tuple[Outcome, ...], ambiguous: set[str]) -> tuple[Outcome, ...]:
    return tuple(
        each._replace(duplicate=True) if each.recipient.address in ambiguous else each
        for each in outcomes
    )


def _additions(changing: list[Outcome]) -> dict[str, Addition]:
    """Return the targets and copies by normal form, each once, in whatever order they came."""
    wanted: dict[str, Addition] = {}
    for outcome in _in_order(changing):
        recipient = outcome.recipient
        # A client that lists something else than FAILURE wants no bounce (RFC 3461 section 4.1).
        unwanted = bool(recipient.notify) and "FAILURE" not in recipient.notify.split(",")
        if outcome.action is not Action.DISCARDED:
            never = outcome.rule.suppress_bounces or unwanted
            orcpt = recipient.orcpt or f"rfc822;{addresses.xtext(recipient.raw)}"
            for target in outcome.targets:
                _merge(wanted, Addition(target, never, orcpt))
        for copy in outcome.copies:
            _merge(wanted, Addition(copy.address, copy.suppress_bounces or unwanted))
    return wanted


def _in_order(changing: list[Outcome]) -> Iterable[Outcome]:
    if len(changing) < 2:
        return changing
    return sorted(changing, key=lambda each: (each.recipient.address, each.recipient.raw))


def _merge(wanted: dict[str, Addition], addition: Addition) -> None:
    normal = key(addition.address)
    known = wanted.setdefault(normal, addition)
    if known is not addition:
        never = known.never and addition.never
        wanted[normal] = Addition(known.address, never, known.orcpt or addition.orcpt)


def _kept_as_copy(envelope: Envelope, removed: set[str], wanted: Set[str]) -> set[str]:
    """Return the spellings that stay after all, because another rule sends a copy there.

    Adding the address and then deleting it would delete both (cleanup_milter.c), so its record
    stays in place of the addition. Spellings that differ in case or quotes alone are one record,
    that of the first (cleanup(8)): they stay together, or all would go. Any other spelling is a
    record of its own, and the copy would come twice.
    """
    owed: dict[str, dict[str, set[str]]] = {}
    for each in envelope.recipients:
        if each.raw in removed and each.address in wanted:
            records = owed.setdefault(each.address, {})
            record = addresses.join(*addresses.split(each.raw)).casefold()
            records.setdefault(record, set()).add(each.raw)
    return {raw for records in owed.values() for raw in records[min(records)]}


def _bare_local_parts(
    envelope: Envelope, removed: set[str], kept: set[str]
) -> tuple[set[str], set[str]]:
    """Return the local parts to delete as well, and the addresses where that would be a guess.

    What sendmail(1) was given without a domain is shown with one, but deleted without. A local
    part that stands for two addresses, or for a record that stays, is not deleted: rather a
    duplicate than a loss.
    """
    bare: set[str] = set()
    ambiguous: set[str] = set()
    unbracketed = [each for each in envelope.recipients if not each.bracketed]
    if not unbracketed:
        return bare, ambiguous
    same_local_part: dict[str, set[str]] = {}
    for each in envelope.recipients:
        same_local_part.setdefault(addresses.local_of(each.address), set()).add(each.address)
    kept_bare = {raw.rpartition("@")[0] for raw in kept}
    for each in unbracketed:
        if each.raw not in removed or "@" not in each.raw:
            continue
        local = each.raw.rpartition("@")[0]
        if len(same_local_part[addresses.local_of(each.address)]) == 1 and local not in kept_bare:
            bare.add(local)
        elif not envelope.by_smtp:
            ambiguous.add(each.address)
    return bare, ambiguous


def _marked(changing: list[Outcome], others: Set[str]) -> str | None:
    """Return what the marker stands for, None if an unmatched recipient would see it."""
    if not others <= {each.recipient.address for each in changing}:
        return None
    rules = {each.rule.name for each in changing if each.action is not Action.DISCARDED}
    return stands_for(rules) if rules else None


def _added(changing: list[Outcome], judgement: Judgement) -> list[tuple[str, str]]:
    """Return, of the rules' own fields, those that all recipients agree on.

    Where one says "{recipient}" and there are several, each CRM would learn of the others.
    """
    if not changing[0].rule.add_headers:
        return []
    first, *others = [_own_fields(each, judgement) for each in changing]
    shared = set(first).intersection(*others)
    return [field for field in first if field in shared]


def _own_fields(outcome: Outcome, judgement: Judgement) -> list[tuple[str, str]]:
    values = {
        "{recipient}": outcome.recipient.address,
        "{rule}": outcome.rule.name,
        "{spam}": judgement.verdict.value,
    }
    return [
        (name, _PLACEHOLDER.sub(lambda found: printable(values[found[0]]), value))
        for name, value in outcome.rule.add_headers
    ]
