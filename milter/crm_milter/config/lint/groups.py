"""What is odd about the groups of rules of which one opens a case: those with no effect."""

from collections import Counter

from crm_milter.config.build import RuleEntry
from crm_milter.rules.rule import Rule


def check(entries: tuple[RuleEntry, ...]) -> None:
    """Note groups that never merge anything."""
    replacing = [each.rule for each in entries if each.rule.replaces]
    sizes = Counter(map(_group, replacing))
    enforced = Counter(_group(each) for each in replacing if not each.is_test)
    for entry in entries:
        why = _ineffective(entry.rule, sizes, enforced)
        if why:
            entry.place.warn(("case_group",), f"has no effect: {why}")


def _group(rule: Rule) -> tuple[object, object]:
    return rule.case_group, rule.fence


def _ineffective(
    rule: Rule, sizes: Counter[tuple[object, object]], enforced: Counter[tuple[object, object]]
) -> str:
    """Return why no message can have two recipients that count for the group, "" if it can."""
    if rule.case_group is None:
        return ""
    if not rule.replaces:
        return "the rule does not replace the recipient"
    group = _group(rule)
    if rule.address_map is not None or not rule.has_constant_target:
        return ""  # two addresses of the rule may be two cases
    if sizes[group] == 1:
        return f'no other rule is in the group "{rule.case_group}"'
    if enforced[group] == 1 and not rule.is_test:
        return f'all other rules in the group "{rule.case_group}" are in test mode'
    return ""
