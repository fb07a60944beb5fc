"""Deliveries as the exporter counts them: equal to the log of a real Postfix, whatever happens."""

import json
import os
import random
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest
from scraping import Exporter, exporters_of, with_metrics

from crm_milter.trace.lines import Parser, delivery
from lab.base import LabError, wait_for
from lab.whole import Lab

RULES = """
unrouted_to: it@solarmora.com
rules:
  - name: support
    match: help@solarmora.com
    replace_with: support@crm.example
    also_deliver_to: [team@solarmora.com, archive@solarmora.com]
  - {name: sales, match: sales@solarmora.com, replace_with: leads@crm.example}
  - {name: dead, match: dead@solarmora.com, replace_with: case@dead.example}
  - {name: watch, match: info@solarmora.com, also_deliver_to: watch@solarmora.com}
  - {name: trial, match: trial@solarmora.com, replace_with: case@crm.example, mode: test}
"""
PARTS = {
    "support@crm.example": ("support", "target"),
    "team@solarmora.com": ("support", "copy"),
    "archive@solarmora.com": ("support", "copy"),
    "leads@crm.example": ("sales", "target"),
    "case@dead.example": ("dead", "target"),
    "watch@solarmora.com": ("watch", "copy"),
}
# A mailbox for the dead letters of each rule, which tells in the log whose they are.
BOXES = {f"lost-{name}@solarmora.com": name for name in ("support", "sales", "dead")}
ADDRESSES = [f"{name}@solarmora.com" for name in ("help", "sales", "dead", "info", "trial", "bob")]
MESSAGE = b"From: anna@customer.example\r\nSubject: test\r\n\r\nhello\r\n"
QUICK = {"minimal_backoff_time": "1s", "maximal_backoff_time": "1s", "queue_run_delay": "1s"}


TARGET_SENT = ("target", "sent")


def _listens(pid: int) -> bool:
    listening = re.findall(r" 0A .* (\d+) 1 ", Path("/proc/net/tcp").read_text())
    with suppress(OSError):
        links = {str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()}
        return any(f"socket:[{inode}]" in links for inode in listening)
    return False


