"""What is wrong with the letters of the addresses in a file: warnings, since they may be meant."""

from collections.abc import Iterator

from crm_milter.config.build import RuleEntry
from crm_milter.config.international import lookalike, risk
from crm_milter.config.place import Section
from crm_milter.config.problems import Path
from crm_milter.rules.pattern import Regex
from crm_milter.rules.rule import Rule


def check(entries: tuple[RuleEntry, ...], root: Section) -> None:
    """Warn of addresses that need SMTPUTF8 at the far end, and of letters of two scripts."""
    message = lookalike(root["unrouted_to"] or "")
    if message:
        root.place.warn(("unrouted_to",), message)
    for entry in entries:
        for where, message in _risks(entry.rule):
            if message:
                entry.place.warn(where, message)


def _risks(rule: Rule) -> Iterator[tuple[Path, str]]:
    for key, patterns in (("match", rule.match), *((c.key, c.patterns) for c in rule.conditions)):
        for number, pattern in enumerate(patterns):
            if not isinstance(pattern, Regex):
                yield (key, number), lookalike(str(pattern))
    if rule.replace_with is not None:
        yield ("replace_with",), risk(rule.replace_with.source)
    for number, copy in enumerate(rule.copies):
        yield ("also_deliver_to", number), risk(copy.address)
    yield ("unrouted_to",), lookalike(rule.unrouted_to or "")
