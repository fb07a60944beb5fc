"""What a scrape says: names, types, help and units, by the newest and the oldest client library."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from counted import count
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from scraping import ROOT, promtool

from crm_milter.config import paused
from crm_milter.config.paused import Pause
from crm_milter.metrics import http as exporter
from crm_milter.metrics.collector import METRICS
from crm_milter.metrics.counting import WorkerCounters
from crm_milter.metrics.deliveries import Deliveries
from crm_milter.metrics.http import PageSet
from crm_milter.metrics.memory import SharedCounters, in_use, room_for
from crm_milter.routing.decision import Action, Decision, Outcome, Recipient
from crm_milter.rules.rule import Rule

HERE = Path(__file__).parent
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"
HOSTILE = ['evil"} 1\nup{x="', "a\\", "a\nb", "# HELP x", "\u2028", "{}", "\0"]


def numbers(*names: str, mail: bool = True) -> SharedCounters:
    made = SharedCounters()
    made.ensure_row(0)
    rules = tuple(map(Rule, names))
    made.loaded(in_use("f" * 64, rules))
    made.set_workers(2, 3)
    tally = WorkerCounters(made, 0, room_for(rules))
    tally.passed(0.0002)
    for rule in rules if mail else ():
        recipient = Recipient("a@b.example", "a@b.example")
        outcome = Outcome(recipient, rule, Action.REROUTED, targets=("case@crm.example",))
        count(tally, Decision(outcomes=(outcome,)), True, 0.01)
    followed = Deliveries([(each, "copy", "sent", 2) for each in names if mail], is_readable=True)
    made.deliveries.write(followed.word())
    return made


def page(numbers: SharedCounters, accept: str = "") -> str:
    faults: list[str] = []
    found = PageSet(numbers, faults.append).page("/metrics", accept)
    assert not faults
    assert found.status == 200
    return found.body.decode()


def test_promtool_finds_nothing_to_say_about_the_metrics():
    assert promtool("check", "metrics", text=page(numbers("support", "sales")).encode()) == ""


def test_every_metric_has_help_and_where_it_is_a_number_of_something_a_unit():
    families = {each.name: each for each in openmetrics(page(numbers("support"), OPENMETRICS))}
    assert set(families) == {f"crm_milter_{each.name}" for each in METRICS}
    for name, family in families.items():
        assert family.documentation.endswith("."), name
        assert family.samples, name
        unitless = (
            "config_last_reload_successful",
            "config_last_good",
            "socket_bound",
            "delivery_log_readable",
            "deliveries_dropped",
            "config",
            "build",
        )
        assert bool(family.unit) != (name.removeprefix("crm_milter_") in unitless)


def test_the_documentation_names_every_metric_and_value_of_a_label():
    text = (ROOT / "docs/monitoring.md").read_text()
    for family in openmetrics(page(numbers("support"), OPENMETRICS)):
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        assert f"`{family.name}{suffix}" in text, family.name
        for sample in family.samples:
            for label in ("outcome", "verdict", "stage", "kind"):
                value = sample.labels.get(label)
                assert value is None or f"`{value}`" in text, sample


def test_histogram_adds_up():
    text = page(numbers("a", "b"))
    assert 'processing_seconds_bucket{le="0.0001"} 0.0' in text
    assert 'processing_seconds_bucket{le="0.00025"} 1.0' in text
    assert 'processing_seconds_bucket{le="0.01"} 3.0' in text
    assert 'processing_seconds_bucket{le="+Inf"} 3.0' in text
    assert "processing_seconds_count 3.0" in text
    assert "processing_seconds_sum 0.0202" in text


def test_rules_have_series_from_the_start_up_to_a_thousand_of_them():
    names = [f"rule{number}" for number in range(1002)]
    shown = numbers(*names, mail=False)
    text = page(shown)
    assert 'crm_milter_recipients_total{outcome="left_spam",rule="rule999"} 0.0' in text
    assert "rule1000" not in text
    outcome = Outcome(Recipient("a@b.c", "a@b.c"), Rule("rule1001"), Action.COPIED)
    tally = WorkerCounters(shown, 0, room_for(map(Rule, names)))
    count(tally, Decision(outcomes=(outcome,)), True, 0)
    text = page(shown)
    assert 'crm_milter_recipients_total{outcome="kept_with_copies",rule="rule1001"} 1.0' in text
    assert "rule1000" not in text


def test_a_rule_that_is_gone_keeps_its_counts_and_one_that_had_no_mail_goes():
    shown = numbers("old")
    shown.loaded(in_use("e" * 64, (Rule("new"), Rule("unused"))))
    assert 'recipients_total{outcome="replaced",rule="old"} 1.0' in page(shown)
    shown.loaded(in_use("d" * 64, (Rule("new"),)))
    assert 'recipients_total{outcome="replaced",rule="old"} 1.0' in page(shown)
    assert "unused" not in page(shown)


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_stays_within_its_label(name, accept):
    # The configuration refuses such names (tests/pure); this is the second line of defence.
    text = page(numbers(name), accept)
    expected = len(page(numbers("harmless"), accept).split("\n"))
    assert len(text.split("\n")) == expected
    escaped = name.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    assert f'crm_milter_recipients_total{{outcome="replaced",rule="{escaped}"}} 1.0\n' in text


def test_debian_12_has_a_client_library_that_is_old_enough_to_differ():
    """The text is the same with it, but for the version of OpenMetrics that it knows."""
    oldest = ROOT / ".venv" / "oldest"
    if not oldest.exists():
        pytest.skip("prometheus_client 0.16 is not here: postfix/install --tests")
    script = """