class Followed:
    """A lab whose exporter follows the logs of Postfix and of the milter."""

    def __init__(self, lab: Lab, exporter: Exporter) -> None:
        self.lab = lab
        self.exporter = exporter
        self._rotated = 0

    def send(self, *recipients: str) -> str:
        rcpts = [f"<{each}>" for each in recipients]
        sent = self.lab.send("<anna@customer.example>", rcpts, MESSAGE, wait=False).sent
        assert sent.reply.code == 250
        return sent.queue_id

    def bounce_later(self) -> int:
        """Have the server of the CRM return what it took from a mailbox for dead letters."""
        returned = [each.sender for each in self.lab.sink.received if each.sender in BOXES]
        for sender in returned:
            self.lab.send("<>", [f"<{sender}>"], MESSAGE, wait=False)
        self.lab.sink.clear()
        return len(returned)

    def counts(self) -> Counter[tuple[str, str, str]]:
        return Counter(self.exporter.counts("deliveries_total", "rule", "kind", "outcome"))

    def logged(self) -> Counter[tuple[str, str, str]]:
        """What Postfix's log says, read from its beginning by one who knows the addresses."""
        found: Counter[tuple[str, str, str]] = Counter()
        waiting: dict[str, dict[str, tuple[str, str]]] = {}
        bounces: set[str] = set()
        parser = Parser(datetime.now(UTC))
        ours = {each.partition(":")[0] for each in self.lab.milter.lines(" rule=")}
        for octets in self.maillog().splitlines():
            line = parser.line(octets)
            attempt = delivery(line)
            if line.text.startswith("from=<>,"):
                bounces.add(line.queue_id)
            if attempt and attempt.to in BOXES and line.queue_id in {*ours, *bounces}:
                kind = "insured" if line.queue_id in ours else "dead_letter"
                found[BOXES[attempt.to], kind, attempt.status] += 1
            if line.queue_id not in ours:
                continue
            if attempt:
                address = attempt.original if attempt.original in PARTS else attempt.to
                if address in PARTS:
                    found[(*PARTS[address], attempt.status)] += 1
                    own = waiting.setdefault(line.queue_id, {})
                    own.pop(attempt.to, None)
                    if attempt.status == "deferred":
                        own[attempt.to] = PARTS[address]
            elif re.match(r"from=<.*>, status=expired", line.text):
                for part in waiting.pop(line.queue_id, {}).values():
                    found[(*part, "expired")] += 1
        return found

    @property
    def maillog_path(self) -> Path:
        return self.lab.postfix.maillog.path

    @property
    def milter_log(self) -> Path:
        return self.lab.milter.logfile.path

    def follow(self, text: str) -> None:
        """Reload a configuration, and wait for the follower that has it."""
        before = self.followers()
        self.text = text
        self.lab.milter.configure(text)
        self.lab.milter.signal(signal.SIGHUP)
        self.lab.milter.wait_log("reloaded, serving")
        self.lab.milter.logfile.mark()
        if "deliveries: none" not in text:
            wait_for("the follower", lambda: {*self.followers()} - {*before})
            wait_for("its first word", lambda: "delivery_log_readable" in self.exporter.text())

    def followers(self) -> list[int]:
        """Those of the children that stand back behind the mail and serve no port."""
        return [each for each in exporters_of(self.lab.milter) if not _listens(each)]

    def kill_follower(self) -> None:
        """Kill it; one that another found a moment ago may be gone."""

        def kill() -> bool:
            with suppress(ProcessLookupError):
                for each in self.followers()[:1]:
                    os.kill(each, signal.SIGKILL)
                    return True
            return False

        wait_for("the follower", kill)

    def restart(self, kill: bool = False) -> None:
        self.lab.milter.kill() if kill else self.lab.milter.stop()
        self.start()

    def start(self) -> None:
        self.lab.milter.start()
        self.exporter.wait()

    # Rotation, as logrotate has it

    def rename(self) -> None:
        self._shift()
        self.maillog_path.rename(f"{self.maillog_path}.1")
        self.lab.postfix.reload()

    def _shift(self) -> None:
        old = Path(f"{self.maillog_path}.1")
        if old.exists():
            self._rotated += 1
            old.rename(f"{self.maillog_path}.{99 - self._rotated}")

    def copy_and_truncate(self) -> None:
        self._shift()
        shutil.copyfile(self.maillog_path, f"{self.maillog_path}.1")
        os.truncate(self.maillog_path, 0)

    def maillog(self) -> bytes:
        path = self.maillog_path
        paths = sorted(path.parent.glob("maillog*"), key=lambda each: each.stat().st_mtime)
        return b"".join(each.read_bytes() for each in paths)

    def settle(self) -> None:
        """Return when the exporter has what the log has; what is deferred is tried again soon."""
        try:
            wait_for("the same counts", self._is_settled, timeout=40)
        except LabError:
            assert self.counts() == self.logged()

    def _is_settled(self) -> bool:
        before = self.logged()
        time.sleep(0.3)
        return bool(before) and before == self.logged() == self.counts()


@pytest.fixture
def followed(
    make_lab: Callable[..., Lab], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., Followed]:
    """Call it with settings of the lab."""

    def make(logs: str = "", dead_letters: str = "", rules: str = RULES, **main: str) -> Followed:
        monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
        more = f"dead_letters: {dead_letters}\n" if dead_letters else ""
        text, port = with_metrics(more + rules, deliveries="LOGS")
        lab = make_lab(
            text.replace("LOGS", "none"),
            virtual_alias_maps={"team@solarmora.com": "ann@solarmora.com, ben@solarmora.com"},
            transport_maps={"dead.example": "smtp:[127.0.0.1]:1"},
            main={**QUICK, **main},
        )
        found = Followed(lab, Exporter(port).wait())
        found.follow(text.replace("LOGS", logs or f"[{found.maillog_path}, {found.milter_log}]"))
        return found

    return make


def _with_box(found: re.Match[str]) -> str:
    separator = found[3] or "\n   "
    return f"{found[1]}{separator} dead_letters: lost-{found[2]}@solarmora.com{found[3]}"


