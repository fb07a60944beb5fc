"""What acts on a whole message, because it cannot act on one recipient: only if all agree."""

from collections.abc import Iterable

from crm_milter.routing.decision import Action, Envelope, Outcome, Reason

Disposition = tuple[Action, Reason | None]

_WHOLE_MESSAGE = (Action.REJECTED, Action.QUARANTINED)


def _is_of_all(outcome: Outcome) -> bool:
    """Tell whether an outcome needs all recipients; no_verdict: tempfail does not."""
    flood = outcome.action is Action.TEMPFAILED and outcome.reason is Reason.FLOOD
    return flood or outcome.action in _WHOLE_MESSAGE


def settled(wished: list[Outcome], envelope: Envelope) -> tuple[Outcome, ...]:
    """Reject, quarantine and discard act on a message: only if all its recipients come to it.

    What a test rule would come to is told as if it were enforced, the first of each recipient.
    """
    if not any(_is_of_all(each) for each in wished):
        return tuple(wished)
    number = len(envelope.recipients)
    acting = [each for each in wished if not each.test]
    tested = as_if_enforced(wished) if len(acting) < len(wished) else acting
    agreed = _agreement(acting, number)
    agreed_in_test = _agreement(tested, number)
    return tuple(
        _reconcile(each, envelope, agreed_in_test if each.test else agreed) for each in wished
    )


def as_if_enforced(wished: Iterable[Outcome]) -> list[Outcome]:
    """Return the first outcome of each recipient, that of a test rule as well."""
    first: list[Outcome] = []
    for each in wished:
        if not first or first[-1].recipient is not each.recipient:
            first.append(each)
    return first


def _agreement(wished: list[Outcome], recipients: int) -> Disposition | None:
    """Return what all recipients come to, None if they differ."""
    fates = {(each.action, each.reason) for each in wished}
    agreed = len(fates) == 1 and len(wished) == recipients
    return fates.pop() if agreed else None


def _reconcile(outcome: Outcome, envelope: Envelope, agreed: Disposition | None) -> Outcome:
    # A refusal of mail from sendmail(1) would be a bounce after acceptance, or never end.
    refuses = outcome.action is Action.REJECTED or outcome.reason is Reason.FLOOD
    impossible = refuses and _is_of_all(outcome) and not envelope.by_smtp
    divided = _is_of_all(outcome) and (outcome.action, outcome.reason) != agreed
    if impossible or divided:
        return outcome._replace(action=Action.LEFT, copies=())
    return outcome
