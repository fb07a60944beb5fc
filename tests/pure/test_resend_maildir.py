"""``crm-milter resend`` on a Maildir in which something is wrong, and what it takes down."""

import argparse
import os
from pathlib import Path

import pytest

from crm_milter.cli.resend import resend_mail
from crm_milter.resend import record
from crm_milter.verify import probe

CONFIG = """\
unrouted_to: it@solarmora.com
dead_letters: rejected@solarmora.com
spam: rspamd
rules: [{name: support, match: help@solarmora.com, replace_with: support@crm.example}]
"""
MESSAGE = b"From: joe@customer.example\nTo: help@solarmora.com\nSubject: %d\n\nPlease help.\n"


@pytest.fixture
def sent(monkeypatch, tmp_path):
    """What Postfix was handed."""
    messages = []

    def hand_in(*arguments):
        messages.append(arguments[3])
        return probe.ServerReply("message", 250, f"2.0.0 Ok: queued as 4bXq1{len(messages)}")

    monkeypatch.setattr(probe, "hand_in", hand_in)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    return messages


@pytest.fixture
def box(tmp_path):
    for each in ("cur", "new", "tmp"):
        (tmp_path / "box" / each).mkdir(parents=True)
    for number in range(3):
        (tmp_path / f"box/new/{number}.a.b").write_bytes(MESSAGE % number)
    (tmp_path / "c.yaml").write_text(CONFIG)
    return tmp_path / "box"


def resend(messages, config):
    options = {"messages": str(messages), "config": config, "dry_run": False, "to": None}
    return resend_mail(argparse.Namespace(**options, via=("127.0.0.1", 25), config_directory=None))


def names(box):
    return sorted(str(each.relative_to(box)) for each in box.glob("[cn]*/*"))


@pytest.mark.parametrize("flags", ["T", "ST", "FST", "PT"])
def test_what_is_deleted_is_not_sent(box, sent, flags):
    (box / "new/1.a.b").rename(box / f"cur/1.a.b,S=99:2,{flags}")
    (box / "new/2.a.b").rename(box / "cur/2.T.b:2,RSt")  # t: of a mail program
    assert resend(box, box.parent / "c.yaml") == 0
    assert len(sent) == 2
    assert names(box) == ["cur/0.a.b:2,P", f"cur/1.a.b,S=99:2,{flags}", "cur/2.T.b:2,PRSt"]


def test_what_cannot_be_read_is_named_and_the_rest_is_sent(box, sent, capsys):
    (box / "new/1.a.b").unlink()
    (box / "new/1.a.b").symlink_to(box / "nowhere")
    (box / "new/1.c").mkdir()
    assert resend(box, box.parent / "c.yaml") == 1
    out, err = capsys.readouterr()
    assert len(sent) == 2
    assert out.endswith("4 messages, 2 not sent\n")
    assert f"crm-milter: {box}/new/1.a.b: no such file or directory\n" in err
    assert f"crm-milter: {box}/new/1.c: is a directory\n" in err
    assert names(box) == ["cur/0.a.b:2,P", "cur/2.a.b:2,P", "new/1.a.b", "new/1.c"]


def test_what_cannot_be_marked_is_named_and_the_rest_is_sent(box, sent, capsys):
    (box / "cur/0.a.b:2,P").mkdir()
    assert resend(box, box.parent / "c.yaml") == 1
    out, err = capsys.readouterr()
    assert len(sent) == 3
    assert out.endswith("3 messages, 1 not sent\n")
    assert f"crm-milter: {box}/new/0.a.b: cannot be marked as sent again: " in err


@pytest.mark.parametrize("folder", ["", "new"])
def test_a_message_is_marked_wherever_the_command_stands(box, sent, monkeypatch, folder):
    monkeypatch.chdir(box / folder)
    name = "0.a.b" if folder else "new/0.a.b"
    assert resend(name, box.parent / "c.yaml") == 0
    assert len(sent) == 1
    assert names(box)[0] == "cur/0.a.b:2,P"


def test_a_line_that_was_cut_costs_no_other_its_place(box, sent):
    state = box.parent / "state"
    state.mkdir()
    (state / "resent").write_text("0123456789abcdef")
    config = Path(box.parent / "c.yaml")
    message = box.parent / "message"
    message.write_bytes(MESSAGE % 1)
    assert [resend(message, config) for _ in range(2)] == [0, 0]
    assert len(sent) == 1


def test_a_full_disk_does_not_hide_what_was_sent(box, sent, capsys, monkeypatch):
    def fsync(_descriptor):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(record.os, "fsync", fsync)
    assert resend(box, box.parent / "c.yaml") == 1
    out, err = capsys.readouterr()
    assert len(sent) == 1
    assert "sent again: to=<help@solarmora.com>" in out
    assert "no space left on device" in err
