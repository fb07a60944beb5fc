"""The configurations in docs/conditions.md are right, and do what the page says."""

import re
from pathlib import Path

import pytest
from rows import fates

from crm_milter.config.load import parse
from crm_milter.dryrun.decided import DryRun, Mail
from crm_milter.routing.decision import Action

PAGE = Path(__file__).parents[2] / "docs" / "conditions.md"
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
HEAD = "unrouted_to: it@solarmora.com\ndead_letters: lost@solarmora.com\nspam: rspamd\n"
NEW_YEAR = 2114380800.0  # 2037-01-01 00:00Z
DESK = "v1su0245ewejzhe7.case.my-crm.com"


def config(block):
    return parse(HEAD + block, PAGE.with_name("crm-milter.yaml"))


@pytest.mark.parametrize(("block", "warnings"), [(0, 0), (1, 0), (2, 1), (3, 0), (4, 0)])
def test_every_configuration_is_valid(block, warnings):
    assert len(BLOCKS) == 5
    assert len(config(BLOCKS[block]).warnings) == warnings


@pytest.mark.parametrize(
    ("block", "fields", "now", "target"),
    [
        (0, b"References: <1@solarmora.zendesk.com>", 0.0, "support@solarmora.zendesk.com"),
        (0, b"References: <1@x.example>", 0.0, f"support@{DESK}"),
        (1, b"Subject: Your PO 12345", 0.0, f"invoices@{DESK}"),
        (1, b"Subject: Invoice\nAuto-Submitted: auto-generated", 0.0, f"support@{DESK}"),
        (1, b"Subject: hello", 0.0, f"support@{DESK}"),
        (2, b"To: help@solarmora.com", 0.0, f"support@{DESK}"),
        (2, b"To: list@x.example", 0.0, None),
        (3, b"Subject: x", NEW_YEAR, f"standby@{DESK}"),
        (3, b"Subject: x", NEW_YEAR + 3 * 86400, f"support@{DESK}"),
    ],
)
def test_they_do_what_the_page_says(block, fields, now, target):
    to = "billing@solarmora.com" if block == 1 else "help@solarmora.com"
    mail = Mail("<joe@x.example>", [f"<{to}>"], fields + b"\n\n", now=now)
    decision = DryRun(config(BLOCKS[block]).policy).decided(mail).decision
    added = [each.address for each in decision.add] if decision else []
    assert added == ([target] if target else [])


def test_one_case_is_opened_and_the_team_has_its_copy():
    mail = Mail("<joe@x.example>", ["<sales@solarmora.com>", "<help@solarmora.com>"], b"\n")
    decision = DryRun(config(BLOCKS[4]).policy).decided(mail).decision
    assert [action for action, _ in fates(decision)] == [Action.MERGED, Action.REROUTED]
    assert [each.address for each in decision.add] == [
        "sales-team@solarmora.com", "support@solarmora.zendesk.com"
    ]  # fmt: skip
