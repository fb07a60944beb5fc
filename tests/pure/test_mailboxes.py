"""Old mail is read whole or as far as it goes: mbox, Maildir, compressed, damaged, from a pipe."""

import bz2
import gzip
import io
import lzma
import os
import random
import resource
import subprocess
import sys
import time

import pytest

from crm_milter.dryrun import mailboxes
from crm_milter.dryrun.envelopes import envelope
from crm_milter.dryrun.mailboxes import messages

HELP = ["help@s.example"]
STAMP = b"From joe@x.example Sat Nov 28 17:29:13 2026\n"


def mail(number: int, body: bytes = b"hello\n") -> bytes:
    return b"Subject: %d\nTo: help@solarmora.com\n\n" % number + body


@pytest.fixture
def read(tmp_path):
    """Write a file and read it: where each message is, its header and size, and what is said."""

    def read(data: bytes, name: str = "box"):
        (tmp_path / name).write_bytes(data)
        said: list[str] = []
        found = list(messages(str(tmp_path / name), said.append))
        return found, [each.replace(f"{tmp_path}/", "") for each in said]

    return read


def subjects(found):
    return [each.header.partition(b"\n")[0] for each in found]


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n\n\n",
        b"one\n",
        b"From here on\n\nFrom the start, it said\nFrom x\n",
        b">From joe@x.example Sat Nov 28 17:29:13 2026\n",
        b"no empty line above:\nFrom joe@x.example Sat Nov 28 17:29:13 2026\n",
        b"x" * 300_000 + b"\n",
        b"From: joe@x.example\nSubject: quoted\n\nFrom\n\nFrom \n",
        b"\0\xff\n\n",
        b"no end of line",
    ],
)
def test_the_messages_of_an_mbox_file(read, body, end):
    parts = [mail(number, body) for number in range(5)]
    box = b"".join(STAMP + each + b"\n\n" for each in parts).replace(b"\n", end)
    found, said = read(box)
    assert said == []
    assert [each.where.rpartition(":")[2] for each in found] == ["1", "2", "3", "4", "5"]
    assert subjects(found) == [b"Subject: %d" % n + end[:-1] for n in range(5)]
    assert {each.stamp for each in found} == {"Sat Nov 28 17:29:13 2026"}
    length = len((parts[0] + b"\n").replace(b"\n", end))
    assert [abs(each.size - length) <= len(end) for each in found] == [True] * 5


@pytest.mark.parametrize("size", [1, 7, 100, 1023, 1024, 1025, 4096])
def test_wherever_a_chunk_ends(read, monkeypatch, size):
    monkeypatch.setattr(mailboxes, "_CHUNK", size)
    dice = random.Random(size)
    parts = [mail(n, b"From afar\n\n" * dice.randint(0, 300)) for n in range(30)]
    found, _ = read(b"".join(STAMP + each + b"\n" for each in parts))
    assert subjects(found) == [b"Subject: %d" % n for n in range(30)]


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_mbox_file(read, pack):
    box = b"".join(STAMP + mail(n, os.urandom(3000)) + b"\n\n" for n in range(50))
    found, said = read(pack(box))
    assert (len(found), said) == (50, [])


