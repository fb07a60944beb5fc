"""What is odd about the groups of rules of which one opens a case: those with no effect."""

from crm_milter.config.build import Entry
from crm_milter.rules.rule import Rule


def check(entries: tuple[Entry, ...]) -> None:
    """Note groups that never merge anything."""
    sizes: dict[object, int] = {}
    for entry in entries:
        if entry.rule.replaces:
            group = entry.rule.case_group, entry.rule.fence
            sizes[group] = sizes.get(group, 0) + 1
    for entry in entries:
        rule = entry.rule
        if rule.case_group is None:
            continue
        if not rule.replaces:
            message = "has no effect: the rule does not replace the recipient"
            entry.place.warn(("case_group",), message)
        elif _is_alone(rule, sizes):
            message = f'has no effect: no other rule is in the group "{rule.case_group}"'
            entry.place.warn(("case_group",), message)


def _is_alone(rule: Rule, sizes: dict[object, int]) -> bool:
    """Tell whether no message can have two recipients that count for the group."""
    is_only = sizes[rule.case_group, rule.fence] == 1
    return is_only and rule.address_map is None and rule.has_constant_target