def test_metrics_equal_the_log_for_random_mail_to_a_far_end_of_moods(followed):
    """Refused, deferred, taken, expired, returned later; rotated both ways and restarted."""
    rules = re.sub("(name: (support|sales|dead))(,?)", _with_box, RULES)
    host = followed(rules=rules, maximal_queue_lifetime="4s")
    returned = 0
    chance = random.Random(20261128)
    sink = host.lab.sink
    for number in range(120):
        host.send(*chance.sample(ADDRESSES, chance.randrange(1, 4)))
        if number % 4 == 0:
            sink.accept()
            for address in ("support@crm.example", "leads@crm.example", "ben@solarmora.com"):
                chance.choice([sink.refuse, sink.defer, sink.accept])(address)
        if number % 10 == 5:
            returned += host.bounce_later()
        if number % 20 == 10:
            chance.choice([host.rename, host.copy_and_truncate])()
        if number in (40, 80):
            host.settle()
            host.restart(kill=number == 80)
    sink.accept()
    host.lab.postfix.wait_empty_queue(timeout=30)
    host.settle()
    seen = host.counts()
    assert returned
    assert {outcome for _, _, outcome in seen} == {"sent", "deferred", "bounced", "expired"}
    assert {kind for _, kind, _ in seen} == {"target", "copy", "insured", "dead_letter"}
    assert sum(seen[rule, "dead_letter", "sent"] for rule in BOXES.values()) > returned
    sent = sum(number for (_, kind, what), number in seen.items() if (kind, what) == TARGET_SENT)
    assert host.exporter.value("delivery_seconds_count") == sent
    assert host.exporter.counts("undelivered_oldest_seconds", "rule") == {}
    assert host.exporter.value("delivery_log_readable") == 1
    assert host.exporter.value("deliveries_dropped_total") == 0


def test_what_comes_back_to_dead_letters_and_what_is_insured(followed):
    host = followed(dead_letters="lost@solarmora.com", maximal_queue_lifetime="3s")
    host.lab.sink.refuse("leads@crm.example", "551 5.1.6 it moved")
    host.send("sales@solarmora.com")
    host.send("dead@solarmora.com")  # expires
    host.send("sales@solarmora.com", "bob@solarmora.com")  # bob must not get a report of it
    expected = {
        ("sales", "target", "bounced"): 2,
        ("sales", "dead_letter", "sent"): 1,
        ("sales", "insured", "sent"): 1,
        ("dead", "target", "expired"): 1,
        ("dead", "dead_letter", "sent"): 1,
    }

    def counts() -> dict[tuple[str, str, str], float]:
        return {what: count for what, count in host.counts().items() if what[2] != "deferred"}

    with suppress(LabError):
        wait_for("all of it", lambda: counts() == expected, timeout=20)
    assert counts() == expected
    assert host.lab.sink.recipients.count("lost@solarmora.com") == 3


def test_what_waits_has_an_age_until_it_is_delivered(followed):
    host = followed()
    host.lab.sink.defer("support@crm.example")
    host.send("help@solarmora.com", "sales@solarmora.com")
    host.settle()

    def ages() -> dict[str, float]:
        return host.exporter.counts("undelivered_oldest_seconds", "rule")

    wait_for("an age", lambda: ages().get("support", 0) > 1.5)
    assert set(ages()) == {"support"}
    host.lab.sink.accept()
    wait_for("the next attempt", lambda: not ages(), 30)
    host.settle()


def test_a_queue_that_is_emptied_by_an_administrator_does_not_wait(followed):
    host = followed(maximal_backoff_time="1h", minimal_backoff_time="1h")
    host.lab.sink.defer("leads@crm.example")

    def ages() -> dict[str, float]:
        return host.exporter.counts("undelivered_oldest_seconds", "rule")

    for what in (host.send("sales@solarmora.com"), "ALL"):
        wait_for("it", ages)
        host.lab.postfix.postsuper("-d", what)  # with ALL the log names no message
        wait_for("its end", lambda: not ages())
        host.send("sales@solarmora.com")


def test_mail_that_is_requeued_is_followed_on(followed):
    host = followed(maximal_backoff_time="1h", minimal_backoff_time="1h")
    host.lab.sink.defer("leads@crm.example")
    host.send("sales@solarmora.com")
    wait_for("it", lambda: host.counts()["sales", "target", "deferred"])
    host.lab.sink.accept()
    host.lab.postfix.postsuper("-r", "ALL")
    host.lab.postfix.sendmail("bob@solarmora.com", stdin=MESSAGE)  # wakes pickup(8)
    wait_for("it again", lambda: host.counts()["sales", "target", "sent"] == 1)


