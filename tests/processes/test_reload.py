"""SIGHUP: a new generation with the new rules, and nothing is lost, refused or mixed."""

import signal
import time
from collections import Counter

import pytest
from configs import LONG, SETTLED, config, routed
from crowd import Crowd, delivered, message, new_id
from procs import group, wait_for_workers, workers

from lab import smtp
from lab.base import wait_for

HELP = "<help@solarmora.com>"
HAM = [("Subject", "kaputt"), ("X-Spam-Flag", "NO")]
RELOADS = 20


def reload(running, version, **options):
    """Write the configuration of this version and return when only it takes new sessions."""
    before = len(running.lines("reloaded"))
    running.configure(config(version, **options))
    running.signal(signal.SIGHUP)
    wait_for("the reload", lambda: len(running.lines("reloaded")) > before, 60)


def target(result):
    """Where a message went."""
    return result.of("add")[0][0].strip("<>")


@pytest.mark.timeout(120)
def test_each_message_is_decided_by_one_generation_over_20_reloads(routing_lab, record_property):
    """Sessions of every generation stay open, in the middle of a message, to the end."""
    lab = routing_lab()
    held = []
    with Crowd(lab) as crowd:
        for version in range(1, RELOADS + 2):
            if version > 1:
                reload(lab.milter, version)
            session = smtp.Session(lab.postfix.port)
            session.cmd("MAIL FROM:<anna@customer.example>")
            assert session.cmd("RCPT TO:<help@solarmora.com>").code == 250
            held.append((version, session))
            crowd.wait_for_more(5)
    versions_of = {new_id(): version for version, _ in held}
    for message_id, (_, session) in zip(versions_of, held, strict=True):
        assert session.data(message(message_id)).code == 250
    second = {new_id(): version for version, _ in held}
    for message_id, (_, session) in zip(second, held, strict=True):
        sent = session.transaction("<b@c.example>", [HELP], message(message_id))
        assert sent.reply.code == 250
        session.quit()
    assert (crowd.refused, crowd.broken) == ([], [])
    mail = delivered(lab)
    assert {*mail} == {*crowd.accepted, *versions_of, *second}
    one_generation = [Counter(routed(version)) for version in range(1, RELOADS + 2)]
    assert [who for who in mail.values() if who not in one_generation] == []
    for message_id, version in (versions_of | second).items():
        assert mail[message_id] == Counter(routed(version))
    assert len({next(iter(mail[message_id])) for message_id in crowd.accepted}) > RELOADS / 2
    record_property("messages", len(mail))
    wait_for_workers(lab.milter, 2)
    assert lab.milter.lines("error") == lab.milter.lines("warning: worker") == []


def test_an_open_session_keeps_its_rules_and_its_worker(make_milter, dial):
    milter = make_milter()
    old = wait_for_workers(milter)
    early = dial(milter)
    early.mail()
    early.rcpt(HELP)
    reload(milter, 2)
    assert target(dial(milter).message([HELP], HAM)) == routed(2)[0]
    assert target(early.finish(HAM)) == routed(1)[0]
    early.abort()
    assert target(early.message([HELP], HAM)) == routed(1)[0]
    assert {*old} & {*workers(milter.pid)}
    early.quit()
    assert not {*old} & {*wait_for_workers(milter)}


def test_after_a_reload_no_session_begins_with_the_old_rules(make_milter, dial):
    milter = make_milter()
    for version in range(2, 12):
        reload(milter, version)
        assert target(dial(milter).message([HELP], HAM)) == routed(version)[0]


def test_a_file_with_errors_changes_nothing(make_milter, dial):
    milter = make_milter()
    before = wait_for_workers(milter)
    milter.configure("rules:\n  - {name: x, match: nonsense}\nspam: unheard-of\n")
    milter.signal(signal.SIGHUP)
    milter.wait_log("reload failed")
    problems = milter.lines("error: /")
    assert len(problems) >= 2
    assert all(f"error: {milter.config}:" in line for line in problems)
    assert wait_for_workers(milter) == before
    assert target(dial(milter).message([HELP], HAM)) == routed(1)[0]
    milter.config.unlink()
    milter.signal(signal.SIGHUP)
    milter.wait_log(r"error: \S+: no such file or directory")
    reload(milter, 3)
    assert target(dial(milter).message([HELP], HAM)) == routed(3)[0]


