"""The net change by itself: what no decision may lead to is refused there, whoever asks for it."""

import pytest
from rows import policy, recipient, rule

from crm_milter.decision import Action, Envelope, Outcome
from crm_milter.edits import edits
from crm_milter.verdict import UNJUDGED


def test_the_last_recipient_is_never_removed():
    """An envelope without recipients is accepted with 250 and gone (facts 2.7): rather 451."""
    rules = policy(drop := rule("drop", "help@solarmora.com", "d@crm.example"))
    lone = recipient(rules, "<help@solarmora.com>")
    for discarded in ((lone,), (lone, lone._replace(raw="Help@solarmora.com"))):
        outcomes = tuple(Outcome(each, drop, Action.DISCARDED) for each in discarded)
        with pytest.raises(RuntimeError, match="envelope empty"):
            edits(Envelope("joe@x.example", discarded), outcomes, UNJUDGED)
        stays = recipient(rules, "<alice@solarmora.com>")
        decision = edits(Envelope("joe@x.example", (*discarded, stays)), outcomes, UNJUDGED)
        assert decision.remove == tuple(sorted(each.raw for each in discarded))
