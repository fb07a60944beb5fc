"""The ledger: whatever fails, what was accepted arrives where it is owed, and only there.

Random mail goes through the real Postfix and the real milter while things break; an account that
was written from the design (model.py) says what must arrive. A seed that fails is in the message;
--ledger-seed plays its mail and its faults again, --ledger-messages makes it longer.
"""

import re
import threading
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from dataclasses import replace
from random import Random

import pytest
from faults import TIMEOUT, Trouble, command
from model import BOUNCES, CONFIG, FILES, PAUSED, ImbalanceError, account, aliases, plans
from traffic import Book, Client, Sending

from crm_milter.config import paused
from crm_milter.config.paused import Pause
from lab.base import free_port, scratch, wait_for

CLIENTS, WORKERS = 5, 2
SHORT = 100  # messages accepted at least, in each test
DEAD = {BOUNCES, "lost@solarmora.com"}  # for what a target refuses


@pytest.fixture(scope="module", params=["tempfail", "accept"])
def world(request, make_module_lab):
    """A lab whose milter may fail, and its port for metrics."""
    metrics, timeout, state = free_port(), f"{TIMEOUT}s", scratch()
    now = time.time()
    pauses = {rule: Pause(now, now + 86400, hold) for rule, hold in PAUSED.items()}
    paused.write(state, pauses)
    text = CONFIG.replace("METRICS", f"127.0.0.1:{metrics}")
    full = scratch() / "full"
    lab = make_module_lab(
        "rules: []",
        milter_command=command(full),
        milter_settings={
            "default_action": request.param,
            "connect_timeout": timeout,
            "command_timeout": timeout,
            "content_timeout": timeout,
        },
        virtual_alias_maps=aliases(),
        main={"recipient_delimiter": "+", "propagate_unmatched_extensions": ""},
    )
    for name, content in FILES.items():
        (lab.milter.folder / name).write_text(content)
    lab.milter.configure(text)
    lab.milter.stop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STATE_DIRECTORY", str(state))
        lab.milter.start()
        yield lab, request.param, metrics, full


def traffic(lab, seed, clients=CLIENTS, slow=0.0):
    """Clients at work, to be left by leaving the context."""
    stack, book, stopping = ExitStack(), Book(), threading.Event()
    threads = [
        threading.Thread(target=Client(lab, book, f"{seed}.{each}", stopping, slow).run)
        for each in range(clients)
    ]
    for thread in threads:
        thread.start()
        stack.callback(thread.join, 60)
    stack.callback(stopping.set)
    return stack, book


def arrivals(lab):
    """Who got each letter how often, which carry the marker, from whom, and what has no number."""
    lab.postfix.postsuper("-H", "ALL")
    lab.postfix.wait_empty_queue(60)
    got, marked, senders, others = defaultdict(Counter), set(), defaultdict(set), []
    for entry in lab.sink.received:
        head = entry.data.partition(b"\r\n\r\n")[0]
        number = re.search(rb"(?m)^X-Ledger: (\S+)\r?$", head)
        if number is None:
            others.append(entry)
            continue
        got[number[1].decode()][entry.recipient.lower()] += 1
        senders[number[1].decode()].add(entry.sender)
        if re.search(rb"(?im)^X-CRM-Milter:", head):
            marked.add(number[1].decode())
    return got, marked, senders, others


def expected(one: Sending):
    """The plans for those recipients that Postfix took."""
    letter = one.letter
    boxes = tuple(letter.boxes[number] for number in one.accepted)
    return plans(replace(letter, boxes=boxes))  # fmt: skip