CHANGES = {
    "milter.listen": config().replace("LISTEN", "LISTEN-2"),
    "milter.socket_mode": config(milter='socket_mode: "0600"'),
    "milter.socket_group": config(milter="socket_group: daemon"),
    "metrics.listen": config() + "metrics:\n  listen: 127.0.0.1:9895\n",
}


@pytest.mark.parametrize("key", CHANGES)
def test_what_counts_only_at_the_start_is_said(make_milter, dial, key):
    milter = make_milter()
    milter.configure(CHANGES[key])
    milter.signal(signal.SIGHUP)
    milter.wait_log("reloaded")
    (line,) = milter.lines("takes effect after a restart")
    assert line == f"warning: {milter.config}: {key}: changed; takes effect after a restart"
    assert target(dial(milter).message([HELP], HAM)) == routed(1)[0]


def test_the_number_of_workers_follows_the_file(make_milter):
    milter = make_milter()
    reload(milter, 2, milter="workers: 4")
    wait_for_workers(milter, 4)
    reload(milter, 3, milter="workers: 1")
    wait_for_workers(milter, 1)
    assert milter.lines("reloaded")[-1].endswith("serving 1 rule with 1 worker")


def test_signals_close_together_are_one_reload(make_milter, dial):
    milter = make_milter(command=SETTLED)
    for version in range(2, 6):
        milter.configure(config(version))
        milter.signal(signal.SIGHUP)
        assert target(dial(milter).message([HELP], HAM)) == routed(1)[0]
    milter.wait_log("reloaded")
    mta = dial(milter)
    assert target(mta.message([HELP], HAM)) == routed(5)[0]
    mta.quit()
    milter.signal(signal.SIGTERM)
    milter.wait_log("stopping")
    assert len(milter.lines("reloaded")) == 1


def test_a_storm_of_signals_is_few_reloads(make_milter, dial):
    milter = make_milter()
    milter.configure(config(2))
    start = time.monotonic()
    while time.monotonic() - start < 1:
        milter.signal(signal.SIGHUP)
    milter.wait_log("reloaded")
    assert target(dial(milter).message([HELP], HAM)) == routed(2)[0]
    # At most one in a tenth of a second, and one for the signal that came last.
    assert 1 <= len(milter.lines("reloaded")) <= 10 * (time.monotonic() - start) + 1


def test_a_hundred_signals_under_load_leave_two_workers(routing_lab):
    lab = routing_lab()
    with Crowd(lab, size=2) as crowd:
        for _ in range(100):
            lab.milter.signal(signal.SIGHUP)
            crowd.wait_for_more(1)
    lab.milter.wait_log("reloaded")
    assert (crowd.refused, crowd.broken) == ([], [])
    mail = delivered(lab)
    assert mail == {each: Counter(routed()) for each in crowd.accepted}
    wait_for("three processes", lambda: len(group(lab.milter.pid)) == 3)


@pytest.mark.timeout(300)
def test_many_rules_are_read_without_a_pause_for_mail(routing_lab, record_property):
    rules = "".join(
        f"  - {{name: r{number}, match: a{number}@solarmora.com, replace_with: b@crm.example}}\n"
        for number in range(100_000 if LONG else 10_000)
    )
    lab = routing_lab()
    reload(lab.milter, 2, rules=rules)
    with Crowd(lab, size=2) as crowd:
        crowd.wait_for_more(50)
        quiet, crowd.seconds = max(crowd.seconds), []
        start = time.monotonic()
        reload(lab.milter, 3, rules=rules)
        took, longest = time.monotonic() - start, max(crowd.seconds)
    record_property("reload, longest message before, during", (took, quiet, longest))
    assert (crowd.refused, crowd.broken) == ([], [])
    assert longest < 1.0
