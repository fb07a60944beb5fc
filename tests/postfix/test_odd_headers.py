"""``explain`` reads a header as the real Postfix shows it to the daemon, however odd it is."""

from pathlib import Path

import pytest

from crm_milter.cli.explain import explain
from crm_milter.config.load import parse
from crm_milter.routing.logline import outcome_line
from lab.base import postfix_version

CONFIG = """
unrouted_to: it@solarmora.com
spam:
  filter: amavis
  headers:
    - {name: X-Odd, value: "*spam*"}
    - {name: X-Exact, value: "a b"}
    - {name: X-Mailbox-Line, value: "*spam*"}
    - {name: Bcc, value: "*spam*"}
    - {name: Return-Path, value: "*"}
rules:
  - name: help
    match: help@solarmora.com
    replace_with: help@crm.example
    bypass_spam_filter: true
"""
HAM, SPAM = b"X-Spam-Flag: NO\r\n", b"X-Spam-Flag: YES\r\n"
END = b"\r\nbody\r\n"
LONG = b"x" * 900

ROWS = {
    "blank before the colon": (b"Subject : x\r\nX-Spam-Flag : YES\r\n" + END, "spam"),
    "tabs before the colon": (b"X-Spam-Flag\t \t:YES\r\n" + END, "spam"),
    "no blank after the colon": (b"X-Spam-Flag:YES\r\n" + END, "spam"),
    "many blanks": (b"X-Spam-Flag: \t  YES \t \r\n" + END, "spam"),
    "no value": (b"X-Spam-Flag:\r\n" + END, "none"),
    "name in capitals": (b"X-SPAM-FLAG: yes\r\n" + END, "spam"),
    "8-bit value before": (b"Subject: \xc3\xa9 \xff\r\n" + SPAM + END, "spam"),
    "8-bit value": (b"X-Odd: \xffspam\xe9\r\n" + END, "spam"),
    "UTF-8 value": (b"X-Odd: \xc3\xa9 spam\r\n" + END, "spam"),
    "no-break space": (b"X-Spam-Flag: \xc2\xa0 NO\r\n" + SPAM + END, "spam"),
    "8-bit name": (HAM + b"X-Sp\xc3\xa4m: 1\r\n" + SPAM + END, "ham"),
    "byte order mark": (b"\xef\xbb\xbf" + SPAM + END, "none"),
    "mbox": (b"From joe@x Mon Jan  1\r\n" + SPAM + END, "spam"),
    "mbox, quoted": (b">From joe@x Mon Jan  1\r\n" + SPAM + END, "spam"),
    "mbox, quoted twice": (b">>From joe@x\r\n" + SPAM + END, "spam"),
    "mbox twice": (b"From joe@x\r\n>From ann@x\r\n" + SPAM + END, "spam"),
    "mbox is a field": (b"From spam@x\r\n" + HAM + END, "conflicting"),
    "mbox, then a continuation": (b"From joe@x\r\n " + SPAM + SPAM + END, "none"),
    "mbox later": (HAM + b"From joe@x\r\n" + SPAM + END, "ham"),
    "quoted mbox later": (HAM + b">From joe@x\r\n" + SPAM + END, "ham"),
    "blank line first": (b"\r\n" + SPAM + END, "none"),
    "line of blanks first": (b" \r\n" + SPAM + END, "none"),
    "continuation first": (b"\tX-Spam-Flag: YES\r\n" + SPAM + END, "none"),
    "empty name": (HAM + b": x\r\n" + SPAM + END, "ham"),
    "empty name first": (b": x\r\n" + SPAM + END, "none"),
    "blank name": (HAM + b" : x\r\n" + SPAM + END, "conflicting"),
    "no colon": (HAM + b"nothing\r\n" + SPAM + END, "ham"),
    "no colon first": (b"nothing\r\n" + SPAM + END, "none"),
    "blank in a name": (HAM + b"X Odd: spam\r\n" + SPAM + END, "ham"),
    "control in a name": (HAM + b"X\x01Odd: spam\r\n" + SPAM + END, "ham"),
    "delete in a name": (HAM + b"X\x7fOdd: spam\r\n" + SPAM + END, "ham"),
    "vertical tab before the colon": (HAM + b"X-Odd\x0b: spam\r\n" + SPAM + END, "ham"),
    "odd but valid name": (HAM + b'()<>@,;\\"/[]?={}: x\r\n' + SPAM + END, "conflicting"),
    "dot first": (HAM + b".X: x\r\n" + SPAM + END, "conflicting"),
    "boundary first": (b"--x\r\n" + SPAM + END, "none"),
    "bare CR": (b"X-Exact: a\rb\r\nSubject: x\rX-Spam-Flag: YES\r\n" + END, "spam"),
    "bare CR is no line end": (HAM + b"Subject: x\rX-Spam-Flag: YES\r\n" + END, "ham"),
    "CR CR LF": (b"X-Spam-Flag: YES\r\r\nX-Exact: a b\r\r\r\n" + END, "spam"),
    "CR CR LF ends the header": (HAM + b"\r\r\n" + SPAM + END, "ham"),
    "LF": (b"Subject: x\nX-Spam-Flag: YES\n\nbody\n", "spam"),
    "LF and CRLF": (b"Subject: x\nX-Spam-Flag: YES\r\n\nbody\r\n", "spam"),
    "NUL in a value": (HAM + b"X-Odd: a\0spam\r\n" + END, "ham"),
    "NUL behind": (HAM + b"X-Odd: spam\0a\r\n" + END, "conflicting"),
    "NUL in a name": (HAM + b"X\0-Odd: spam\r\n" + SPAM + END, "ham"),
    "NUL in a continuation": (HAM + b"X-Odd: a\r\n \0spam\r\n" + SPAM + END, "conflicting"),
    "folded": (b"X-Exact: a\r\n b\r\n" + END, "spam"),
    "folded before the value": (b"X-Spam-Flag:\r\n\t YES\r\n" + END, "spam"),
    "folded, with a line of blanks": (b"X-Exact: a\r\n \t\r\n b\r\n" + END, "spam"),
    "line of blanks last": (HAM + b" \t\r\nbody\r\n" + SPAM, "ham"),
    "folded in the middle of a word": (HAM + b"X-Odd: sp\r\n am\r\n" + END, "ham"),
    "ends at 60,000": (HAM + b"X-Odd: " + b"x" * 59_988 + b" spam\r\n" + END, "conflicting"),
    "cut at 60,000": (HAM + b"X-Odd: " + b"x" * 59_989 + b" spam\r\n" + END, "ham"),
    "blanks before the colon do not count": (
        HAM + b"X-Odd \t: " + b"x" * 59_988 + b" spam\r\n" + END,
        "conflicting",
    ),
    "cut at a line's end": (
        HAM + b"X-Odd: " + (LONG + b"\r\n ") * 66 + b"spam" + LONG + b"\r\n" + END,
        "ham",
    ),
    "cut in a long last line": (
        HAM + b"X-Odd: " + b"x" * 50_000 + b"\r\n spam" + b"x" * 20_000 + b"\r\n" + END,
        "conflicting",
    ),
    "many lines": (HAM + b"X-Odd: " + b"\r\n x" * 14_000 + b"spam\r\n" + END, "conflicting"),
    "too many lines": (HAM + b"X-Odd: " + b"\r\n x" * 21_000 + b"spam\r\n" + END, "ham"),
    "behind a long field": (b"X: " + b"x" * 110_000 + b"\r\n" + SPAM + END, "spam"),
    "long name": (b"X" * 2047 + b": x\r\n" + SPAM + END, "spam"),
    "too long a name": (HAM + b"X" * 2048 + b": x\r\n" + SPAM + END, "ham"),
    "repeated": (HAM + SPAM + HAM + END, "conflicting"),
    "header only": (SPAM, "spam"),
    "header only, not ended": (b"X-Spam-Flag: YES", "spam"),
    "header and blank line": (SPAM + b"\r\n", "spam"),
    "nothing": (b"", "none"),
    "fields that Postfix drops": (
        b"Return-Path: <x@y>\r\nBcc: spam@x\r\nContent-Length: 1\r\n" + HAM + END,
        "ham",
    ),
    "part of a multipart": (
        HAM + b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n" + SPAM + END,
        "ham",
    ),
}


# Postfix 3.10 takes only the first line for one of mbox, and a continuation of it for a line.
LATER = {"mbox twice": "none", "mbox, then a continuation": "spam"}


@pytest.fixture(scope="module")
def lab(make_module_lab):
    return make_module_lab(CONFIG)


@pytest.mark.parametrize("name", ROWS)
def test_explain_and_the_daemon_see_the_same(lab, name):
    message, verdict = ROWS[name]
    lab.fresh()
    outcome = lab.send("<joe@customer.example>", ["<help@solarmora.com>"], message)
    said = outcome.log[0].partition(f"{outcome.queue_id}: ")[2]
    if name in LATER and postfix_version() >= (3, 10):  # explain reads as Postfix 3.7 does
        assert said.endswith(f" verdict={LATER[name]}")
        return
    assert said.endswith(f" verdict={verdict}")
    policy = parse(CONFIG, Path("explain.yaml")).policy
    story = explain(policy, "joe@customer.example", ["help@solarmora.com"], message)
    decision = story.decision
    line = outcome_line("explain", decision.outcomes[0], decision.judgement)
    assert line == f"explain: {said}"
