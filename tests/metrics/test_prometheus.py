"""A real Prometheus scrapes while real mail flows, and evaluates every alert and every panel."""

import hashlib
import json
import re
import signal
import time
from collections.abc import Iterator

import pytest
from kinds import CONFIG, KINDS
from scraping import MONITORING, Exporter, Prometheus, alerts, settle, with_metrics

from crm_milter.metrics.collector import METRICS
from lab.base import free_port, wait_for
from lab.whole import Lab

SERIES = re.compile(r"(?:crm_milter_\w+|up)(?:\{[^}]*\})?")
VARIABLES = {"$__rate_interval": "5s", "$job": ".*", "$instance": ".*", "$rule": ".*"}


@pytest.fixture(scope="module")
def scene(make_module_lab) -> Iterator[tuple[Lab, Exporter, Prometheus]]:
    """Mail of all kinds before and between the scrapes, and a second host that is down."""
    text, port = with_metrics(CONFIG)
    lab = make_module_lab(text)
    exporter = Exporter(port).wait()
    logs = f"[{lab.postfix.maillog.path}, {lab.milter.logfile.path}]"
    lab.milter.configure(text.replace("deliveries: none", f"deliveries: {logs}"))
    lab.milter.signal(signal.SIGHUP)
    lab.milter.wait_log("reloaded, serving")
    prometheus = Prometheus(port, free_port())
    try:
        prometheus.wait_for(f'crm_milter_workers{{instance="127.0.0.1:{port}"}} == 2')
        for _ in range(3):
            send_all(lab)
        settle()
        time.sleep(0.5)  # two more scrapes
        yield lab, exporter, prometheus
    finally:
        prometheus.stop()


def send_all(lab: Lab) -> None:
    for kind in KINDS:
        lab.send("<anna@customer.example>", kind.rcpts, kind.message, wait=False)


def panels() -> list[tuple[str, str]]:
    dashboard = json.loads((MONITORING / "crm-milter.dashboard.json").read_text())
    return [
        (panel["title"], target["expr"])
        for panel in dashboard["panels"]
        for target in panel["targets"]
    ]


def _scraped(prometheus):
    result = prometheus.query('{__name__=~"crm_milter_.*",__name__!~".*(info|_seconds.*)"}')
    return {
        (
            each["metric"].pop("__name__").removeprefix("crm_milter_"),
            *sorted(each["metric"].items()),
        ): each["value"]
        for each in result
    }


def test_prometheus_has_what_the_exporter_says(scene):
    _, exporter, prometheus = scene
    own = {("instance", f"127.0.0.1:{exporter.port}"), ("job", "crm-milter")}
    said = {}

    def agree() -> bool:  # deliveries are counted a moment after the mail has gone
        scraped = _scraped(prometheus)
        said.clear()
        for (name, labels), value in exporter.samples().items():
            if not re.search("info|_seconds", name):
                said[(name, *sorted({*labels, *own}))] = value
        return scraped == said

    wait_for("the same in both", agree)
    assert sum(value for key, value in said.items() if key[0] == "messages_total") == 3 * len(KINDS)


def test_nothing_is_odd_about_the_scrape(scene):
    _, exporter, prometheus = scene
    targets = prometheus.api("targets")["activeTargets"]
    errors = {each["labels"]["instance"]: each["lastError"] for each in targets}
    assert errors[f"127.0.0.1:{exporter.port}"] == ""
    assert len(errors) == 2
    metadata = prometheus.api("metadata")
    for family in METRICS:
        (told,) = metadata[f"crm_milter_{family.name}"]
        found = (told["type"], told["help"], told["unit"])
        assert found == (family.kind, family.help, family.unit)


def test_prometheus_evaluates_every_alert_without_an_error(scene):
    *_, prometheus = scene
    (group,) = prometheus.api("rules")["groups"]
    assert {rule["name"] for rule in group["rules"]} == {alert["alert"] for alert in alerts()}
    assert {rule.get("lastError", "") for rule in group["rules"]} == {""}


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert["alert"])
def test_every_alert_has_data_to_judge_by(scene, alert):
    *_, prometheus = scene
    expression = alert["expr"]
    for series in SERIES.findall(expression):
        assert prometheus.query(series), series
    # With "bool" a comparison says 0 or 1 wherever there is something to compare.
    assert prometheus.query(re.sub(r"(==|>|<) ", r"\1 bool ", expression))


@pytest.mark.parametrize(("title", "expression"), panels())
def test_every_panel_shows_something(scene, title, expression):
    lab, _, prometheus = scene
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression
    found = prometheus.query(expression)
    if not found or all(each["value"] != each["value"] for each in found):
        send_all(lab)  # the last mail is longer ago than the panel looks back
        settle()
        found = prometheus.wait_for(expression)
    assert any(each["value"] == each["value"] for each in found)  # a number, not NaN


def test_variables_of_the_dashboard_are_labels_that_there_are(scene):
    *_, prometheus = scene
    dashboard = json.loads((MONITORING / "crm-milter.dashboard.json").read_text())
    queries = [each for each in dashboard["templating"]["list"] if each["type"] == "query"]
    for each in queries:
        series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", each["definition"]).groups()
        for variable, value in VARIABLES.items():
            series = series.replace(variable, value)
        assert prometheus.api(f"label/{label}/values", **{"match[]": series})


def test_what_went_wrong_is_seen(scene):
    lab, exporter, prometheus = scene
    expressions = {alert["alert"]: alert["expr"] for alert in alerts()}
    assert prometheus.query(expressions["CrmMilterDown"])
    assert not prometheus.query(expressions["CrmMilterReloadFailed"])
    good = lab.milter.config.read_text()
    lab.milter.config.write_text("rules: [")
    try:
        lab.milter.signal(1)
        prometheus.wait_for(expressions["CrmMilterReloadFailed"])
        status, _, text = exporter.get("/healthz")
        assert (status, b"last reload failed" in text) == (200, True)
    finally:
        lab.milter.config.write_text(good)
        lab.milter.signal(1)
    prometheus.wait_for("crm_milter_config_last_reload_successful == 1")


def test_the_hash_is_that_of_the_file(scene):
    lab, _, prometheus = scene
    (found,) = prometheus.query("crm_milter_config_info")
    assert found["metric"]["sha256"] == hashlib.sha256(lab.milter.config.read_bytes()).hexdigest()
