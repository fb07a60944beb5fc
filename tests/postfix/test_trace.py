"""``crm-milter trace`` on the log of a real Postfix: each fate of a message."""

import json
import re

import pytest
from tracing import ANNA, BEGIN, HAM, SPAM, Trace, lab, shared, steps, trace

from crm_milter.cli import main as cli
from lab.base import postfix_version
from lab.whole import Lab

__all__ = ["lab", "shared", "trace"]  # fixtures

AT_END = "END-OF-MESSAGE from unknown[127.0.0.1]"
# From 3.10 on Postfix logs the reason that the milter gave.
HOLD = "spam" if postfix_version() >= (3, 10) else "milter triggers HOLD action"
REROUTED = (
    "crm-milter: rerouted: to=<help@solarmora.com> new=<support@crm.example> rule=support copies=1"
    " verdict=ham"
)
TEAM = "to <bob@solarmora.com> (for <team@solarmora.com>): sent, by SERVER: 250 2.0.0 taken"


def test_rerouted_with_a_copy_and_another_recipient(lab: Lab, trace: Trace) -> None:
    sent = lab.send(ANNA, ["<help@solarmora.com>", "<other@x.example>"], HAM)
    status, text = trace(sent.queue_id)
    assert status == 0
    told = steps(text)
    assert told[0] == "ID from <anna@customer.example>, " + told[0].rpartition(", ")[2]
    assert told[1:5] == [*BEGIN, REROUTED, "queued"]
    assert sorted(told[5:8]) == [
        TEAM,
        "to <other@x.example>: sent, by SERVER: 250 2.0.0 taken",
        "to <support@crm.example>: sent, by SERVER: 250 2.0.0 taken",
    ]
    assert told[8:] == ["removed from the queue"]


def test_spam_that_was_left(lab: Lab, trace: Trace) -> None:
    sent = lab.send(ANNA, ["<help@solarmora.com>"], SPAM)
    assert steps(trace(sent.queue_id)[1])[1:] == [
        *BEGIN,
        "crm-milter: left: to=<help@solarmora.com> rule=support reason=spam",
        "queued",
        "to <it@solarmora.com> (for <help@solarmora.com>): sent, by SERVER: 250 2.0.0 taken",
        "removed from the queue",
    ]


@pytest.mark.parametrize(
    ("recipient", "ours", "end"),
    [
        (
            "drop",
            "discarded: to=<drop@solarmora.com> rule=drop reason=spam",
            [f"milter-discard: {AT_END}: milter triggers DISCARD action"],
        ),
        (
            "refuse",
            "rejected: to=<refuse@solarmora.com> rule=refuse reason=spam",
            [f"milter-reject: {AT_END}: 5.7.1 message refused as spam"],
        ),
        (
            "hold",
            "quarantined: to=<hold@solarmora.com> new=<case@crm.example> rule=hold copies=0"
            " verdict=spam",
            [
                f"milter-hold: {AT_END}: {HOLD}",
                "on hold; postsuper -H ID releases it, postsuper -d ID deletes it",
            ],
        ),
    ],
)
def test_spam_as_the_rule_says(
    lab: Lab, trace: Trace, recipient: str, ours: str, end: list[str]
) -> None:
    lab.send(ANNA, [f"<{recipient}@solarmora.com>"], SPAM)
    lab.postfix.wait_log("milter-")
    told = [line.partition("; from=")[0] for line in steps(trace(f"{recipient}@solarmora.com")[1])]
    assert told[1:] == [*BEGIN, f"crm-milter: {ours}", *end]


def test_released_from_hold(lab: Lab, trace: Trace) -> None:
    sent = lab.send(ANNA, ["<hold@solarmora.com>"], SPAM)
    lab.postfix.postsuper("-H", sent.queue_id)
    lab.postfix.flush()
    lab.postfix.wait_log(f"{sent.queue_id}: removed")
    assert steps(trace(sent.queue_id)[1])[-4:] == [
        "released from hold",
        "queued",
        "to <case@crm.example>: sent, by SERVER: 250 2.0.0 taken",
        "removed from the queue",
    ]


def test_deferred_again_and_again_is_told_once(lab: Lab, trace: Trace) -> None:
    sent = lab.send(ANNA, ["<dead@solarmora.com>"], HAM, wait=False)
    lab.postfix.wait_log(r"(status=deferred[^\0]*){3}", 30)
    told = steps(trace(sent.queue_id)[1])
    refused = "to <case@dead.example>: deferred: connect to 127.0.0.1[127.0.0.1]:1:"
    assert told[5] == f"{refused} Connection refused"
    assert re.fullmatch(r"same result \d+ more times", told[6])
    assert told[7] == "not finished yet, as far as this log shows"


def test_a_bounce_is_followed(lab: Lab, trace: Trace) -> None:
    lab.sink.refuse("gone@x.example")
    sent = lab.send(ANNA, ["<gone@x.example>"], HAM)
    told = steps(trace(sent.queue_id)[1])
    assert "sender non-delivery notification: ID" in told
    assert "to <anna@customer.example>: sent, by SERVER: 250 2.0.0 taken" in told


