"""Deliveries counted from lines of a log, whatever order and state these are in."""

import itertools
import json
import random
from collections import Counter

import pytest

from crm_milter.trace import deliveries, followed
from crm_milter.trace.deliveries import Ours, OwnAddresses, Tracker

ID = "4bXq1Z0abc"
CRM = "support@crm.example"
BOUNDS = (0.1, 0.5)
LOST = "lost@solarmora.com"
COPIES = {"support": Ours(frozenset(["team@solarmora.com"]), LOST)}
STAMPS = ("Nov 28 17:00:00 mx ", "2026-11-28T17:00:00.123456+00:00 mx ")


def line(program, text, stamp=STAMPS[0]):
    return f"{stamp}{program}[77]: {text}".encode()


def begin(queue_id=ID):
    return line("postfix/smtpd", f"{queue_id}: client=mail.example[192.0.2.1]")


def active(queue_id=ID):
    return line("postfix/qmgr", f"{queue_id}: from=<a@x.example>, size=1, nrcpt=1 (queue active)")


def ours(queue_id=ID, *, rule="support", new=CRM, copies=0, action="rerouted", to="help"):
    targets = f" new={','.join(f'<{each}>' for each in new.split())}" if new else ""
    return line(
        "crm-milter",
        f"{queue_id}: {action}: to=<{to}@solarmora.com>{targets} rule={rule} copies={copies}"
        " verdict=ham",
    )


def attempt(status, to=CRM, queue_id=ID, *, original="", words="250 2.0.0 taken", delay="0.42"):
    through = f", orig_to=<{original}>" if original else ""
    return line(
        "postfix/smtp",
        f"{queue_id}: to=<{to}>{through}, relay=mx.crm.example[198.51.100.7]:25, delay={delay},"
        f" delays=0.01/0.01/0.2/0.2, dsn=2.0.0, status={status} ({words})",
    )


def expired(queue_id=ID, word="expired"):
    return line(
        "postfix/qmgr", f"{queue_id}: from=<a@x.example>, status={word}, returned to sender"
    )


def removed(queue_id=ID, program="postfix/qmgr"):
    return line(program, f"{queue_id}: removed")


def tracked(*lines, tracker=None):
    tracker = tracker or Tracker(OwnAddresses(COPIES), BOUNDS)
    for each in lines:
        tracker.take(each)
    return tracker


def counts(*lines):
    return dict(tracked(*lines).counts)


MESSAGE = [begin(), ours(), active(), attempt("sent"), removed()]
SENT = {("support", "target", "sent"): 1}


def test_a_message_that_is_delivered():
    tracker = tracked(*MESSAGE)
    assert dict(tracker.counts) == SENT
    assert tracker.oldest() == {}
    assert tracker.seconds == [0, 1, 0, 0.42]


def test_deferred_many_times_and_then_sent():
    lines = [begin(), ours(), active(), *[attempt("deferred"), active()] * 5, attempt("sent")]
    expected = {("support", "target", "deferred"): 5, **SENT}
    assert counts(*lines, removed()) == expected


def test_expired_after_it_was_deferred():
    for word in ("expired", "force-expired"):
        lines = [begin(), ours(), active(), attempt("deferred"), expired(word=word), removed()]
        found = {("support", "target", "deferred"): 1, ("support", "target", "expired"): 1}
        assert counts(*lines) == found


def test_only_what_waits_expires():
    lines = [begin(), ours(new=f"{CRM} two@crm.example"), active(), attempt("sent")]
    lines += [attempt("deferred", "two@crm.example"), expired(), removed()]
    assert counts(*lines)["support", "target", "expired"] == 1


def test_bounced_without_a_relay():
    bounce = line(
        "postfix/error",
        f"{ID}: to=<{CRM}>, relay=none, delay=0.1, delays=0/0/0/0, dsn=5.4.4, status=bounced"
        " (Host or domain name not found)",
    )
    assert counts(begin(), ours(), active(), bounce) == {("support", "target", "bounced"): 1}


