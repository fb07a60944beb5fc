"""Mailboxes for what is left or bounces: none may be where the mail was meant to go.

Spam that is kept from a CRM would reach it after all, and a bounce would show its address.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from crm_milter import address as addresses
from crm_milter.config.build import RuleEntry
from crm_milter.config.place import Place, Section
from crm_milter.rules.pattern import Glob, InDomain, Pattern
from crm_milter.rules.rule import Rule
from crm_milter.rules.template import Template

KEYS = ("unrouted_to", "dead_letters")
_REFERENCE = re.compile(r"\\[1-9]")


def check(entries: tuple[RuleEntry, ...], root: Section) -> None:
    """Note every mailbox of these keys that is a target of a rule."""
    ends = DeadEnds(root["recipient_delimiter"] or "")
    for entry in entries:
        ends.add(entry.rule)
    for key in KEYS:
        _mailbox(ends, key, root.values.get(key), root.place)
        for entry in entries:
            _mailbox(ends, key, getattr(entry.rule, key, None), entry.place)


def _mailbox(ends: "DeadEnds", key: str, address: str | None, place: Place) -> None:
    rule = ends.target_of(address) if address else ""
    if rule:
        message = f'"{address}" is a target of rule "{rule}": what is kept from it would get there'
        place.complain((key,), message)


@dataclass(slots=True)
class DeadEnds:
    """Whether an address is a target of a rule, in any of its spellings."""

    delimiter: str = ""
    _targets: dict[str, str] = field(default_factory=dict)
    _patterns: dict[str, list[tuple[re.Pattern[str], str]]] = field(default_factory=dict)
    _asked: dict[str, str] = field(default_factory=dict)

    def add(self, rule: Rule) -> None:
        """Add what a rule sends mail to."""
        for target in rule.known_targets():
            self._targets.setdefault(self._base(target), rule.name)
        for domain, pattern in _patterns(rule):
            self._patterns.setdefault(domain, []).append((pattern, rule.name))

    def target_of(self, address: str) -> str:
        """Return the name of a rule that sends mail to an address, "" if none does."""
        if address not in self._asked:
            self._asked[address] = self._find(self._base(address))
        return self._asked[address]

    def _find(self, base: str) -> str:
        patterns = self._patterns.get(addresses.domain_of(base), [])
        made = (name for pattern, name in patterns if pattern.fullmatch(base))
        return self._targets.get(base) or next(made, "")

    def _base(self, address: str) -> str:
        return addresses.without_extension(addresses.normalise(address).casefold(), self.delimiter)


def _patterns(rule: Rule) -> Iterator[tuple[str, re.Pattern[str]]]:
    """Yield what the targets that depend on the recipient look like, by their domain."""
    template = rule.replace_with
    if template is None or template.is_constant:
        return
    for pattern in rule.match:
        kept = pattern.domain if isinstance(pattern, InDomain | Glob) else ""
        domain = addresses.ascii_domain(template.domain or kept)
        parts = _local_parts(template, pattern)
        if domain and parts:
            local = ".*".join(map(re.escape, parts))
            yield domain, re.compile(f"{local}@{re.escape(domain)}", re.DOTALL)


def _local_parts(template: Template, pattern: Pattern) -> Sequence[str]:
    """Return what stands around the groups in the local part of a target; () if all is open."""
    if template.local is not None:
        return _REFERENCE.split(addresses.folded(template.local))
    return pattern.pieces if isinstance(pattern, Glob) else ()
