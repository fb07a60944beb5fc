"""What is odd about the groups of rules of which one opens a case: those with no effect."""

from crm_milter.config.build import Entry


def check(entries: tuple[Entry, ...]) -> None:
    """Note groups that never merge anything."""
    sizes: dict[str | None, int] = {}
    for entry in entries:
        if entry.rule.replaces:
            group = entry.rule.case_group
            sizes[group] = sizes.get(group, 0) + 1
    for entry in entries:
        rule = entry.rule
        if rule.case_group is None:
            continue
        if not rule.replaces:
            message = "has no effect: the rule does not replace the recipient"
            entry.place.warn(("case_group",), message)
        elif sizes[rule.case_group] == 1 and rule.address_map is None and rule.has_constant_target:
            message = f'has no effect: no other rule is in the group "{rule.case_group}"'
            entry.place.warn(("case_group",), message)