def test_copies_by_the_address_of_the_rule_and_by_what_an_alias_makes_of_it():
    lines = [begin(), ours(copies=1), active(), attempt("sent")]
    lines += [attempt("sent", "bob@solarmora.com", original="team@solarmora.com")]
    lines += [attempt("deferred", "eve@solarmora.com", original="Team@Solarmora.com"), active()]
    lines += [attempt("sent", "eve@solarmora.com", original="team@solarmora.com"), removed()]
    copies = {("support", "copy", "sent"): 2, ("support", "copy", "deferred"): 1}
    assert counts(*lines) == {**SENT, **copies}


def test_copies_of_a_rule_without_a_target():
    lines = [begin(), ours(new="", copies=1, action="copied"), active()]
    lines += [attempt("sent", "team@solarmora.com"), attempt("sent", "info@solarmora.com")]
    assert counts(*lines) == {("support", "copy", "sent"): 1}


def test_other_recipients_of_the_message_are_not_counted():
    lines = [begin(), ours(), active(), attempt("sent", "bob@solarmora.com"), attempt("sent")]
    assert counts(*lines) == SENT


def test_what_was_not_done_is_not_followed():
    for action in ("would_reroute", "left", "rejected", "discarded", "tempfailed"):
        assert counts(begin(), ours(action=action), active(), attempt("sent")) == {}


def test_mail_on_hold_does_not_wait_and_is_counted_when_it_is_released():
    tracker = tracked(begin(), ours(action="quarantined"))
    assert tracker.oldest() == {}
    tracked(active(), tracker=tracker)
    assert set(tracker.oldest()) == {"support"}
    assert dict(tracked(attempt("sent"), tracker=tracker).counts) == SENT


def test_a_message_waits_from_its_arrival_until_each_recipient_is_done():
    tracker = tracked(begin(), ours(new=f"{CRM} two@crm.example"))
    assert tracker.oldest() == {}  # a later milter may refuse it
    assert set(tracked(active(), tracker=tracker).oldest()) == {"support"}
    tracked(attempt("sent"), attempt("deferred", "two@crm.example"), tracker=tracker)
    arrived = tracker.oldest()["support"]
    tracked(attempt("deferred", "two@crm.example"), tracker=tracker)
    assert tracker.oldest() == {"support": arrived}
    assert tracked(attempt("bounced", "two@crm.example"), tracker=tracker).oldest() == {}


def test_deleted_by_an_administrator():
    tracker = tracked(begin(), ours(), active(), attempt("deferred"))
    assert tracked(removed(program="postfix/postsuper"), tracker=tracker).oldest() == {}


def test_refused_by_a_later_milter():
    refusal = line("postfix/cleanup", f"{ID}: milter-reject: END-OF-MESSAGE from mail.example")
    tracker = tracked(begin(), ours(), refusal)
    assert tracker.state()["messages"] == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_lines_of_postfix_and_ours_in_any_order_of_two_files(order):
    late = [ours(copies=1), attempt("sent"), attempt("sent", "team@solarmora.com")]
    lines = [begin(), active(), *(late[each] for each in order), removed()]
    assert counts(*lines) == {**SENT, ("support", "copy", "sent"): 1}


@pytest.mark.parametrize("place", range(len(MESSAGE)))
def test_our_line_anywhere_even_behind_the_last(place):
    lines = [begin(), active(), attempt("sent"), removed()]
    lines.insert(place, ours())
    tracker = tracked(*lines)
    assert dict(tracker.counts) == SENT
    assert tracker.oldest() == {}


def test_two_lines_of_ours_and_one_delivery():
    for lines in ([ours(), ours(rule="vip", to="vip")], [ours(), ours()]):
        for place in range(1, 5):
            story = [begin(), active(), attempt("sent"), removed()]
            story[place:place] = lines
            assert counts(*story) == SENT


def test_a_target_is_no_copy_of_another_rule():
    both = Tracker(OwnAddresses({"support": Ours(frozenset(["two@crm.example"]))}), BOUNDS)
    lines = [ours(copies=1), ours(rule="vip", new="two@crm.example", to="vip"), active()]
    tracked(begin(), *lines, attempt("sent", "two@crm.example"), tracker=both)
    assert dict(both.counts) == {("vip", "target", "sent"): 1}


