"""A decision carried out: the edits in the one order in which none of them loses mail."""

from __future__ import annotations

import milter

from crm_milter.libmilter.message import Message
from crm_milter.routing import dead_letters
from crm_milter.routing.decision import Reply
from crm_milter.routing.memory import Resolution


def apply_decision(
    ctx: milter.Context,
    message: Message,
    resolution: Resolution,
    headers: tuple[tuple[str, str], ...],
) -> int:
    """Send the edits and return the answer.

    Additions come before removals: a fault in between may double mail, not lose it. The sender
    comes before them: what is added then bounces to our mailbox, and the customer learns nothing.
    """
    decision = resolution.decision
    if decision.reply is Reply.DISCARD:
        return milter.DISCARD
    if decision.reply is not Reply.ACCEPT:
        code, enhanced, text = decision.reply.value.split(" ", 2)
        ctx.setreply(code, enhanced, text)
        return milter.TEMPFAIL if code.startswith("4") else milter.REJECT
    if decision.hold:
        ctx.quarantine(decision.hold)
    if decision.envelope_sender is not None:
        parameters = dead_letters.parameters(message.typed_sender)
        ctx.chgfrom(f"<{decision.envelope_sender}>", parameters)
    for address, parameters in resolution.additions:
        ctx.addrcpt(address, parameters)
    for raw in decision.remove:
        ctx.delrcpt(raw)
    for name, value in headers:
        ctx.addheader(name, value)
    return milter.CONTINUE
