"""What a check found: how bad it is, why it matters and the command that fixes it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from crm_milter.config.problems import Severity
from crm_milter.wording import and_more, counted, one_line

__all__ = ["CheckName", "Finding", "Severity", "as_json", "count_text", "lines", "names"]


# What scripts know a finding by.
CheckName = Literal[
    "account-unlisted",
    "address-domain",
    "address-mappings",
    "address-unknown",
    "alias-domain",
    "alias-member",
    "authentication",
    "bcc-member",
    "bounce-size",
    "content-filter",
    "copy-unknown",
    "dead-end-target",
    "dead-letters",
    "dead-letters-remote",
    "dead-letters-shared",
    "default-action",
    "delimiter",
    "delivery-rate",
    "dsn-offered",
    "foreign-domain",
    "header-checks",
    "map-missing",
    "map-shadowed",
    "map-stale",
    "map-wildcard",
    "message-size",
    "milter-maps",
    "milter-missing",
    "milter-order",
    "notify-classes",
    "original-recipient",
    "pattern-unknown",
    "proxy-filter",
    "real-account",
    "reject-after-queue",
    "socket",
    "socket-path",
    "spam-filter",
    "table",
    "target-local",
    "target-rewritten",
    "test-address",
    "timeout",
    "unrouted",
    "unverified-recipient",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. ``check`` names the rule that found it, for scripts."""

    check: CheckName
    found: str
    why: str
    fix: str
    severity: Severity = Severity.ERROR


def lines(findings: Iterable[Finding]) -> Iterator[str]:
    """Yield three lines for each finding: what, why, and the command."""
    for each in findings:
        yield f"{each.severity.value}: {each.check}: {one_line(each.found)}"
        yield f"  why:  {one_line(each.why)}"
        yield f"  fix:  {each.fix}"


def as_json(finding: Finding) -> dict[str, Any]:
    """Return a finding as what json.dumps takes."""
    return {
        "severity": finding.severity.value,
        "check": finding.check,
        "found": finding.found,
        "why": finding.why,
        "fix": finding.fix,
    }


def count_text(findings: Iterable[Finding]) -> str:
    """Return how many errors and warnings there are."""
    severities = [each.severity for each in findings]
    counts = [(severities.count(severity), severity.value) for severity in Severity]
    return ", ".join(counted(count, name) for count, name in counts)


def names(items: Iterable[str], most: int = 3) -> str:
    """Return a few items of a list in quotes, and how many more there are."""
    return and_more([f'"{each}"' for each in items], most)