def test_a_queue_id_that_is_used_again():
    other = [begin(), active(), attempt("sent"), removed()]
    assert counts(*MESSAGE, *other, *MESSAGE) == {("support", "target", "sent"): 2}
    # Also if the end of the first was never logged.
    assert counts(*MESSAGE[:-1], *other) == SENT


def test_through_a_content_filter_the_message_is_another():
    by_filter = attempt("sent", words="250 2.0.0 from MTA: 250 2.0.0 Ok: queued as 4bNEXT0000")
    second = [active("4bNEXT0000"), attempt("deferred", queue_id="4bNEXT0000")]
    for place in range(3):
        later = [*second]
        later.insert(place, by_filter)
        tracker = tracked(begin(), ours(), active(), begin("4bNEXT0000"), *later, removed())
        assert dict(tracker.counts) == {("support", "target", "deferred"): 1}
        assert set(tracker.oldest()) == {"support"}
        done = (attempt("sent", queue_id="4bNEXT0000"), removed("4bNEXT0000"))
        assert tracked(*done, tracker=tracker).counts["support", "target", "sent"] == 1
        assert tracker.oldest() == {}


def test_the_queue_id_of_the_next_server_is_not_followed():
    words = "250 2.0.0 Ok: queued as 5B2C1D00FF"
    assert counts(begin(), ours(), active(), attempt("sent", words=words)) == SENT


def test_a_copy_that_is_forwarded_on_this_host():
    words = "forwarded as 4bFWD00000"
    lines = [begin(), ours(copies=1), active()]
    lines += [attempt("sent", "team@solarmora.com", words=words), active("4bFWD00000")]
    gone = {"queue_id": "4bFWD00000", "original": "team@solarmora.com"}
    lines += [attempt("bounced", "eve@elsewhere.example", **gone), removed("4bFWD00000")]
    assert counts(*lines) == {("support", "copy", "bounced"): 1}


REPORT = "4bREPORT00"


def notification(kind="non-delivery"):
    return line("postfix/bounce", f"{ID}: sender {kind} notification: {REPORT}")


def report():
    sender = active(REPORT).replace(b"a@x.example", b"")
    return [sender, attempt("sent", LOST, REPORT), removed(REPORT)]


@pytest.mark.parametrize("end", [attempt("bounced"), [attempt("deferred"), expired()]])
@pytest.mark.parametrize("place", range(4))
def test_a_dead_letter(end, place):
    story = [begin(), ours(), active(), *([end] if isinstance(end, bytes) else end)]
    later = report()
    later.insert(place, notification())
    found = counts(*story, *later, removed())
    assert found["support", "dead_letter", "sent"] == 1
    assert sum(found.values()) == len(story) - 2


def test_reports_that_are_no_dead_letters():
    story = [begin(), ours(), active(), attempt("bounced")]
    assert ("support", "dead_letter", "sent") not in counts(*story, *report())
    later = [notification("delivery status"), *report(), removed()]
    assert ("support", "dead_letter", "sent") not in counts(*story, *later)


def test_a_report_that_comes_later_from_the_servers_of_the_crm():
    assert counts(begin(REPORT), *report()) == {("support", "dead_letter", "sent"): 1}
    # Other mail to that mailbox is none.
    letter = [begin(REPORT), active(REPORT), attempt("sent", LOST, REPORT), removed(REPORT)]
    assert counts(*letter) == {}


def test_what_is_insured_by_a_copy_at_once():
    insured = ours() + b" insured=<Lost@solarmora.com>"
    lines = [begin(), insured, active(), attempt("sent"), attempt("sent", LOST), removed()]
    assert counts(*lines) == {**SENT, ("support", "insured", "sent"): 1}


def test_requeued_by_an_administrator():
    requeued = line("postfix/pickup", f"4bAGAIN000: uid=110 from=<a@x.example> orig_id={ID}")
    lines = [begin(), ours(), active(), attempt("deferred"), requeued, active("4bAGAIN000")]
    lines += [attempt("sent", queue_id="4bAGAIN000"), removed("4bAGAIN000")]
    assert counts(*lines) == {("support", "target", "deferred"): 1, **SENT}


