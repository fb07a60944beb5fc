"""Counts of real mail through a real Postfix: exact, whatever is reloaded or killed meanwhile."""

import os
import re
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from kinds import CONFIG, HAM, KINDS, Kind
from scraping import Exporter, exporters_of, settle, with_metrics, workers_of

from lab import smtp
from lab.base import LabError, wait_for
from lab.milter import Milter
from lab.whole import Lab

HELP = KINDS[1]
SESSIONS = 4


@pytest.fixture
def counted(make_lab) -> Callable[..., tuple[Lab, Exporter]]:
    """Call it with a configuration: a lab, and its exporter."""

    def make(config: str = CONFIG, **settings: object) -> tuple[Lab, Exporter]:
        text, port = with_metrics(config)
        lab = make_lab(text, **settings)
        return lab, Exporter(port).wait()

    return make


def test_every_kind_of_message_is_counted_exactly(counted):
    lab, exporter = counted()
    expected = {name: Counter() for name in ("messages", "verdicts", "rules")}
    for number, kind in enumerate(KINDS):
        for _ in range(1 + number % 3):
            sent = lab.send("<anna@customer.example>", kind.rcpts, kind.message, wait=False).sent
            assert sent.reply.code == kind.code, kind
            expected["messages"][kind.outcome] += 1
            expected["verdicts"].update([kind.verdict] if kind.verdict else [])
            expected["rules"].update(kind.rules)
    with smtp.Session(lab.postfix.port) as session:
        for line in ("MAIL FROM:<anna@customer.example>", "RCPT TO:<help@solarmora.com>", "DATA"):
            session.cmd(line)
    expected["messages"]["aborted"] += 1
    hang_up = ("messages_total", frozenset({("outcome", "aborted")}))
    wait_for("the hang-up to get there", lambda: exporter.samples()[hang_up])
    settle()
    assert exporter.counts("messages_total", "outcome") == expected["messages"]
    assert exporter.counts("spam_verdicts_total", "verdict") == expected["verdicts"]
    by_rule = exporter.counts("recipients_total", "rule", "outcome")
    assert {**by_rule, **exporter.counts("copies_total", "rule", "outcome")} == expected["rules"]
    finished = sum(expected["messages"].values()) - 1
    assert exporter.value("processing_seconds_count") == finished
    assert 0 < exporter.value("processing_seconds_sum") < finished
    rerouted = exporter.counts("last_rerouted_timestamp_seconds", "rule")
    assert set(rerouted) == {"support", "open"}
    assert exporter.counts("errors_total", "stage") == {}


def test_a_flood_is_counted_whatever_is_done(counted):
    ends = ("count", "leave", "tempfail", "hold")
    rule = "match: {0}@solarmora.com, replace_with: {0}@crm.example"
    rule += ", flood: {{limit: 1 in 7d, then: {0}}}"
    rules = "".join(f"  - {{name: {each}, {rule.format(each)}}}\n" for each in ends)
    lab, exporter = counted(f"unrouted_to: it@solarmora.com\nspam: amavis\nrules:\n{rules}")
    for name in ends:
        for _ in range(3):
            lab.send("<a@b.example>", [f"<{name}@solarmora.com>"], HELP.message, wait=False)
    settle()
    assert exporter.counts("flood_recipients_total", "rule") == dict.fromkeys(ends, 2)
    assert exporter.counts("recipients_total", "rule", "outcome") == {
        **{(name, "replaced"): 1 for name in ends[1:]},
        ("count", "replaced"): 3,
        ("leave", "left_flood"): 2,
        ("tempfail", "tempfailed"): 2,
        ("hold", "quarantined"): 2,
    }


@pytest.mark.parametrize(
    ("key", "counts"),
    [(", on_unauthenticated: leave", {"fail": 1, "pass": 1, "none": 1}), ("", {})],
)
def test_dmarc_results_are_counted_where_a_rule_asks(counted, key, counts):
    rule = f"{{name: strict, match: help@solarmora.com, replace_with: c@crm.example{key}}}"
    head = "unrouted_to: it@solarmora.com\nauthentication: mx.solarmora.com\n"
    lab, exporter = counted(f"{head}rules:\n  - {rule}\n")
    said = ("mx.solarmora.com; dmarc=fail", "mx.solarmora.com; dmarc=pass", "x.org; dmarc=fail")
    for each in said:
        message = f"Authentication-Results: {each}\nSubject: x\n\nx\n".encode()
        for to in ("<help@solarmora.com>", "<ann@b.example>"):  # the second is of no rule
            lab.send("<a@b.example>", [to], message, wait=False)
    settle()
    assert exporter.counts("dmarc_results_total", "result") == counts


