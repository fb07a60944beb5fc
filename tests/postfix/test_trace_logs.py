"""Where ``crm-milter trace`` finds the log of a real Postfix: files of every kind, the journal."""

import bz2
import gzip
import lzma
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tracing import ANNA, BEGIN, HAM, Trace, lab, shared, steps, trace

from crm_milter.cli import main as cli
from crm_milter.trace import sources as logsource
from lab.whole import Lab

__all__ = ["lab", "shared", "trace"]  # fixtures


@pytest.mark.parametrize(
    ("suffix", "packed"),
    [
        (".1", bytes),
        (".2.gz", gzip.compress),
        ("-20261122.bz2", bz2.compress),
        (".20261122-120000.xz", lzma.compress),
    ],
)
def test_a_message_over_rotated_logs_is_found_by_itself(
    lab: Lab,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    suffix: str,
    packed: Callable[[bytes], bytes],
) -> None:
    """Its beginning is in the rotated file, its end in the live one; maillog_file names that."""
    monkeypatch.setattr(logsource, "has_journal", lambda: False)
    sent = lab.send(ANNA, ["<sales@solarmora.com>"], HAM)
    lab.postfix.wait_log(f"{sent.queue_id}: removed")
    live = lab.postfix.maillog.path
    lines = live.read_bytes().splitlines(keepends=True)
    cut = next(n for n, line in enumerate(lines) if b"queue active" in line)
    rotated = live.with_name(live.name + suffix)
    rotated.write_bytes(packed(b"".join(lines[:cut])))
    os.truncate(live, 0)
    with live.open("ab") as log:
        log.writelines(lines[cut:])
    directory = ["--config-directory", str(lab.postfix.config)]
    try:
        assert cli.main(["trace", sent.queue_id, *directory]) == 0
    finally:
        rotated.unlink()
    told = steps(capsys.readouterr().out)
    assert told[1] == BEGIN[0]
    assert told[-1] == "removed from the queue"


def test_a_file_that_was_rotated_away_long_ago_is_not_read(tmp_path: Path) -> None:
    live, old = tmp_path / "mail.log", tmp_path / "mail.log.9.gz"
    live.touch()
    old.write_bytes(b"not looked at")
    os.utime(old, (0, 0))
    now = logsource.datetime.now(logsource.UTC)
    assert logsource.with_rotated(live, now) == [live]


def test_a_pipe(lab: Lab, trace: Trace) -> None:
    """As of ``--log <(zcat ...)``: it can be read only once, and is read several times."""
    lab.send(ANNA, ["<sales@solarmora.com>"], HAM)
    reading, writing = os.pipe()
    os.write(writing, lab.postfix.maillog.path.read_bytes())
    os.close(writing)
    status, text = trace("sales@crm.example", logs=(Path(f"/dev/fd/{reading}"),))
    os.close(reading)
    assert status == 0
    assert "removed from the queue" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file or directory"),
        (b"\x28\xb5\x2f\xfd\0\0garbage", "zstd"),
        (b"\x1f\x8bnot gzip", "unknown compression method"),
        (b"\xfd7zXZ\0garbage", "corrupt input data"),
    ],
)
def test_files_that_cannot_be_read(
    trace: Trace, tmp_path: Path, content: bytes | None, said: str
) -> None:
    path = tmp_path / "mail.log.1"
    if content is not None:
        path.write_bytes(content)
    status, text = trace("171EB2103A4", logs=(path,))
    assert status == 2
    assert f"{path}: " in text
    assert said in text


def test_a_file_that_is_still_being_compressed(lab: Lab, trace: Trace, tmp_path: Path) -> None:
    lab.send(ANNA, ["<sales@solarmora.com>"], HAM)
    path = tmp_path / "mail.log.1.gz"
    path.write_bytes(gzip.compress(lab.postfix.maillog.path.read_bytes() + os.urandom(9999))[:-99])
    assert trace("sales@crm.example", logs=(path,))[0] in (0, 1)


JOURNALCTL = """#!/bin/sh
# Stands in for journalctl: what it was asked, and the lines that --grep would leave.
echo "$@" >>{asked}
for word; do case $word in --grep=*) pattern=${{word#--grep=}};; esac; done
exec grep -iE "${{pattern:-.}}" {lines}
"""


def test_the_journal(
    lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where neither maillog_file nor syslog has a file; our lines are there under our unit."""
    sent = lab.send(ANNA, ["<sales@solarmora.com>"], HAM)
    lines, asked = tmp_path / "lines", tmp_path / "asked"
    theirs = lab.postfix.maillog.path.read_text()
    text = re.sub(r"(?m)^\w+ +\d+ (\S+) ", r"2026-11-22T\1.123456+0000 ", theirs)
    ours = f"2026-11-22T00:00:00.000001+0000 mail crm-milter[7]: {sent.log[0]}\n"
    lines.write_text(text + ours)
    command = tmp_path / "journalctl"
    command.write_text(JOURNALCTL.format(asked=asked, lines=lines))
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(logsource, "has_journal", lambda: True)
    monkeypatch.setattr(logsource, "_own_file", lambda _directory: None)
    monkeypatch.setattr(logsource, "PLACES", ())
    for what in (sent.queue_id, "Sales@solarmora.com"):
        assert cli.main(["trace", what]) == 0
        told = steps(capsys.readouterr().out)
        assert told[1:3] == BEGIN
        assert told[3].startswith("crm-milter: rerouted: to=<sales@solarmora.com>")
        assert told[-1] == "removed from the queue"
    first = asked.read_text().splitlines()[0]
    assert "--since=@" in first
    assert "SYSLOG_FACILITY=2 + _SYSTEMD_UNIT=crm-milter.service" in first


def test_a_journal_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = tmp_path / "journalctl"
    command.write_text("#!/bin/sh\necho Failed to search journal: no PCRE2 >&2\nexit 1\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(logsource, "has_journal", lambda: True)
    monkeypatch.setattr(logsource, "_own_file", lambda _directory: None)
    monkeypatch.setattr(logsource, "PLACES", ())
    assert cli.main(["trace", "171EB2103A4"]) == 2
    said = "crm-milter: journalctl: failed to search journal: no pcre2\n"
    assert capsys.readouterr().err == said


def test_no_log_at_all(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(logsource, "has_journal", lambda: False)
    monkeypatch.setattr(logsource, "_own_file", lambda _directory: None)
    monkeypatch.setattr(logsource, "PLACES", ("/nonexistent",))
    assert cli.main(["trace", "171EB2103A4"]) == 2
    assert capsys.readouterr().err == (
        "crm-milter: no mail log found (tried /nonexistent and the journal); use --log\n"
    )


def test_many_messages_and_since(trace: Trace, tmp_path: Path) -> None:
    """More queue ids than are sought one by one, over the ends of chunks, and a time."""
    log = tmp_path / "mail.log"
    with log.open("w") as out:
        for number in range(20_000):
            day = 10 + number % 10
            begin = f"2026-11-{day}T00:00:00+00:00 mx postfix/qmgr[1]: 4{number:08X}Z: "
            out.write(f"{begin}from=<a{number % 97}@x.example>, size=1, nrcpt=1 (queue active)\n")
            out.write(f"{begin}removed\n")
    status, text = trace("a7@x.example", "--limit", "500", logs=(log,))
    assert status == 0
    assert text.count("removed from the queue") == len(range(7, 20_000, 97))
    text = trace("a7@x.example", "--limit", "500", "--since", "2026-11-19T00:00Z", logs=(log,))[1]
    assert text.count("2026-11-19") == 2 * text.count("queued") > 0
    assert "2026-11-18" not in text
