"""The flood guard where one case a message is opened: what takes the place of the first counts."""

import pytest
from rows import NO, policy, recipient
from test_flood import guarded

from crm_milter.routing.decide import decide
from crm_milter.routing.decision import Action, Envelope
from crm_milter.routing.memory import Memory
from crm_milter.rules.flood import OnFlood


class Budget:
    """Takes so many messages of each rule."""

    def __init__(self, each):
        self.each = each
        self.taken = {}

    def __call__(self, which, _sender, _subject):
        taken = self.taken.get(which.name, 0)
        self.taken[which.name] = min(taken + 1, self.each)
        return taken >= self.each


@pytest.mark.parametrize("remembers", [False, True])
@pytest.mark.parametrize(
    ("then", "action"),
    [
        (OnFlood.LEAVE, Action.LEFT),
        (OnFlood.TEMPFAIL, Action.TEMPFAILED),
        (OnFlood.HOLD, Action.QUARANTINED),
    ],
)
def test_what_is_routed_in_place_of_the_first_of_its_group_is_counted(then, action, remembers):
    names = ("support", "sales")
    rules = policy(
        *(guarded(then, each, f"{each}@solarmora.com", case_group="crm") for each in names)
    )
    recipients = tuple(recipient(rules, f"<{each}@solarmora.com>") for each in names)
    envelope, facts, meter = Envelope("joe@x.example", recipients), rules.facts([NO]), Budget(3)
    remembering = Memory(rules, meter)
    routed = []
    for _ in range(12):
        if remembers:
            decision = remembering.resolve(envelope, facts)[0].decision
        else:
            decision = decide(rules, envelope, facts, meter)
        actions = [each.action for each in decision.outcomes]
        routed += [each.rule.name for each in decision.outcomes if not each.reason and each.targets]
    assert routed == ["support"] * 3 + ["sales"] * 3
    assert action in actions
    assert Action.REROUTED not in actions