def test_tempfails_and_sessions(counted):
    lab, exporter = counted(CONFIG.replace("no_verdict: leave", "no_verdict: tempfail"))
    with smtp.Session(lab.postfix.port) as session:
        sent = session.transaction("<anna@customer.example>", HELP.rcpts, b"\nhello\n")
        assert sent.reply.code == 451
        assert exporter.value("sessions") == 1
        session.quit()
    settle()
    assert exporter.counts("messages_total", "outcome") == {"tempfailed": 1}
    assert exporter.counts("recipients_total", "rule", "outcome") == {("support", "tempfailed"): 1}
    assert exporter.counts("sessions") == {}


def test_where_no_filter_is_configured_there_is_no_verdict(counted):
    lab, exporter = counted(re.sub(r"spam:\n.*\n.*\n", "", CONFIG))
    assert lab.send("<a@b.example>", HELP.rcpts, HELP.message).sent.reply.code == 250
    settle()
    assert exporter.counts("messages_total", "outcome") == {"rerouted": 1}
    assert exporter.counts("spam_verdicts_total", "verdict") == {}


class Load:
    """Sessions that send, each until told to stop, and try again what was answered 451."""

    def __init__(self, lab: Lab, kind: Kind = HELP) -> None:
        self._lab = lab
        self._kind = kind
        self._told = threading.Event()
        self.codes: Counter[int] = Counter()
        self._threads = [threading.Thread(target=self._work) for _ in range(SESSIONS)]
        for each in self._threads:
            each.start()

    def _work(self) -> None:
        while not self._told.is_set():
            with smtp.Session(self._lab.postfix.port) as session:
                for _ in range(5):
                    sent = session.transaction("<a@b.example>", self._kind.rcpts, HELP.message)
                    self.codes[sent.reply.code] += 1
                session.quit()

    def wait_for(self, more: int) -> None:
        """Return when so many more were accepted."""
        goal = self.codes[250] + more
        wait_for(f"{more} messages", lambda: self.codes[250] >= goal, 30)

    def stop(self) -> int:
        """Return how many were accepted."""
        self._told.set()
        for each in self._threads:
            each.join()
        return self.codes[250]


@pytest.fixture
def load() -> Iterator[Callable[..., Load]]:
    """Call it with a lab; it stops with the test."""
    running: list[Load] = []

    def start(lab: Lab) -> Load:
        running.append(Load(lab))
        return running[-1]

    yield start
    for each in running:
        each.stop()


class Watch:
    """Scrapes all the time, and sees to it that no counter goes down and no scrape fails."""

    def __init__(self, exporter: Exporter) -> None:
        self._exporter = exporter
        self._told = threading.Event()
        self.scrapes = 0
        self.wrong: list[object] = []
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        before: dict[object, float] = {}
        while not self._told.wait(0.1):
            try:
                now = self._exporter.samples()
            except Exception as fault:
                self.wrong.append(fault)
                return
            self.scrapes += 1
            counters = {
                key: value
                for key, value in now.items()
                if key[0].endswith(("_total", "_count", "_bucket", "_sum"))
            }
            self.wrong += [key for key, value in before.items() if counters.get(key, 0) < value]
            before = counters

    def stop(self) -> None:
        self._told.set()
        self._thread.join()


