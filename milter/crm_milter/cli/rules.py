"""The table of rules as a person or a script reads it."""

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from crm_milter.cli import options as common
from crm_milter.cli import running
from crm_milter.cli.terminal import EX_OK, aligned, load_config
from crm_milter.config import paused
from crm_milter.rules.conditions import CONDITIONS
from crm_milter.rules.flood import Flood, Per
from crm_milter.rules.rule import AutomaticClass, OnAutomatic, Rule
from crm_milter.wording import abridged

_HEADING = ("RULE", "MATCH", "REPLACE WITH", "COPIES", "SPAM", "CONDITIONS", "MODE")


def table_lines(
    rules: tuple[Rule, ...], paused_until: Mapping[str, str] = MappingProxyType({})
) -> Iterator[str]:
    """Yield a heading and a line for each rule, in order, in aligned columns."""
    yield from aligned([_HEADING, *(_row(rule, paused_until.get(rule.name)) for rule in rules)])


def _row(rule: Rule, paused_until: str | None) -> tuple[str, ...]:
    data = rule_json(rule)
    return (
        rule.name,
        abridged(data["match"]),
        data["replace_with"] or "-",
        abridged([copy["address"] for copy in data["also_deliver_to"]]),
        "routed" if rule.bypass_spam_filter else rule.on_spam.value,
        _conditions(rule),
        f"paused until {paused_until}" if paused_until else rule.mode.value,
    )


def _conditions(rule: Rule) -> str:
    return ", ".join(map(str, rule.conditions)) or "-"


def rule_json(rule: Rule) -> dict[str, Any]:
    """Return a rule as what json.dumps takes, with the keys of the configuration."""
    table = rule.address_map
    return {
        "name": rule.name,
        "match": [str(pattern) for pattern in rule.match] or [f"address_map:{_source(rule)}"],
        "replace_with": rule.replace_with.source if rule.replace_with else None,
        "address_map": table.source if table else None,
        "also_deliver_to": [
            {
                "address": copy.address,
                "deliver_spam": copy.deliver_spam,
                "suppress_bounces": copy.suppress_bounces,
            }
            for copy in rule.copies
        ],
        **{kind.key: kind.unset for kind in CONDITIONS},
        **{condition.key: condition.value for condition in rule.conditions},
        "bypass_spam_filter": rule.bypass_spam_filter,
        "on_spam": rule.on_spam.value,
        "automatic": {each.value: _on(each in rule.automatic) for each in AutomaticClass},
        "on_unauthenticated": rule.on_unauthenticated.value,
        "max_size": rule.max_size,
        "on_oversize": rule.on_oversize.value,
        "suppress_bounces": rule.suppress_bounces,
        "dead_letters": rule.dead_letters,
        "flood": _flood(rule.flood),
        "propagate_extension": rule.propagate_extension,
        "add_headers": dict(rule.add_headers),
        "case_group": rule.case_group,
        "unrouted_to": rule.unrouted_to,
        "mode": rule.mode.value,
    }


def _flood(flood: Flood | None) -> dict[str, Any] | None:
    if flood is None:
        return None
    return {
        "limit": str(flood.limit or "auto"),
        "per": (flood.per or Per.SENDER).value,
        "then": flood.then.value,
        "except": [str(each) for each in flood.exempt],
    }


def _on(leaves: bool) -> str:
    return str((OnAutomatic.LEAVE if leaves else OnAutomatic.ROUTE).value)


def _source(rule: Rule) -> str:
    return rule.address_map.source if rule.address_map else ""


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--running", action="store_true", help="show what the running daemon has in force"
    )
    common.json(command)


def list_rules(options: argparse.Namespace) -> int:
    """List the rules in the order they are tried.

    With --running, ask the daemon (metrics.listen) which rules are in force, since when, and what
    they did; the exit status is 1 if the files differ from that.
    """
    if options.running:
        return running.show(options)
    rules = load_config(options.config).policy.table.rules
    until = {
        rule: time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(pause.until))
        for rule, pause in paused.current(paused.folder()).items()
        if time.time() < pause.until
    }
    if options.json:
        listed = [{**rule_json(each), "paused_until": until.get(each.name)} for each in rules]
        print(json.dumps(listed, indent=2))
    else:
        print("\n".join(table_lines(rules, until)))
    return EX_OK