@pytest.mark.parametrize(
    "program",
    [
        "postfix/smtp",
        "postfix-out/smtp",
        "postfix/out/submission/smtp",
        "mx-2/lmtp",
        "postfix/pipe",
    ],
)
def test_several_instances_and_services(program):
    sent = attempt("sent").replace(b"postfix/smtp", program.encode())
    assert counts(begin(), ours(), active(), sent) == SENT


FORMS = {
    "plain": lambda text, tag: f"Nov 28 17:00:00 mx {tag}[7]: {text}",
    "rfc3339": lambda text, tag: f"2026-11-28T17:00:00.123456+01:00 mx {tag}[7]: {text}",
    "rfc5424": lambda text, tag: f"<22>1 2026-11-28T17:00:00.1Z mx {tag} 7 - - {text}",
    "compose": lambda text, tag: f"postfix-1  | Nov 28 17:00:00 mx {tag}[7]: {text}",
    "docker": lambda text, tag: json.dumps(
        {"log": f"Nov 28 17:00:00 mx {tag}[7]: {text}\n", "time": "2026-11-28T17:00:00Z"}
    ),
    "cri": lambda text, tag: f"2026-11-28T17:00:00.1Z stdout F Nov 28 17:00:00 mx {tag}[7]: {text}",
    "stderr": lambda text, tag: text,
    "prefixed": lambda text, tag: f"<6>{text}",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_a_log(form):
    found = []
    for each in MESSAGE:
        tag, text = each.decode().removeprefix(STAMPS[0]).split("[77]: ")
        found.append(form(text, tag).encode())
    assert counts(*found) == SENT


def test_words_of_a_client_do_not_pass_for_lines():
    for text in (
        f"NOQUEUE: reject: RCPT from x[192.0.2.1]: helo=<{ID}: removed>",
        f"4bOTHER000: message-id=<{ID}: to=<{CRM}>, relay=x, delay=1, status=sent (x)>",
        f"warning: {ID}: client=x",
        f"4bOTHER000: warning: header Subject: {ID}: rerouted: to=<x> new=<y> rule=z copies=0",
    ):
        tracker = tracked(begin(), ours(), active(), line("postfix/smtpd", text))
        assert dict(tracker.counts) == {}
        assert dict(tracked(attempt("sent"), tracker=tracker).counts) == SENT


def test_lines_that_are_cut_or_not_utf_8():
    cut = attempt("bounced", words="550 " + "x" * 3000)[:2000]
    assert counts(begin(), ours(), active(), cut) == {("support", "target", "bounced"): 1}
    wrong = attempt("sent", words="250 \xff\xfe").decode().encode("latin-1")
    assert counts(begin(), ours(), active(), wrong) == SENT
    tracker = tracked(begin(), ours(new=" ".join(f"a{n}@crm.example" for n in range(99)))[:900])
    assert tracker.dropped == 1  # whose it is was cut off


@pytest.mark.parametrize(
    "rubbish",
    [
        line("postfix/smtp", f"{ID}: removed").replace(b"77", b"9" * 5000),
        b"<22>1 2026-11-28T17:00:00Z mx postfix/smtp %b - - status=" % (b"9" * 5000),
        b'{"a":' * 5000 + b"status=",
        b'{"message":' + b"[" * 50_000 + b"status=",
        b'"x","a\rb status="',
        line("postfix/bounce", f"{ID}: sender non-delivery notification: {ID}"),
    ],
)
def test_no_line_ends_the_counting(rubbish):
    assert counts(*MESSAGE[:3], attempt("bounced"), rubbish, removed()) == {
        ("support", "target", "bounced"): 1
    }


def test_rubbish_counts_nothing():
    chance = random.Random(7)
    words = [*MESSAGE, b"status=", b": to=<", b"removed", b"\0", b"\xff", b"{", b"(queue active)"]
    tracker = Tracker(OwnAddresses(COPIES), BOUNDS)
    for _ in range(3000):
        parts = [chance.choice(words)[: chance.randrange(90)] for _ in range(3)]
        tracker.take(b"".join([*parts, chance.randbytes(chance.randrange(9))]))
    assert set(tracker.counts) <= {("support", "target", each) for each in deliveries.OUTCOMES}


def test_memory_is_bounded_and_what_is_dropped_is_counted(monkeypatch):
    monkeypatch.setattr(followed, "MAX_RECIPIENTS", 100)
    monkeypatch.setattr(followed, "MAX_RECENT", 50)
    monkeypatch.setattr(followed, "MAX_OVER", 10)
    tracker = Tracker(OwnAddresses(COPIES), BOUNDS)
    ids = [f"4bXq1Z{number:06d}" for number in range(500)]
    for each in ids:
        tracked(begin(each), ours(each, copies=1), active(each), tracker=tracker)
    state = tracker.state()
    assert len(state["messages"]) == 50
    assert tracker.dropped == 450
    assert sum(len(lines) for _, lines in state["recent"]) <= 50
    assert len(state["recent"]) <= 50
    for each in ids:
        tracked(attempt("sent", queue_id=each), removed(each), tracker=tracker)
    assert dict(tracker.counts) == {("support", "target", "sent"): 50}
    assert len(tracker.state()["over"]) == 10
    assert tracker.state()["messages"] == []
    assert tracker._messages._recipients == 0


def test_a_report_whose_own_lines_are_too_many_ends_nothing(monkeypatch):
    monkeypatch.setattr(followed, "MAX_RECENT", 3)
    tracker = Tracker(OwnAddresses({"support": Ours(dead_letters="lost@x.example")}), BOUNDS)
    line = (
        b"Nov 29 01:00:00 mail postfix/qmgr[1]: 4bXq1Z0abc: from=<>, size=9, nrcpt=1 (queue active)"
    )
    for _ in range(8):
        tracker.take(line)
    assert tracker.state()["messages"] == []


def test_one_message_of_many_more_recipients_than_the_bound(monkeypatch):
    monkeypatch.setattr(followed, "MAX_RECIPIENTS", 10)
    tracker = tracked(begin(), ours(new=" ".join(f"a{n}@crm.example" for n in range(30))))
    assert (tracker.dropped, tracker._messages._recipients) == (1, 0)


@pytest.mark.parametrize("seed", range(20))
def test_a_state_at_any_moment_changes_nothing(seed):
    """Random mail of a busy host, interrupted: the counts are those of an uninterrupted reader."""
    chance = random.Random(seed)
    lines, expected = traffic(chance)
    tracker = Tracker(OwnAddresses(COPIES), BOUNDS)
    for each in lines:
        tracker.take(each)
        if chance.random() < 0.05:
            state = json.loads(json.dumps(tracker.state()))
            tracker = Tracker(OwnAddresses(COPIES), BOUNDS)
            tracker.restore(state)
    assert tracker.counts == expected
    assert tracker.oldest() == {}
    assert tracker.dropped == 0


def traffic(chance):
    """Lines of messages mixed, those of each in order, and what there is to count."""
    stories, expected = [], Counter()
    for number in range(60):
        queue_id = f"4b{number:08d}X"
        story = [begin(queue_id), active(queue_id)]
        if chance.random() < 0.5:
            copies = chance.randrange(2)
            story.insert(chance.randrange(1, 3), ours(queue_id, copies=copies))
            for _ in range(chance.randrange(3)):
                story.append(attempt("deferred", queue_id=queue_id))
                expected["support", "target", "deferred"] += 1
            end = chance.choice(["sent", "bounced", "expired"])
            story.append(expired(queue_id) if end == "expired" else attempt(end, queue_id=queue_id))
            expected["support", "target", end] += 1
            if copies:
                place = chance.randrange(2, len(story))
                story.insert(place, attempt("sent", "team@solarmora.com", queue_id))
                expected["support", "copy", "sent"] += 1
        story.append(removed(queue_id))
        stories.append(story)
    mixed = []
    while stories:
        story = chance.choice(stories[:10])
        mixed.append(story.pop(0))
        if not story:
            stories.remove(story)
    return mixed, expected