def test_mail_by_sendmail(lab: Lab, trace: Trace) -> None:
    lab.postfix.sendmail("-f", "anna@customer.example", "sales@solarmora.com", stdin=HAM)
    lab.postfix.wait_log(": removed")
    told = steps(trace("sales@crm.example")[1])
    assert told[1] == "accepted from sendmail, uid=0 from=<anna@customer.example>"
    assert told[3].startswith("crm-milter: rerouted: to=<sales@solarmora.com>")


def test_a_refusal_has_no_queue_id(lab: Lab, trace: Trace) -> None:
    lab.send(ANNA, ["<help@solarmora.com>"], HAM, service="closed")
    lab.postfix.wait_log("NOQUEUE: reject: ")  # the log comes after the answer
    status, text = trace("help@solarmora.com")
    assert status == 0
    assert re.search(r"refused: reject: RCPT from .*: 554 5.7.1 <help@solarmora.com>", text)


@pytest.mark.parametrize(
    "address",
    ["help@solarmora.com", "<HELP@Solarmora.com>", "support@crm.example", "team@solarmora.com"],
)
def test_an_address_finds_its_messages(lab: Lab, trace: Trace, address: str) -> None:
    for recipient in ("help", "sales", "hilfe", "help"):
        lab.send(ANNA, [f"<{recipient}@solarmora.com>"], HAM)
    text = trace(address)[1]
    assert text.count("removed from the queue") == (2 if "help" in address.lower() else 3)
    assert "sales" not in text


def test_a_sender_finds_the_newest_messages(lab: Lab, trace: Trace) -> None:
    sent = [lab.send(ANNA, ["<help@solarmora.com>"], HAM).queue_id for _ in range(3)]
    text = trace("anna@customer.example", "--limit", "2")[1]
    assert text.startswith("1 older messages not shown; see --limit and --since\n")
    assert [each in text for each in sent] == [False, True, True]


def test_json(lab: Lab, trace: Trace) -> None:
    sent = lab.send(ANNA, ["<sales@solarmora.com>"], HAM)
    (told,) = json.loads(trace(sent.queue_id, "--json")[1])["messages"]
    assert told["queue_id"] == sent.queue_id
    assert told["sender"] == "anna@customer.example"
    assert told["over"] is True
    (decision,) = told["decisions"]
    assert (decision["action"], decision["new"]) == ("rerouted", ["sales@crm.example"])
    (delivery,) = told["deliveries"]
    assert (delivery["status"], delivery["reply"]) == ("sent", "250 2.0.0 taken")


@pytest.mark.parametrize("what", ["171EB2103A4", "nobody@x.example"])
def test_what_is_not_there(trace: Trace, what: str) -> None:
    status, text = trace(what)
    assert status == 1
    assert text.startswith(f'crm-milter: "{what}" not found in /tmp/')


def test_failing(lab: Lab, trace: Trace) -> None:
    lab.sink.refuse("support@crm.example")
    bounced = lab.send(ANNA, ["<help@solarmora.com>", "<other@x.example>"], HAM).queue_id
    lab.sink.accept()
    lab.send(ANNA, ["<hilfe@solarmora.com>"], HAM)
    lab.send(ANNA, ["<sales@solarmora.com>"], HAM)
    deferred = lab.send(ANNA, ["<dead@solarmora.com>"], HAM, wait=False).queue_id
    lab.postfix.wait_log("status=deferred")
    status, text = trace("--failing")
    assert status == 1
    text = re.sub(r"\]:\d{4,5}|(?<=, last sent at ).*", "]", text)
    assert sorted(text.rstrip().split("\n\n")) == [
        f"""\
<case@dead.example>: 1 deferred, 0 sent
    rule dead, for <dead@solarmora.com>
    deferred by none: connect to 127.0.0.1[127.0.0.1]:1: Connection refused
    messages {deferred}""",
        f"""\
<support@crm.example>: 1 bounced, 1 sent, last sent at ]
    rule support, for <help@solarmora.com>, <hilfe@solarmora.com>
    bounced by 127.0.0.1[127.0.0.1]: host 127.0.0.1[127.0.0.1] said: 550 5.1.1 no such address\
 (in reply to RCPT TO command)
    messages {bounced}""",
    ]
    status, text = trace("--failing", "sales@solarmora.com")
    assert (status, text) == (0, "no failing targets\n")
    (told,) = json.loads(trace("--failing", "dead@solarmora.com", "--json")[1])
    assert (told["target"], told["deferred"]) == ("case@dead.example", [deferred])


def test_a_target_that_came_back_does_not_fail(lab: Lab, trace: Trace) -> None:
    lab.sink.defer("sales@crm.example")
    lab.send(ANNA, ["<sales@solarmora.com>"], HAM, wait=False)
    lab.postfix.wait_log("status=deferred")
    assert trace("--failing")[0] == 1
    lab.sink.accept()
    lab.postfix.flush()
    lab.postfix.wait_empty_queue()
    assert trace("--failing") == (0, "no failing targets\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a queue id or an address, or use --failing"),
        (["a b"], '"a b" is neither a queue id nor an address'),
        (["--failing", "171EB2103A4"], '"171EB2103A4" is not an address'),
    ],
)
def test_usage(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trace", *arguments]) == 2
    assert capsys.readouterr().err == f"crm-milter: {said}\n"
