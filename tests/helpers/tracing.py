"""What the tests of ``crm-milter trace`` share: a lab, the screen, and how it begins."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from crm_milter.cli import main as cli
from lab.whole import Lab

RULES = """
unrouted_to: it@solarmora.com
spam: rspamd
rules:
  - name: support
    match: [help@solarmora.com, hilfe@solarmora.com]
    replace_with: support@crm.example
    also_deliver_to: team@solarmora.com
  - {name: sales, match: sales@solarmora.com, replace_with: sales@crm.example}
  - {name: dead, match: dead@solarmora.com, replace_with: case@dead.example}
  - {name: drop, match: drop@solarmora.com, replace_with: case@crm.example, on_spam: discard}
  - {name: hold, match: hold@solarmora.com, replace_with: case@crm.example, on_spam: quarantine}
  - {name: refuse, match: refuse@solarmora.com, replace_with: case@crm.example, on_spam: reject}
"""
ALIASES = {
    **{f"{name}@solarmora.com": "it@solarmora.com" for name in ("help", "hilfe", "sales", "dead")},
    "team@solarmora.com": "bob@solarmora.com",
}
ANNA = "<anna@customer.example>"
HAM = b"From: Anna <anna@customer.example>\r\nMessage-ID: <1@customer.example>\r\n\r\nhello\r\n"
SPAM = b"X-Spam: Yes\r\n" + HAM

Trace = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def shared(make_module_lab: Callable[..., Lab]) -> Lab:
    return make_module_lab(
        RULES,
        virtual_alias_maps=ALIASES,
        transport_maps={"dead.example": "smtp:[127.0.0.1]:1"},
        services={"closed": {"smtpd_recipient_restrictions": "reject"}},
    )


@pytest.fixture
def lab(shared: Lab) -> Lab:
    shared.fresh()
    for log in (shared.postfix.maillog, shared.milter.logfile):
        os.truncate(log.path, 0)  # both are opened for appending
        log.mark()
    return shared


@pytest.fixture
def trace(lab: Lab, capsys: pytest.CaptureFixture[str]) -> Trace:
    """Call it with the arguments of trace: the exit status and what is shown."""

    def run(*arguments: str, logs: tuple[Path, ...] = ()) -> tuple[int, str]:
        paths = logs or (lab.postfix.maillog.path, lab.milter.logfile.path)
        status = cli.main(["trace", *arguments, "--log", *map(str, paths)])
        said = capsys.readouterr()
        return status, said.out + said.err

    return run


def steps(text: str) -> list[str]:
    """Return the lines without times, ports and queue ids."""
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r"127\.0\.0\.1\[127\.0\.0\.1\]:\d{4,5}", "SERVER", text)
    text = re.sub(r"\b(?=[0-9A-F]*\d)[0-9A-F]{8,12}\b", "ID", text)
    return [line.strip().removeprefix("TIME").strip() for line in text.splitlines() if line]


BEGIN = ["accepted from unknown[127.0.0.1]", "message-id=<1@customer.example>"]