def test_a_compressed_file_that_is_cut_is_read_as_far_as_it_goes(read):
    box = b"".join(STAMP + mail(n, os.urandom(3000).hex().encode()) + b"\n\n" for n in range(500))
    packed = gzip.compress(box)
    found, said = read(packed[: len(packed) // 2])
    assert 200 < len(found) < 260
    assert len(said) == 1
    assert said[0].startswith("box: damaged, read only as far as that (Compressed file ended")


def test_a_single_message_and_what_is_no_mailbox(read):
    assert [(each.where.rpartition("/")[2], each.size) for each in read(mail(1))[0]] == [
        ("box", 41)
    ]
    assert read(b"") == ([], [])
    assert read(b"\n\n") == ([], [])
    for data in (b"\x89PNG\r\n", b"just text\n", b"\0" * 10, b"{}"):
        assert read(data) == ([], ["box: neither a mailbox nor a message"])


@pytest.mark.parametrize("above", [b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n\n", b"\n"])
def test_what_an_editor_leaves_above_the_first_line(read, above):
    for first in (STAMP, b""):
        found, said = read(above + first + mail(1))
        assert (subjects(found), said) == ([b"Subject: 1"], [])


def test_a_header_without_an_end_is_not_kept_whole(read):
    found, _ = read(STAMP + b"Subject: x\n" + b"X-Long: y\n" * 300_000)
    assert len(found[0].header) == 1 << 20
    assert found[0].size == 11 + 10 * 300_000


def test_damaged_messages_do_not_end_the_mailbox(read):
    bad = [b"", b"\n", b"no header\n", b"A: b", b": x\n\n", b"\xff\xfe\n\n", b"A:\n" * 5]
    box = b"".join(STAMP + each + b"\n\n" + STAMP + mail(7) + b"\n" for each in bad)
    found, said = read(box)
    assert said == []
    assert subjects(found).count(b"Subject: 7") == len(bad)


def test_a_maildir(tmp_path):
    for name in ("cur", "new", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "cur/1767600001.1.host:2,S").write_bytes(mail(1))
    (tmp_path / "new/1767600000.2.host").write_bytes(mail(2, b"x" * 100_000))
    (tmp_path / "cur/1767600002.3.host,S=44:2,").write_bytes(gzip.compress(mail(3)))
    (tmp_path / "cur/1767600003.4.host:2,").write_bytes(gzip.compress(mail(4)))
    (tmp_path / "cur/.hidden").write_bytes(mail(9))
    (tmp_path / "tmp/1767600000.5.host").write_bytes(mail(9))
    (tmp_path / "cur/1767600004.6.host:2,").symlink_to("/nowhere")
    (tmp_path / "cur/folder").mkdir()
    said: list[str] = []
    found = list(messages(str(tmp_path), said.append))
    assert subjects(found) == [b"Subject: 2", b"Subject: 1", b"Subject: 3", b"Subject: 4"]
    assert [each.size for each in found] == [100_035, 41, 44, 41]
    assert found[0].stamp == "1767600000"
    assert len(said) == 1
    assert "no such file or directory" in said[0]


def test_the_folders_in_a_maildir_are_named_as_not_read(tmp_path):
    for folder in (tmp_path, tmp_path / ".Sent", tmp_path / ".Junk.2026"):
        (folder / "cur").mkdir(parents=True)
        (folder / "cur/1.a").write_bytes(mail(1))
    (tmp_path / ".cache").mkdir()
    said: list[str] = []
    assert len(list(messages(str(tmp_path), said.append))) == 1
    assert said == [f"{tmp_path}: 2 folders in it not read (.Junk.2026, .Sent): name each"]


def test_a_directory_that_is_no_maildir(tmp_path):
    with pytest.raises(OSError, match="neither cur nor new"):
        list(messages(str(tmp_path), print))


@pytest.mark.parametrize(
    ("header", "sender", "recipients", "guessed"),
    [
        ("Return-Path: <a@x>\nX-Original-To: help@s.example", "a@x", HELP, False),
        ("Return-Path: <>\nDelivered-To: help@s.example", "", HELP, False),
        ("X-Original-To: help@s.example\nDelivered-To: it@s.example", "", HELP, False),
        ("Delivered-To: it@s.example\nDelivered-To: help@s.example", "", HELP, False),
        ("Envelope-To: <help@s.example>", "", HELP, False),
        ("Delivered-To: it@s.example\nTo: Help <help@s.example>", "", HELP, True),
        ("To: x@y.example\nCc: a@b.example, help@s.example", "", HELP, True),
        ("To: help@s.example, Help Desk <HELP@s.example>", "", [*HELP, "HELP@s.example"], True),
        ("To:\n x@y.example,\n\thelp@s.example", "", HELP, True),
        ("From: Joe <joe@x.example>\nTo: help@s.example", "joe@x.example", HELP, True),
        ("Delivered-To: it@s.example\nTo: it@s.example", "", ["it@s.example"], False),
        ("Subject: To: help@s.example", "", [], False),
        ("return-path : <a@x>\nx-original-to:help@s.example", "a@x", HELP, False),
        ("", "", [], False),
    ],
)  # fmt: skip
def test_the_envelope(header, sender, recipients, guessed):
    old = mailboxes.OldMail("x", header.encode(), 0)
    found = envelope(old, lambda address: address.lower() == "help@s.example")
    assert (found.sender, list(found.recipients), found.guessed) == (sender, recipients, guessed)


@pytest.mark.parametrize(
    ("header", "stamp", "seconds"),
    [
        ("Received: a; Sat, 28 Nov 2026 17:00:00 +0000\nDate: 1 Jan 2020", "", 1795885200),
        ("Received: from a\n\tby b; Sat, 28 Nov 2026 18:00:00 +0100 (CET)", "", 1795885200),
        ("Date: Sat, 28 Nov 2026 17:00:00 GMT", "", 1795885200),
        ("Date: Sat, 28 Nov 2026 17:00:00 GMT", "1767600000", 1767600000),
        ("Subject: x", "Sat Nov 28 17:00:00 2026", 1795885200),
        ("Received: from a by b; not a date", "", None),
        ("Date: Sat, 99 Nov 99999999999 17:00:00 GMT", "", None),
        ("Date: Thu, 01 Jan 1970 00:00:00 +0000", "", None),
        ("Received: x; " + "1 " * 10_000, "", None),
    ],
)  # fmt: skip
def test_the_time(header, stamp, seconds):
    assert envelope(mailboxes.OldMail("x", header.encode(), 0, stamp), bool).time == seconds


def test_memory_does_not_grow_with_the_mail(tmp_path):
    config = tmp_path / "crm-milter.yaml"
    config.write_text(
        "spam: rspamd\nrules: [{name: a, match: help@solarmora.com, replace_with: a@crm.example}]\n"
    )
    peaks = []
    for count in (5000, 40_000):
        code = f"""
import sys, resource
from crm_milter.cli.main import main
status = main(["replay", "--config", {str(config)!r}, "-"])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
        box = b"".join(
            STAMP
            + b"Return-Path: <%d@x.example>\nMessage-ID: <%d@x.example>\n" % (n, n)
            + mail(n)
            + b"\n"
            for n in range(count)
        )
        done = subprocess.run(
            [sys.executable, "-c", code], input=box, capture_output=True, check=True
        )
        assert b"%d messages" % count in done.stdout
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 8 << 10  # kilobytes: the tables that are bounded


def test_nothing_but_the_header_of_a_huge_message_is_kept():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = 300 << 20

    class Huge(io.RawIOBase):
        left = size

        def readable(self):
            return True

        def readinto(self, buffer):
            is_first = self.left == size
            data = STAMP + mail(1) if is_first else b"0123456\n" * (len(buffer) // 8)
            data = data[: min(len(buffer), self.left)]
            self.left -= len(data)
            buffer[: len(data)] = data
            return len(data)

    found = list(mailboxes._stream(io.BufferedReader(Huge()), "huge", print, lambda _: None))
    assert found[0].size == size - len(STAMP)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 << 10


def test_a_long_line_like_a_separator_takes_no_time(read):
    began = time.process_time()
    found, _ = read(STAMP + mail(1) + b"\nFrom " + b"11:11 " * 20_000 + b"\n\n" + STAMP + mail(2))
    assert time.process_time() - began < 2
    assert len(found) == 2
