"""The shared memory: what survives whom."""

import os
import signal
import threading
import time

import pytest
from counted import count

from crm_milter.metrics.catalogue import (
    AUTHENTICATION,
    COPIES,
    ERRORS,
    EXPORTER,
    LAST_REROUTED,
    MESSAGES,
    RECIPIENTS,
    RELOAD_GOOD,
    RESTARTS,
    RULE,
    RULES,
    SERVICE,
    SESSIONS,
    SPAM_VERDICTS,
    WORKER,
    WORKERS,
    Metric,
)
from crm_milter.metrics.counting import WorkerCounters, message_outcome, recipient_outcome
from crm_milter.metrics.memory import SharedCounters, in_use, room_for
from crm_milter.routing.authentication import Dmarc
from crm_milter.routing.decision import Action, Decision, Outcome, Reason, Recipient, Reply
from crm_milter.rules.rule import Copy, Mode, Rule
from crm_milter.spam.verdict import Judgement, Verdict

PARTS = (WORKER, RULE, SERVICE, EXPORTER)
ROUTED = RECIPIENTS.cell("replaced")


def rules(*names: str) -> tuple[Rule, ...]:
    return tuple(map(Rule, names))


def outcome(rule: str | Rule, action: Action = Action.REROUTED, **more: object) -> Outcome:
    rule = Rule(rule) if isinstance(rule, str) else rule
    targets = ("case@crm.example",) if action is Action.REROUTED else ()
    return Outcome(Recipient("a@b.c", "a@b.c"), rule, action, **{"targets": targets, **more})


def decision(*outcomes: Outcome, reply: Reply = Reply.ACCEPT, hold: bool = False) -> Decision:
    return Decision(
        reply=reply, hold=hold, outcomes=outcomes, judgement=Judgement(Verdict.CONFLICTING)
    )


@pytest.fixture
def numbers() -> SharedCounters:
    made = SharedCounters()
    made.ensure_row(0)
    return made


def counts(metric: Metric, cells: list[float]) -> dict[str, float]:
    """What is counted of a metric, by the values of its label."""
    found = zip(metric.values, cells[metric.first : metric.cells.stop], strict=True)
    return {value: count for value, count in found if count}


def routed(numbers: SharedCounters) -> dict[str, float]:
    return {name: values[ROUTED] for name, values in numbers.totals().rules.items()}


def test_each_thing_is_counted_once(numbers):
    tally = WorkerCounters(numbers, 0, room_for(rules("a")))
    tally.opened()
    tally.passed(0.1)
    tally.failed(0.1)
    tally.aborted()
    tally.error("recipient")
    copies = (Copy("x@y.example"), Copy("z@y.example"))
    count(tally, decision(outcome("a", copies=copies, withheld=1), outcome("a")), True, 0.1)
    totals = numbers.totals()
    cells = totals.cells
    messages = ("passed", "tempfailed", "aborted", "rerouted")
    assert counts(MESSAGES, cells) == dict.fromkeys(messages, 1)
    assert cells[SESSIONS.cell()] == 1
    assert counts(SPAM_VERDICTS, cells) == {"conflicting": 1}
    assert counts(ERRORS, cells) == {"recipient": 1}
    assert counts(RECIPIENTS, totals.rules["a"]) == {"replaced": 2}
    assert counts(COPIES, totals.rules["a"]) == {"added": 2, "withheld_spam": 1}


def test_a_filter_that_was_not_asked_has_no_verdict(numbers):
    count(WorkerCounters(numbers, 0, room_for(rules("a"))), decision(outcome("a")), False, 0.1)
    assert counts(SPAM_VERDICTS, numbers.totals().cells) == {}


def test_what_dmarc_says_counts_where_a_rule_asks(numbers):
    tally = WorkerCounters(numbers, 0, room_for(rules("a")))
    for said in (None, Dmarc.FAIL, Dmarc.FAIL, Dmarc.NONE, Dmarc.PASS):
        count(tally, decision(outcome("a")), False, 0.1, said)
    count(tally, decision(), False, 0.1, Dmarc.FAIL)  # no rule applied after all
    cells = numbers.totals().cells
    assert counts(AUTHENTICATION, cells) == {"fail": 2, "none": 1, "pass": 1}


def test_test_mode_counts_as_test_and_as_left(numbers):
    copies = (Copy("x@y.example"),)
    tried = decision(outcome(Rule("a", mode=Mode.TEST), copies=copies, withheld=1, test=True))
    count(WorkerCounters(numbers, 0, room_for(rules("a"))), tried, True, 0.1)
    values = numbers.totals().rules["a"]
    assert counts(RECIPIENTS, values) == {"test": 1}
    assert not any(values[COPIES.first :])
    assert message_outcome(tried) == "left"


@pytest.mark.parametrize("reason", Reason)
def test_each_reason_to_leave_a_recipient_has_a_series(reason):
    assert recipient_outcome(outcome("a", Action.LEFT, reason=reason)) == f"left_{reason.value}"
    assert f"left_{reason.value}" in RECIPIENTS.values


WORDS = {Action.REROUTED: "replaced", Action.COPIED: "kept_with_copies"}