def test_reloads_lose_no_count_and_no_scrape(counted, load):
    lab, exporter = counted()
    text = lab.milter.config.read_text()
    mail, watch = load(lab), Watch(exporter)
    for number in range(8):
        mail.wait_for(10)
        good = number % 4 != 3
        rule = f"  - {{name: new{number}, match: n@x.example, replace_with: n@crm.example}}\n"
        lab.milter.config.write_text(text + rule if good else "rules: [")
        lab.milter.logfile.mark()
        lab.milter.signal(signal.SIGHUP)
        lab.milter.wait_log("reloaded, serving" if good else "reload failed")
        settle()
        assert exporter.value("config_last_reload_successful") == good
    accepted = mail.stop()
    settle()
    watch.stop()
    assert watch.wrong == []
    assert watch.scrapes > 10
    assert mail.codes == {250: accepted}
    assert exporter.counts("messages_total", "outcome") == {"rerouted": accepted}
    assert exporter.counts("recipients_total", "rule", "outcome") == {
        ("support", "replaced"): accepted
    }
    assert exporter.value("worker_restarts_total") == 0
    assert 'rule="new6"' in exporter.text()
    assert "new5" not in exporter.text()


def test_killed_workers_lose_only_what_was_in_flight(counted, load):
    lab, exporter = counted()
    mail, watch = load(lab), Watch(exporter)
    kills = 3  # after five within ten seconds the service gives up
    for number in range(kills):
        mail.wait_for(10)
        victim = workers_of(lab.milter)[number % 2]
        os.kill(victim, signal.SIGKILL)
        lab.milter.logfile.mark()
        wait_for("its end", lambda gone=victim: gone not in workers_of(lab.milter))
        wait_for("a new worker", lambda: len(workers_of(lab.milter)) == 2)
    accepted = mail.stop()
    settle()
    watch.stop()
    assert watch.wrong == []
    counts = exporter.counts("messages_total", "outcome")
    # Counted before it is answered: a worker that dies in between has counted it, nobody has it.
    assert accepted <= counts["rerouted"] <= accepted + kills * SESSIONS
    assert exporter.value("worker_restarts_total") == kills
    assert exporter.counts("sessions") == {}


def test_a_dead_exporter_hurts_no_mail_and_forgets_nothing(counted, load):
    lab, exporter = counted()
    mail = load(lab)
    for _ in range(3):
        mail.wait_for(10)
        os.kill(exporters_of(lab.milter)[0], signal.SIGKILL)
        mail.wait_for(10)
        exporter.wait()
    accepted = mail.stop()
    settle()
    assert mail.codes == {250: accepted}
    assert exporter.counts("messages_total", "outcome") == {"rerouted": accepted}


HOSTILE = (
    *('"a\\"} 1\\nup{x=\\""', '"a\\\\b"', '"# HELP x"', '"{}"', '"rule=x"', '"a=b,c"'),
    *("a{b}", "x" * 64, "%0a%22"),
)


def test_hostile_mail_gets_into_no_label_and_no_line_of_its_own(counted):
    lab, exporter = counted(
        CONFIG + "  - {name: wild, match: '@wild.example', also_deliver_to: t@solarmora.com}\n"
    )
    for local in HOSTILE:
        fields = (
            *HAM,
            f'From: "x\\" rule=y" <{local}@x.example>',
            "X-Spam-Flag: NO\t\x0b\x85rule=z",
        )
        message = "\n".join((*fields, "", "hi")).encode("utf-8", "surrogateescape")
        sent = lab.send(f"<{local}@y.example>", [f"<{local}@wild.example>"], message, wait=False)
        assert sent.sent.reply.code == 250, sent.sent
    settle()
    assert exporter.counts("recipients_total", "rule", "outcome") == {
        ("wild", "kept_with_copies"): len(HOSTILE)
    }
    text = exporter.text()
    assert "wild.example" not in text
    assert "@" not in text
    lines = [line for line in lab.milter.log().splitlines() if "rule=" in line]
    assert len(lines) == len(HOSTILE)
    grammar = re.compile(
        r"[0-9A-Za-z]+: copied: to=<.*@wild\.example> rule=wild copies=1 verdict=ham"
    )
    assert [line for line in lines if not grammar.fullmatch(line)] == []


@pytest.mark.parametrize("name", ['"', "a b", "a\\nb", "{}", "A", "é", ""])
def test_a_hostile_name_of_a_rule_is_refused(name):
    text = CONFIG.replace("name: support", f'name: "{name}"'.replace('"""', "'\"'"))
    milter = Milter(text)
    with pytest.raises(LabError, match="exit status 78"), milter:
        pass
