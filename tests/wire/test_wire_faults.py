"""A fault inside never lets a message pass as it is: 451, and the next one is served."""

import os
from pathlib import Path

import pytest
from mta import Mta

from lab.milter import program

HAM = [("X-Spam-Flag", "NO")]
HELP = "<help@solarmora.com>"
ALICE = "<alice@solarmora.com>"

FAULTS = Path(__file__).with_name("faults")


@pytest.fixture(scope="module")
def faulty(shared):
    """A milter that fails where faults/sitecustomize.py says."""
    path = ":".join(filter(None, [str(FAULTS), os.environ.get("PYTHONPATH")]))
    milter = shared(command=("env", f"PYTHONPATH={path}", *program()))
    assert "sitecustomize" not in milter.logfile.path.read_text()
    return milter


@pytest.fixture
def mta(faulty):
    faulty.logfile.mark()
    with Mta(faulty.address) as connection:
        connection.connect()
        yield connection


SENDERS = {
    "raise": "injected at the end",
    "add": "TypeError|AttributeError",
    "delete": "UnicodeEncodeError",
    "header": "TypeError",
}


@pytest.mark.parametrize("kind", SENDERS)
def test_fault_at_the_end_of_the_message(faulty, mta, kind):
    result = mta.message([HELP, ALICE], HAM, f"<{kind}@x.example>")
    assert result.answer.startswith("451 4.3.0 ")
    # What is done of a message that is refused does not matter, but the order always holds.
    kinds = [edit[0] for edit in result.edits]
    assert "add" not in kinds[kinds.index("delete") :] if "delete" in kinds else True
    faulty.wait_log(f"(?m)^error: .*({SENDERS[kind]})")
    assert not faulty.lines("rerouted")
    _serves(mta)


@pytest.mark.parametrize("recipients", [["boom"], ["boom", "help"], ["help", "boom", "alice"]])
def test_fault_at_a_recipient(faulty, mta, recipients):
    """No answer of ours is read there (doc/postfix-milter.md 5.9): it comes later."""
    result = mta.message([f"<{name}@solarmora.com>" for name in recipients], HAM)
    assert result.answer.startswith("451 4.3.0 ")
    assert result.edits == ()
    assert len(faulty.lines("error: ")) == 1
    _serves(mta)


def test_fault_at_the_sender(mta):
    """libmilter answers nothing more of a message once MAIL has failed unheard."""
    result = mta.message([HELP, ALICE], HAM, "<boom@x.example>")
    assert result.answer.startswith("451 4.3.0 ")
    _serves(mta)


def test_a_fault_in_a_message_given_up_is_forgotten(mta):
    mta.mail()
    mta.rcpt("<boom@solarmora.com>")
    mta.abort()
    _serves(mta)


def test_faults_do_not_hurt_other_sessions(faulty, mta):
    with Mta(faulty.address) as other:
        other.connect()
        other.mail()
        other.rcpt(HELP)
        mta.message([HELP], HAM, "<raise@x.example>")
        mta.message(["<boom@solarmora.com>"], HAM)
        other.rcpt(ALICE)
        assert other.finish(HAM).of("delete") == [("help@solarmora.com",)]


def test_a_log_line_holds_no_line_break_of_the_client(faulty, mta):
    mta.mail("<raise@x.example>")
    mta.rcpt('<"boom\\\nforged: rerouted"@solarmora.com>', normal="boom@x\nforged: rerouted")
    assert mta.finish(HAM).answer[:3] == "451"
    assert not [line for line in faulty.log().splitlines() if line.startswith("forged")]


def _serves(mta):
    assert mta.message([ALICE], HAM).answer == "accept"
    assert mta.message([HELP, ALICE], HAM).of("delete") == [("help@solarmora.com",)]
