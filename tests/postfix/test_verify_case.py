"""``crm-milter verify --until-case``: a far end that answers, that bounces, and a silent one."""

import re
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from verifying import MORE_RULES, Screen, lab, mood, screen, shared

from lab import smtp
from lab.whole import Lab

__all__ = ["lab", "mood", "screen", "shared"]  # fixtures

ANSWER = b"From: support@crm.example\r\nSubject: [ref:1] your case\r\n\r\nwe look into it\r\n"
Answering = Callable[..., None]


@pytest.fixture
def answering(lab: Lab) -> Iterator[Answering]:
    """Call it with a sender: the CRM's servers answer the first message by mail from that."""
    threads: list[threading.Thread] = []
    over = threading.Event()

    def answer(sender: str, service: str, delay: float, to: str) -> None:
        while not over.is_set():
            for each in lab.sink.received:
                found = re.search(rb"^From: (\S*crm-milter-case-\S+)", each.data, re.MULTILINE)
                if found and each.recipient == "support@crm.example":
                    time.sleep(delay)
                    rcpt = f"<{to or found[1].decode().strip()}>"
                    smtp.send(lab.postfix.ports[service], f"<{sender}>", [rcpt], ANSWER)
                    return
            time.sleep(0.05)

    def start(sender: str, service: str = "smtp", delay: float = 0.0, to: str = "") -> None:
        threads.append(threading.Thread(target=answer, args=(sender, service, delay, to)))
        threads[-1].start()

    yield start
    over.set()
    for each in threads:
        each.join()


def last(text: str) -> list[str]:
    lines = [re.sub(r"crm-milter-case-[0-9a-f]{16}", "TOKEN", line) for line in text.splitlines()]
    lines = [line for line in lines if not line.startswith("crm-milter: ")]  # on stderr
    at = next(number for number, line in enumerate(lines) if line.startswith("case "))
    return lines[at:]


def test_a_case_is_opened(screen: Screen, answering: Answering, lab: Lab) -> None:
    answering("support@crm.example", delay=1.5)
    status, text = screen("help@solarmora.com", "--until-case", "20s")
    assert "the log can be read: this waits up to 20 s for the CRM's acknowledgement\n" in text
    assert text.index("the log can be read") < text.index("sent  ")
    waiting, result = last(text)
    assert re.fullmatch(r"case      waiting for mail to <TOKEN@\S+>", waiting)
    assert re.fullmatch(r"case opened: acknowledged by <support@crm.example> after [2-9] s", result)
    assert status == 0


def test_the_message_comes_back(screen: Screen, answering: Answering) -> None:
    answering("")
    status, text = screen("help@solarmora.com", "--until-case", "1m")
    _, result, advice, more = last(text)
    assert "RFC 3834" in more
    assert re.fullmatch(
        r"bounced later: the CRM accepted the message and returned it after \d s", result
    )
    assert advice.startswith("  its report says why")
    assert status == 1


def test_no_answer_comes(screen: Screen) -> None:
    status, text = screen("help@solarmora.com", "--until-case", "2")
    _, result, *advice = last(text)
    assert re.fullmatch(r"no acknowledgement: no mail to <TOKEN@\S+> within 2 s", result)
    assert len(advice) == 2
    assert status == 1


def test_a_report_that_comes_to_dead_letters_is_named(
    screen: Screen, answering: Answering, lab: Lab
) -> None:
    """The mailbox is the envelope sender, so what the CRM bounces comes there."""
    answering("", to="lost@solarmora.com")
    text = "dead_letters: lost@solarmora.com\n" + MORE_RULES
    status, said = screen("help@solarmora.com", "--until-case", "5s", text=text)
    _, result, advice, _ = last(said)
    assert result.startswith("no acknowledgement: ")
    assert advice.startswith(
        "  but a delivery report came to <lost@solarmora.com>: perhaps the CRM"
    )
    assert status == 1


def test_other_mail_to_dead_letters_is_no_report(
    screen: Screen, answering: Answering, lab: Lab
) -> None:
    answering("bob@solarmora.com", to="lost@solarmora.com")
    text = "dead_letters: lost@solarmora.com\n" + MORE_RULES
    _, said = screen("help@solarmora.com", "--until-case", "5s", text=text)
    assert "delivery report" not in said


def test_an_answer_that_is_refused_is_one(screen: Screen, answering: Answering) -> None:
    answering("robot@crm.example", service="closed")
    status, text = screen("help@solarmora.com", "--until-case", "20s")
    _, result, advice = last(text)
    assert result.startswith("case opened: acknowledged by <robot@crm.example> after ")
    assert "refused the acknowledgement" in advice
    assert status == 0


def test_other_mail_is_no_answer(screen: Screen, answering: Answering, lab: Lab) -> None:
    lab.send("<x@crm.example>", ["<postmaster@solarmora.com>"], ANSWER, wait=False)
    arguments = ("--until-case", "2s", "--from", "postmaster@solarmora.com")
    status, text = screen("help@solarmora.com", *arguments)
    assert "no acknowledgement: no mail to <crm-milter-case-" in text
    assert status == 1


def test_a_message_that_does_not_arrive_opens_no_case(screen: Screen) -> None:
    status, text = screen("dead@solarmora.com", "--until-case", "20s")
    assert "case  " not in text
    assert "deferred: " in text
    assert status == 1


def test_an_answer_that_a_rule_would_reroute(screen: Screen, lab: Lab) -> None:
    rule = '  - {name: rest, match: "crm-*@solarmora.com", replace_with: rest@crm.example}\n'
    arguments = ("--until-case", "20s", "--from", "anna@solarmora.com")
    status, text = screen("help@solarmora.com", *arguments, text=MORE_RULES + rule)
    assert 'rule "rest" would reroute the acknowledgement to <crm-milter-case-' in text
    assert status == 1
    assert lab.sink.received == []


def test_with_a_delimiter_the_sender_keeps_its_mailbox(
    screen: Screen, answering: Answering
) -> None:
    answering("support@crm.example")
    text = 'recipient_delimiter: "+"\n' + MORE_RULES
    arguments = ("--until-case", "20s", "--from", "anna@customer.example")
    status, said = screen("help@solarmora.com", *arguments, text=text)
    assert "case      waiting for mail to <anna+crm-milter-case-" in said
    assert status == 0


@pytest.mark.parametrize("span", ["0", "5x", "", "-1s", "1.5m"])
def test_times_that_are_none(screen: Screen, span: str) -> None:
    with pytest.raises(SystemExit) as caught:
        screen("help@solarmora.com", f"--until-case={span}")
    assert caught.value.code == 2


def test_not_with_spam(screen: Screen, lab: Lab) -> None:
    status, text = screen("help@solarmora.com", "--spam", "--until-case", "5m")
    assert status == 2
    assert "--until-case has no effect with --spam" in text
    assert lab.sink.received == []
