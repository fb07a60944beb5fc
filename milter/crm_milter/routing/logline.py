"""The words of the log: one line a matched recipient, in Postfix's grammar.

``queue-id: action: to=<...> key=value ...``; the daemon and ``explain`` use the same function.
"""

from crm_milter.routing.decision import WOULD, Action, Outcome, Reason
from crm_milter.spam.verdict import Judgement
from crm_milter.wording import printable

_WITH_NEW_RECIPIENTS = (Action.REROUTED, Action.COPIED, Action.QUARANTINED, Action.MERGED)


def outcome_line(queue_id: str, outcome: Outcome, judgement: Judgement) -> str:
    """Return the log line for what became of one matched recipient."""
    return f"{queue_id}: {outcome_words(outcome, judgement)}"


def outcome_words(outcome: Outcome, judgement: Judgement) -> str:
    """Return that line without the queue id."""
    action = WOULD[outcome.action] if outcome.test else outcome.action.value
    line = f"{action}: to=<{printable(outcome.recipient.address)}>"
    if outcome.action in _WITH_NEW_RECIPIENTS:
        if outcome.targets:
            line += f" new={','.join(f'<{printable(each)}>' for each in outcome.targets)}"
        copies = len(outcome.copies)
        into = f" into={outcome.into}" if outcome.into else ""
        line += f" rule={outcome.rule.name}{into} copies={copies}"
        line += f" verdict={judgement.verdict.value}"
        if outcome.reason in (Reason.PAUSED, Reason.FLOOD):
            line += f" reason={outcome.reason.value}"
    else:
        line += f" rule={outcome.rule.name}"
        if outcome.reason:
            line += f" reason={outcome.reason.value}"
    if outcome.insured:
        line += f" insured=<{outcome.insured}>"
    if outcome.duplicate:
        line += " duplicate=possible"
    return line