@pytest.mark.parametrize("action", [each for each in Action if each is not Action.LEFT])
@pytest.mark.parametrize("reason", [None, *Reason])
def test_whatever_is_done_to_a_recipient_has_a_series(action, reason):
    word = recipient_outcome(outcome("a", action, reason=reason))
    assert word == WORDS.get(action, action.value)
    assert word in RECIPIENTS.values


def test_no_two_metrics_share_a_cell_or_a_name():
    for part in PARTS:
        cells = [cell for metric in part.metrics for cell in metric.cells]
        assert len(set(cells)) == len(cells)
        assert max(cells, default=-1) < max(part.size, 1)
    names = [metric.name for part in PARTS for metric in part.metrics]
    assert len(set(names)) == len(names)


def test_the_latest_of_several_workers_is_shown(numbers, monkeypatch):
    numbers.ensure_row(1)
    for slot, now in ((0, 2000.0), (1, 1000.0)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        count(
            WorkerCounters(numbers, slot, room_for(rules("a"))), decision(outcome("a")), True, 0.1
        )
    assert numbers.totals().rules["a"][LAST_REROUTED.cell()] == 2000.0


LEFT = outcome("a", Action.LEFT, reason=Reason.SPAM)
GONE = outcome("b", Action.DISCARDED, reason=Reason.SPAM)
HELD = outcome("c", Action.QUARANTINED, targets=("case@crm.example",))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (decision(LEFT), "left"),
        (decision(LEFT, outcome("b")), "rerouted"),
        (decision(LEFT, outcome("b", Action.COPIED, copies=(Copy("x@y.example"),))), "rerouted"),
        (decision(LEFT, GONE), "discarded"),
        (decision(LEFT, GONE, outcome("b")), "rerouted"),
        (decision(GONE, reply=Reply.DISCARD), "discarded"),
        (decision(HELD, hold=True), "quarantined"),
        (decision(LEFT, reply=Reply.REJECT_SPAM), "rejected"),
        (decision(LEFT, reply=Reply.REJECT_OVERSIZE), "rejected"),
        (decision(LEFT, reply=Reply.TEMPFAIL), "tempfailed"),
    ],
)
def test_a_message_with_several_outcomes_has_one(made, expected):
    assert message_outcome(made) == expected


def test_a_successor_goes_on_where_a_killed_worker_was(numbers):
    for generation in range(20):
        pid = os.fork()
        if pid == 0:
            names = rules("first", f"rule{generation}")
            tally = WorkerCounters(numbers, 0, room_for(names))
            tally.opened()
            count(tally, decision(*map(outcome, names)), True, 0.1)
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        numbers.reap(0)
        assert routed(numbers)["first"] == generation + 1
    assert routed(numbers) == {"first": 20, **{f"rule{each}": 1 for each in range(20)}}
    assert numbers.totals().cells[SESSIONS.cell()] == 0


def test_slots_add_up(numbers):
    for slot in (0, 1, 5):
        numbers.ensure_row(slot)
        tally = WorkerCounters(numbers, slot, room_for(rules("a", "b")))
        tally.opened()
        count(tally, decision(outcome("b" if slot else "a")), True, 0.1)
    assert routed(numbers) == {"a": 1, "b": 2}
    assert numbers.totals().cells[SESSIONS.cell()] == 3


def test_threads_lose_nothing(numbers):
    tally = WorkerCounters(numbers, 0, room_for(rules("a")))
    made = decision(outcome("a"))

    def work() -> None:
        for _ in range(5000):
            count(tally, made, True, 0.0)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert routed(numbers) == {"a": 40_000}


def test_a_hundred_thousand_rules_take_room_only_once_they_have_mail(numbers):
    names = tuple(Rule(f"rule{number}") for number in range(100_000))
    tally = WorkerCounters(numbers, 0, room_for(names))
    numbers.totals()
    descriptor = numbers._descriptor
    before = os.fstat(descriptor).st_blocks
    count(tally, decision(outcome("rule99999")), True, 0.1)
    assert routed(numbers) == {"rule99999": 1}
    assert os.fstat(descriptor).st_blocks - before < 64  # of 512 bytes


@pytest.mark.parametrize("name", ["a", "seven-7", "eight--8", "nine----9", "n" * 5000])
def test_names_of_any_length(numbers, name):
    tally = WorkerCounters(numbers, 0, room_for(rules("before", name)))
    count(tally, decision(outcome(name), outcome("before"), outcome(name)), True, 0.1)
    assert routed(numbers) == {name: 2, "before": 1}


def test_what_the_supervisor_says(numbers):
    assert numbers.state().digest == ""
    for turn in range(5):
        numbers.loaded(in_use(f"digest{turn}", rules(*(f"rule{number}" for number in range(1500)))))
        numbers.reload_failed()
        numbers.set_workers(turn, turn + 1)
        state = numbers.state()
        assert (state.digest, state[WORKERS], state[RESTARTS]) == (f"digest{turn}", turn, turn + 1)
        assert state.names == tuple(f"rule{number}" for number in range(1000))
        assert (state[RULES], state[RELOAD_GOOD]) == (1500, 0)
