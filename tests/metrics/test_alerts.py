"""The alerts and the example as promtool sees them; test_prometheus.py asks a real Prometheus."""

import re

import pytest
from scraping import MONITORING, alerts, promtool

TESTS = sorted((MONITORING / "tests").glob("*.test.yml"))


def test_promtool_finds_nothing_wrong_with_rules_and_example():
    promtool("check", "rules", MONITORING / "crm-milter.rules.yml")
    promtool("check", "config", MONITORING / "prometheus.example.yml")


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.name)
def test_alerts_fire_when_they_should_and_only_then(path):
    promtool("test", "rules", path)


def test_every_alert_is_among_the_tests():
    tested = {
        name for path in TESTS for name in re.findall(r'alertname(?:="|: )(\w+)', path.read_text())
    }
    assert tested == {alert["alert"] for alert in alerts()}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_every_alert_says_how_bad_it_is_and_what_to_do(alert):
    assert alert["labels"]["severity"] in ("critical", "warning", "info")
    assert set(alert["annotations"]) == {"summary", "runbook"}
    runbook = alert["annotations"]["runbook"]
    assert runbook.endswith(".")
    assert len(runbook) > 60
