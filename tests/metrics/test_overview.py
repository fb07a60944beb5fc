"""What is in force, for `rules --running` and for a browser: true, and without an address."""

import json
import re
import shutil
import signal
import subprocess
import time
from hashlib import sha256
from html.parser import HTMLParser

import pytest
from mta import Mta
from scraping import Exporter, with_metrics
from serving import run

from crm_milter.config import paused
from crm_milter.config.paused import Pause
from crm_milter.metrics.http import PageSet
from crm_milter.metrics.memory import SharedCounters, in_use
from crm_milter.rules.rule import Rule
from lab.milter import Milter

HAM = [("X-Spam", "no")]
CONFIG = """
unrouted_to: it@solarmora.com
spam: rspamd
include: more.yaml
rules:
  - name: vip
    match: help@solarmora.com
    senders: ["@secret.example", boss@customer.example]
    replace_with: vip@crm.example
  - name: support
    match: help@solarmora.com
    replace_with: support@crm.example
  - {name: trial, match: trial@solarmora.com, replace_with: t@crm.example, mode: test}
"""
MORE = "rules: [{name: more, match: more@solarmora.com, replace_with: m@crm.example}]\n"


class WithInclude(Milter):
    """One whose configuration includes a file."""

    def configure(self, text):
        (self.folder / "more.yaml").write_text(MORE)
        super().configure(text)


@pytest.fixture
def served():
    """A milter that had mail, and its exporter."""
    text, port = with_metrics(CONFIG, 2)
    with WithInclude(text) as milter:
        exporter = Exporter(port).wait()
        with Mta(milter.address) as mta:
            mta.connect()
            mta.message(["<help@solarmora.com>"], HAM, "<joe@x.example>")
            mta.message(["<help@solarmora.com>"], [("X-Spam", "yes")], "<joe@x.example>")
            mta.message(["<trial@solarmora.com>"], HAM, "<joe@x.example>")
        yield milter, exporter


def test_rules_as_json(served):
    milter, exporter = served
    status, kind, body = exporter.get("/rules")
    assert (status, kind) == (200, "application/json")
    assert b"@" not in body
    found = json.loads(body)
    assert found["sha256"] == sha256(milter.config.read_bytes()).hexdigest()
    assert re.fullmatch(r"20..-..-..T..:..:..Z", found["since"])
    assert [(each["name"], each["mode"], each["conditions"]) for each in found["rules"]] == [
        ("vip", "enforce", ["senders"]),
        ("support", "enforce", []),
        ("trial", "test", []),
        ("more", "enforce", []),
    ]
    assert found["rules"][1]["recipients"] == {"replaced": 1, "left_spam": 1}
    assert found["rules"][1]["last_rerouted"]
    assert found["rules"][2]["recipients"] == {"test": 1}


class Checked(HTMLParser):
    """Every element is closed in its turn."""

    def __init__(self):
        super().__init__()
        self.open, self.seen, self.meta = [], [], {}

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        if tag == "meta":
            self.meta.update({dict(attrs).get("name", "charset"): dict(attrs)})
        else:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_for_a_browser(served):
    _, exporter = served
    status, kind, body = exporter.get("/")
    assert (status, kind) == (200, "text/html; charset=utf-8")
    assert b"@" not in body
    page = Checked()
    page.feed(body.decode())
    assert page.open == []
    assert page.meta["viewport"]["content"] == "width=device-width, initial-scale=1"
    assert page.seen.count("tr") == 1 + 4
    assert not {"script", "img", "link"} & set(page.seen)  # nothing is fetched from elsewhere
    assert "<td>support</td><td>enforce</td>" in body.decode()


def test_what_is_running_and_whether_the_files_differ(served):
    milter, _ = served
    done = run("rules", "--running", "--config", milter.config)
    assert (done.returncode, done.stderr) == (0, "")
    heading, *table = done.stdout.splitlines()
    assert re.fullmatch(r"4 rules in force since \S+, file [0-9a-f]{12}", heading)
    assert [line.split()[:5] for line in table[:3]] == [
        ["RULE", "MODE", "CONDITIONS", "REROUTED", "LEFT"],
        ["vip", "enforce", "senders", "0", "0"],
        ["support", "enforce", "-", "1", "1"],
    ]
    assert "@" not in done.stdout
    more = milter.folder / "more.yaml"
    more.write_text(MORE.replace("more@", "other@"))
    done = run("rules", "--running", "--config", milter.config)
    assert done.returncode == 1
    assert "differs from what is in force; run: crm-milter check" in done.stderr
    found = json.loads(run("rules", "--running", "--json", "--config", milter.config).stdout)
    assert found["differs"] is True
    milter.signal(signal.SIGHUP)
    milter.wait_log("reloaded, serving")
    assert run("rules", "--running", "--config", milter.config).returncode == 0
    more.unlink()
    done = run("rules", "--running", "--config", milter.config)
    assert done.returncode == 1  # invalid, and the usual address has no answer or other rules


def test_nobody_answers(tmp_path):
    file = tmp_path / "crm-milter.yaml"
    file.write_text("spam: rspamd\nmetrics: {listen: '127.0.0.1:1'}\n")
    done = run("rules", "--running", "--config", file)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("crm-milter: no answer from crm-milter at 127.0.0.1 port 1: ")
    file.write_text("spam: rspamd\nmetrics: {listen: none}\n")
    done = run("rules", "--running", "--config", file)
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be asked" in done.stderr


@pytest.mark.parametrize("width", [320, 390, 800, 980, 1280])
def test_the_page_fits_a_browser(tmp_path, width):
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("chromium is not here: postfix/install --tests")
    shown = SharedCounters()
    names = ("support", "a-name-without-a-blank-" + "x" * 99, *(f"rule{n}" for n in range(9)))
    shown.loaded(in_use("f" * 64, tuple(map(Rule, names))))
    until = Pause(1, time.time() + 999)
    paused.write(tmp_path, {"support": until})
    page = tmp_path / "page.html"
    page.write_bytes(PageSet(shown, print, directory=tmp_path).page("/", "").body)
    # A window of a browser cannot be as narrow as that, a frame can.
    frame = (
        f'<iframe id="f" src="page.html" style="border:0;width:{width}px;height:800px"></iframe>'
    )
    script = (
        'document.title = document.getElementById("f").contentDocument.body.parentNode.scrollWidth'
    )
    outer = tmp_path / "outer.html"
    outer.write_text(
        f"<html><body>{frame}<script>onload = () => {{{script}}}</script></body></html>"
    )
    options = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
    done = subprocess.run(
        [
            browser,
            *options,
            "--hide-scrollbars",
            "--allow-file-access-from-files",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            f"file://{outer}",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert f"<title>{width}</title>" in done.stdout