def settle(one, got, marked, senders, accepting):
    """How one letter came out, by the first plan that fits; raises ImbalanceError."""
    wanted = expected(one)
    if one.reply != 250:
        if got and not (one.how == "send" and one.reply == 0):
            raise ImbalanceError(f"not accepted, and yet it went to {dict(got)}")
        asked = one.reply in {each.reply for each in wanted}
        if one.how == "send" and one.reply // 100 == 5 and not asked:
            raise ImbalanceError(f"no rule asked for {one.reply} {one.said!r}")
        if not got and asked and one.reply == 451 and "too many messages" in one.said:
            return "put off"
        if not got:
            return "given up" if one.how != "send" else f"answered {one.reply}"
    wrong = []
    for each in wanted:
        try:
            return as_planned(each, got, marked, senders, accepting)
        except ImbalanceError as error:
            wrong.append(error)
    raise wrong[-1]


def as_planned(wanted, got, marked, senders, accepting):
    if marked and not wanted.marked:
        raise ImbalanceError("others than ours can see the marker")
    came_out = account(wanted, got, accepting)
    own = {each.lower() for each in senders} & DEAD
    if senders and came_out == "exact" and own != {wanted.sender} - {""}:
        raise ImbalanceError(f"the sender is {senders}, not {wanted.sender or 'the old one'}")
    return came_out


def limits_hold(lab, book):
    """Of each sender one message went to a target with a limit of one, and one more per worker."""
    got, *_ = arrivals(lab)
    counts = Counter(
        (target, (one.letter.sender or one.letter.author).lower())
        for one in book.sendings
        for target in ("loud@crm.example", "later@crm.example")
        if got[one.letter.number][target]
    )
    assert max(counts.values(), default=0) <= 1 + WORKERS, counts
    return sum(counts.values())


def balance(lab, book, seed, accepting=False):
    """Compare the book with what arrived: how the letters came out, and what else there was."""
    got, marked, senders, others = arrivals(lab)
    assert book.broken == [], f"--ledger-seed {seed}"
    results, wrong = Counter(), []
    for one in book.sendings:
        number = one.letter.number
        try:
            results[settle(one, got[number], number in marked, senders[number], accepting)] += 1
        except ImbalanceError as error:
            wrong.append(f"{error}\n  {one}\n  {one.reply} {dict(got[number])}")
    assert not wrong, f"{len(wrong)} letters, --ledger-seed {seed}:\n" + "\n".join(wrong[:5])
    askers = {one.letter.sender.lower() for one in book.sendings} | DEAD
    for entry in others:  # what Postfix wrote itself, to who asked for it
        assert (entry.sender, {entry.recipient.lower()} - askers) == ("", set())
    return results, others


def test_in_calm_weather_everything_is_exact(world, request, record_property):
    lab, *_ = world
    seed = request.config.getoption("--ledger-seed")
    lab.fresh()
    stack, book = traffic(lab, f"{seed}.calm")
    with stack:
        book.wait("accepted", request.config.getoption("--ledger-messages") or SHORT)
    results, others = balance(lab, book, seed)
    assert {*results} <= {"exact", "given up", "put off", "answered 550", "answered 552"}
    assert limits_hold(lab, book)
    record_property("seed, letters, reports", (seed, dict(results), len(others)))


@pytest.mark.timeout(3600)
def test_while_things_break_the_ledger_balances(world, request, record_property):
    lab, action, metrics, full = world
    seed = request.config.getoption("--ledger-seed")
    goal = request.config.getoption("--ledger-messages") or SHORT
    lab.fresh()
    trouble = Trouble(Random(f"{seed}.faults"), metrics, full)
    faults = max(len(trouble.faults), goal // 40)
    stack, book = traffic(lab, f"{seed}.faults", slow=0.01)
    with stack:
        while book.counts["accepted"] < goal or len(trouble.done) < faults:
            book.wait("accepted", min(20, goal))
            trouble.strike(lab, book)
    wait_for("a milter", lab.milter.running)
    results, others = balance(lab, book, seed, action == "accept")
    assert results["exact"] > len(book.sendings) / 4
    record_property("seed, letters, reports", (seed, dict(results), len(others)))
    record_property("faults", dict(Counter(trouble.done)))
