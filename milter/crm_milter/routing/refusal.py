"""The refusal of a whole message: what one recipient may lead to for all of them."""

from crm_milter.routing.decision import Action, Decision, Outcome, Reason, Reply
from crm_milter.spam.verdict import Judgement

_REPLIES = {
    Reason.OVERSIZE: Reply.REJECT_OVERSIZE,
    Reason.UNAUTHENTICATED: Reply.REJECT_FORGED,
    Reason.SPAM: Reply.REJECT_SPAM,
    Reason.NO_VERDICT: Reply.TEMPFAIL,
    Reason.FLOOD: Reply.TEMPFAIL_FLOOD,
}
_REFUSING = (Action.TEMPFAILED, Action.REJECTED)


def refusal_of(outcomes: tuple[Outcome, ...], judgement: Judgement) -> Decision | None:
    """Return a decision that refuses the whole message, if one of its recipients leads to it."""
    for each in outcomes:
        if each.action in _REFUSING and not each.test:
            reply = _REPLIES[each.reason or Reason.SPAM]
            return _refused(reply, each.action, outcomes, judgement)
    return None


def _refused(
    reply: Reply, action: Action, outcomes: tuple[Outcome, ...], judgement: Judgement
) -> Decision:
    """Return a decision that refuses the whole message, whatever its other recipients wished."""
    refused = tuple(
        each if each.test or each.action is action else each._replace(action=action, copies=())
        for each in outcomes
    )
    return Decision(reply=reply, judgement=judgement, outcomes=refused)
