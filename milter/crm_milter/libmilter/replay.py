"""A decision carried out: the edits in the one order in which none of them loses mail."""

from __future__ import annotations

import milter

from crm_milter.routing.decision import Decision, Reply


def carry_out(ctx: milter.Context, decision: Decision) -> int:
    """Send the edits and return the answer.

    Additions come first: a fault in between may double mail, not lose it.
    """
    if decision.reply is Reply.DISCARD:
        return milter.DISCARD
    if decision.reply is not Reply.ACCEPT:
        code, enhanced, text = decision.reply.value.split(" ", 2)
        ctx.setreply(code, enhanced, text)
        return milter.TEMPFAIL if code.startswith("4") else milter.REJECT
    if decision.hold:
        ctx.quarantine("spam")
    for addition in decision.add:
        ctx.addrcpt(f"<{addition.address}>", addition.parameters)
    for raw in decision.remove:
        ctx.delrcpt(raw)
    if decision.envelope_sender is not None:
        ctx.chgfrom(f"<{decision.envelope_sender}>")
    for name, value in decision.headers:
        ctx.addheader(name, value)
    return milter.CONTINUE