def test_what_happens_while_the_service_is_down_is_counted_once_it_is_back(followed):
    host = followed()
    host.lab.sink.defer("leads@crm.example")
    for _ in range(5):
        host.send("sales@solarmora.com")
    host.settle()
    host.lab.milter.stop()
    host.lab.sink.accept()
    host.lab.postfix.wait_empty_queue(timeout=30)
    host.rename()
    host.start()
    host.settle()
    assert host.counts()["sales", "target", "sent"] == 5


@pytest.mark.parametrize("trouble", ["removed", "a directory", "rubbish"])
def test_a_log_that_cannot_be_read_is_a_metric_and_mail_goes_on(followed, trouble):
    host = followed()
    host.send("sales@solarmora.com")
    host.settle()
    path = host.milter_log.with_name("other.log")
    if trouble == "a directory":
        path.mkdir()
    if trouble == "rubbish":
        path.write_bytes(random.Random(1).randbytes(3_000_000))
    host.follow(host.text.replace(str(host.maillog_path), str(path)))
    is_readable = float(trouble == "rubbish")
    wait_for("the metric", lambda: host.exporter.value("delivery_log_readable") == is_readable)
    if not is_readable:
        assert host.lab.milter.lines("warning: deliveries are not counted: ")
    outcome = host.lab.send("<a@customer.example>", ["<sales@solarmora.com>"], MESSAGE)
    assert outcome.recipients == ["leads@crm.example"]
    assert host.exporter.get("/healthz")[0] == 200


def test_a_state_that_is_damaged_means_from_now_on(followed, tmp_path):
    host = followed()
    host.send("sales@solarmora.com")
    host.settle()
    host.lab.milter.stop()
    (tmp_path / "deliveries.json").write_text('{"tracker": {"counts": [[1]]}')
    host.start()
    host.lab.milter.wait_log("is not usable, deliveries are counted from now on")
    wait_for("the metric", lambda: host.exporter.counts("delivery_log_readable"))
    host.send("sales@solarmora.com")
    wait_for("the count", lambda: host.counts() == {("sales", "target", "sent"): 1})


@pytest.mark.parametrize(
    "place",
    [
        7,
        "end",
        [],
        {},
        {"inode": [1], "offset": 0, "print": "", "length": 0},
        {"inode": None, "offset": -5, "print": "", "length": 0},
        {"inode": None, "offset": 1 << 70, "print": "", "length": 1},
        {"inode": None, "offset": 9, "print": 1, "length": 1 << 40},
        {"inode": ["a", None], "offset": 9.5, "print": "", "length": True},
    ],
)
def test_a_place_that_is_damaged_is_said_once_and_counting_goes_on(followed, tmp_path, place):
    host = followed()
    host.send("sales@solarmora.com")
    host.settle()
    host.lab.milter.stop()
    path = tmp_path / "deliveries.json"
    word = json.loads(path.read_text())
    word["positions"] = dict.fromkeys(word["positions"], place)
    path.write_text(json.dumps(word))
    host.start()
    wait_for("the metric", lambda: host.exporter.counts("delivery_log_readable"))
    host.send("sales@solarmora.com")
    wait_for("the count", lambda: host.counts() == {("sales", "target", "sent"): 1})
    assert host.exporter.value("deliveries_dropped_total") == 1
    assert len(host.lab.milter.lines("is not usable, deliveries are counted from now on")) == 1


def test_a_follower_that_dies_is_replaced_and_loses_nothing(followed):
    host = followed()
    for number in range(3):
        host.send("help@solarmora.com", "info@solarmora.com")
        if number != 1:
            host.settle()
        host.kill_follower()
    host.settle()


def test_a_rule_that_is_gone_keeps_its_counts_until_a_restart(followed):
    host = followed()
    host.send("sales@solarmora.com")
    host.settle()
    host.follow(re.sub(r"  - {name: sales.*\n", "", host.text))
    assert host.counts() == {("sales", "target", "sent"): 1}
    host.restart()
    wait_for("its end", lambda: host.counts() == {})


def test_none_follows_nothing(followed):
    host = followed("none")
    assert "deliveries" not in host.exporter.text()
    assert host.followers() == []


def test_the_state_is_closed_to_others(followed, tmp_path):
    host = followed()
    host.send("sales@solarmora.com")
    host.settle()
    assert (tmp_path / "deliveries.json").stat().st_mode & 0o077 == 0
