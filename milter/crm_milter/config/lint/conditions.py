"""What is odd about the conditions of rules: times that are over, fields that anybody writes."""

from collections.abc import Iterator

from crm_milter.config.build import RuleEntry
from crm_milter.config.place import Section
from crm_milter.rules.conditions import Condition, ExceptHeaders, From, Headers, Until
from crm_milter.rules.pattern import Exact
from crm_milter.rules.rule import Rule
from crm_milter.rules.table import RuleTable

_WEEK = 7 * 24 * 3600.0
# Postfix takes these out before a milter sees the message (message_drop_headers in postconf(5)).
_UNSEEN = frozenset({"bcc", "content-length", "resent-bcc", "return-path"})


def check(entries: tuple[RuleEntry, ...], table: RuleTable, root: Section, now: float) -> None:
    """Note what is odd; ``table`` has no rule in mode test, ``now`` is in seconds since 1970."""
    for entry in entries:
        found = {condition.key: condition for condition in entry.rule.conditions}
        if not found:
            continue
        _times(entry, found, now)
        _unseen(entry, found)
        _contradictions(entry, found)
        _opened(entry, found)
        if not entry.rule.is_test:
            _remainder(entry, table, root)
            _mailboxes(entry, table, root)


def check_accounts(entries: tuple[RuleEntry, ...], table: RuleTable, root: Section) -> None:
    """Note conditions on accounts that are not known or settle the matter, and unused accounts."""
    asking = [entry for entry in entries if _asks_for_account(entry.rule)]
    if root["known_recipients"] and not asking:
        message = 'has no effect: no rule uses "apply_to"'
        root.place.warn(("known_recipients",), message)
    for entry in asking:
        if not table.known:
            message = 'requires "known_recipients", which lists no addresses'
            entry.place.complain(("apply_to",), message)
            continue
        wanted = entry.rule.may_apply(known=True)
        for number, pattern in enumerate(entry.rule.match):
            if isinstance(pattern, Exact) and (pattern.address in table.known) is not wanted:
                stands = "not listed" if wanted else "listed"
                message = (
                    f'"{pattern}" is {stands} in "known_recipients", so the rule never'
                    " applies to it"
                )
                entry.place.warn(("match", number), message)


def _asks_for_account(rule: Rule) -> bool:
    return rule.may_apply(known=True) is not rule.may_apply(known=False)


def _times(entry: RuleEntry, found: dict[str, Condition], now: float) -> None:
    begins, ends = found.get("from"), found.get("until")
    if not isinstance(ends, Until):
        return
    end = ends.moment.seconds
    if isinstance(begins, From) and begins.moment.seconds >= end:
        entry.place.complain(("until",), 'is not after "from": the rule can never apply')
    elif end <= now:
        entry.place.warn(("until",), f"the rule ended on {ends.value} and no longer applies")
    elif end <= now + _WEEK:
        entry.place.warn(("until",), f"the rule ends within a week, on {ends.value}")


def _header_tests(found: dict[str, Condition]) -> Iterator[Headers]:
    return (each for each in found.values() if isinstance(each, Headers))


def _unseen(entry: RuleEntry, found: dict[str, Condition]) -> None:
    for condition in _header_tests(found):
        for field in condition.fields:
            if field.name.lower() in _UNSEEN:
                message = "never matches: Postfix removes this field before it reaches a milter"
                entry.place.warn((condition.key, field.name), message)


def _contradictions(entry: RuleEntry, found: dict[str, Condition]) -> None:
    wanted, unwanted = found.get("headers"), found.get("except_headers")
    if not (isinstance(wanted, Headers) and isinstance(unwanted, ExceptHeaders)):
        return
    excluded = {
        (each.name.lower(), pattern) for each in unwanted.fields for pattern in each.patterns
    }
    for field in wanted.fields:
        if all((field.name.lower(), pattern) in excluded for pattern in field.patterns):
            message = 'is also in "except_headers": the rule can never apply'
            entry.place.complain(("headers", field.name), message)


def _opened(entry: RuleEntry, found: dict[str, Condition]) -> None:
    """Note a way around the spam filter that every sender may take."""
    if entry.rule.bypass_spam_filter and "headers" in found and "senders" not in found:
        message = (
            "any sender can write these header fields, and the rule bypasses the spam filter: spam"
            " with them is rerouted"
        )
        entry.place.warn(("headers",), message)


def _selects(rule: Rule) -> bool:
    """Tell whether the rule passes over mail by its header or by the time."""
    return rule.needs_header or any(isinstance(each, From) for each in rule.conditions)


def _rules(entry: RuleEntry, table: RuleTable) -> Iterator[tuple[str, list[Rule]]]:
    """Yield the addresses that a rule is the first to select mail of, each with all its rules."""
    for address in entry.rule.addresses() if _selects(entry.rule) else ():
        rules = [match.rule for match in table.possible(address)]
        if next(filter(_selects, rules), None) is entry.rule:
            yield address, rules


def _remainder(entry: RuleEntry, table: RuleTable, root: Section) -> None:
    """Note an address that Postfix has to take for the sake of some of its mail."""
    rule = entry.rule
    if not (rule.replaces and rule.may_apply(known=False)):
        return
    for address, rules in _rules(entry, table):
        if rules[-1].depends_on_message:
            mailbox = rules[0].unrouted_to or root["unrouted_to"]
            goes = f'goes to "{mailbox}"' if mailbox else 'needs an "unrouted_to"'
            message = (
                f'mail for "{address}" that does not meet the conditions is not rerouted and'
                f" {goes}; if it should be, add a rule without these conditions"
            )
            entry.place.warn((), message)
            return


def _mailboxes(entry: RuleEntry, table: RuleTable, root: Section) -> None:
    """Note a mailbox that has no effect: Postfix knows one for each address, the first rule's."""
    for address, rules in _rules(entry, table):
        first, *others = [(rule, rule.unrouted_to or root["unrouted_to"]) for rule in rules]
        for rule, mailbox in others:
            if mailbox != first[1]:
                message = (
                    f'mail for "{address}" that is not rerouted goes to the "unrouted_to" of rule'
                    f' "{first[0].name}" ("{first[1]}"), also if rule "{rule.name}" applies'
                )
                entry.place.warn((), message)
                return