import prometheus_client, sys, test_pages
assert prometheus_client.__file__.startswith(sys.argv[1]), prometheus_client.__file__
for accept in ("", test_pages.OPENMETRICS):
    print(test_pages.page(test_pages.numbers("support"), accept))
"""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{oldest}:{HERE}:{ROOT}/tests/helpers:{ROOT}/postfix",
    }
    arguments = [sys.executable, "-c", script, str(oldest)]
    old = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=30)
    assert old.returncode == 0, old.stderr
    new = "".join(page(numbers("support"), accept) + "\n" for accept in ("", OPENMETRICS))

    def timeless(text: str) -> str:
        return re.sub(r"(timestamp_seconds\S*) .*", r"\1", text)

    assert timeless(old.stdout) == timeless(new)


def test_a_page_is_kept_for_fifty_times_the_time_that_it_took(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(exporter.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(exporter.time, "process_time", lambda: clock[0])
    shown = numbers("support")
    site = PageSet(shown, print)
    made = []

    def generate(_collector: object) -> bytes:
        made.append(clock[0])
        clock[0] += 0.5
        return b""

    monkeypatch.setattr(exporter, "generate_latest", generate)
    for _ in range(600):
        site.page("/metrics", "")
        clock[0] += 0.1
    assert made == pytest.approx([100.0, 125.0, 150.0], abs=0.3)


@pytest.mark.parametrize("path", ["/", "/rules"])
def test_what_is_in_force_is_kept_until_it_changes(monkeypatch, tmp_path, path):
    monkeypatch.setattr(exporter, "_LEISURE", 1e9)  # forever, unless something changed
    shown = numbers(*(f"rule{number}" for number in range(1000)))
    site = PageSet(shown, print, directory=tmp_path)
    began = time.process_time()
    first = site.page(path, "").body
    made = time.process_time() - began
    began = time.process_time()
    for _ in range(20):
        assert site.page(path, "").body == first
    assert (time.process_time() - began) / 20 < made / 10

    def is_new() -> bool:
        nonlocal first
        before, first = first, site.page(path, "").body
        return first != before

    shown.loaded(in_use("a" * 64, (Rule("other"),)))
    assert is_new()
    paused.write(tmp_path, {"other": Pause(1, time.time() + 0.5)})
    assert is_new()
    assert b"paused" in first
    time.sleep(0.6)  # it ends by itself
    assert is_new()
    paused.write(tmp_path, {"other": Pause(1, time.time() + 60)})
    assert is_new()
    paused.write(tmp_path, {})
    assert is_new()
    shown.reload_failed()
    assert is_new()
    shown.loaded(in_use("b" * 64, (Rule("other"),)))
    assert is_new()
    shown.set_workers(1, 0)
    assert is_new()
    assert not is_new()


def test_health():
    shown = numbers("support")
    site = PageSet(shown, print)

    def health() -> tuple[int, str]:
        found = site.page("/healthz", "")
        return found.status, found.body.decode()

    assert health() == (200, "ok, 2 workers accepting mail\n")
    shown.reload_failed()
    status, text = health()
    assert (status, "last reload failed" in text) == (200, True)
    shown.set_workers(0, 0)
    assert health() == (503, "no worker is accepting mail\n")


def test_the_front_page_has_links_and_no_address():
    found = PageSet(numbers("support", "sales"), print).page("/", "")
    text = found.body.decode()
    assert 'href="/metrics"' in text
    assert 'href="/healthz"' in text
    assert "2 rules" in text
    assert "@" not in text


def test_a_fault_of_ours_is_logged_and_the_next_page_is_good(monkeypatch):
    shown, faults = numbers("support"), []
    site = PageSet(shown, faults.append)
    with monkeypatch.context() as patch:
        patch.setattr(shown, "totals", lambda: 1 / 0)
        assert site.page("/metrics", "").status == 500
    assert "ZeroDivisionError" in faults[0]
    assert site.page("/metrics", "").status == 200
