"""``crm-milter trace`` on files as an administrator names them: any order, any state, any frame."""

import gzip
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from tracing import ANNA, HAM, Trace, lab, shared, trace

from crm_milter.cli import main as cli
from lab.base import wait_for
from lab.whole import Lab

__all__ = ["lab", "shared", "trace"]  # fixtures

NONE_FAILS = "no failing targets\n"


@pytest.fixture
def logs(lab: Lab, tmp_path: Path) -> Path:
    """Two rotated files: in the older one a delivery was deferred, in the newer one it arrived."""
    lab.sink.defer("sales@crm.example")
    lab.send(ANNA, ["<sales@solarmora.com>"], HAM, wait=False)
    lab.postfix.wait_log("status=deferred")
    live, ours = lab.postfix.maillog.path, lab.milter.logfile.path
    (tmp_path / "mail.log.1").write_bytes(live.read_bytes() + ours.read_bytes())
    os.truncate(live, 0)
    lab.sink.accept()
    lab.postfix.flush()
    wait_for("the end of the message", lambda: b": removed" in live.read_bytes())
    shutil.copy(live, tmp_path / "mail.log")
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = cli.main(["trace", *map(str, arguments)])
    said = capsys.readouterr()
    return status, said.out, said.err


@pytest.mark.parametrize(
    "names",
    [
        ("mail.log", "mail.log.1"),
        ("mail.log.1", "mail.log"),
        ("mail.log", "mail.log.1", "mail.log"),
    ],
)
def test_any_order_of_files(
    logs: Path, capsys: pytest.CaptureFixture[str], names: tuple[str, ...]
) -> None:
    paths = [logs / name for name in names]
    assert run(capsys, "--failing", "--log", *paths) == (0, NONE_FAILS, "")
    status, out, _ = run(capsys, "sales@solarmora.com", "--json", "--log", *paths)
    (message,) = json.loads(out)["messages"]
    assert status == 0
    assert [each["status"] for each in message["deliveries"]] == ["deferred", "sent"]


def test_a_copy_of_a_file_counts_once(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As while logrotate compresses: mail.log.1 and mail.log.1.gz."""
    packed = logs / "mail.log.1.gz"
    packed.write_bytes(gzip.compress((logs / "mail.log.1").read_bytes()))
    names = [logs / "mail.log", logs / "mail.log.1", packed]
    status, out, _ = run(capsys, "sales@solarmora.com", "--json", "--log", *names)
    (message,) = json.loads(out)["messages"]
    assert status == 0
    assert len(message["decisions"]) == 1
    assert [each["status"] for each in message["deliveries"]] == ["deferred", "sent"]


def test_zstandard(logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = logs / "mail.log.1.zst"
    path.write_bytes(zstandard.compress((logs / "mail.log.1").read_bytes()))
    (logs / "mail.log.1").unlink()
    status, out, _ = run(capsys, "--failing", "--log", path)
    assert status == 1
    assert out.startswith("<sales@crm.example>: 1 deferred, 0 sent\n")


def directory(path: Path) -> None:
    path.mkdir()


def written(octets: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(octets) and None


UNREADABLE = [
    (directory, "is a directory"),
    (lambda _: None, "no such file or directory"),
    (lambda path: path.symlink_to("nowhere"), "no such file or directory"),
    (lambda path: path.symlink_to(path.name), "too many levels"),
    (written(b"\x1f\x8bnot gzip"), "unknown compression method"),
    (written(gzip.compress(b"x\n" * 9999)[:-40]), "compressed file ended"),
    (written(b"BZh9damaged"), "invalid data stream"),
    (written(b"\xfd7zXZ\0garbage"), "corrupt input data"),
    (written(b"\x28\xb5\x2f\xfd\0\0garbage"), "zstd"),
    (written(b"LPKSHHRH" + bytes(99)), "is a file of the journal; try --log <(journalctl --file"),
    (written(bytes(range(256)) * 99), "no line of Postfix or crm-milter in "),
    (written(b"\x89PNG\r\n\x1a\n" + b"\xff" * 3_000_000), "no line of Postfix or crm-milter in "),
    (written("Nov 22 03:52:34 mail x\n".encode("utf-16")), "no line of Postfix or crm-milter in "),
    (written(b"Nov 22 03:52:34 mail CRON[7]: (root) CMD (true)\n"), "no line of Postfix or "),
    (written(b"unrouted_to: it@solarmora.com\nrules: []\n"), "no line of Postfix or crm-milter"),
]


@pytest.mark.parametrize(("make", "said"), UNREADABLE)
def test_what_cannot_be_read_is_skipped(
    logs: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], None], said: str
) -> None:
    bad = logs / "mail.log.2"
    make(bad)
    names = [logs / "mail.log", bad, logs / "mail.log.1"]
    status, out, err = run(capsys, "--failing", "--log", *names)
    assert (status, out) == (0, NONE_FAILS)
    assert err.startswith("crm-milter: warning: ")
    assert str(bad) in err
    assert said in err


@pytest.mark.parametrize(("make", "said"), [*UNREADABLE, (written(b""), "no line in the log")])
@pytest.mark.parametrize("options", [["--failing"], ["--failing", "--json"]])
def test_nothing_that_can_be_read(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    make: Callable[[Path], None],
    said: str,
    options: list[str],
) -> None:
    path = tmp_path / "mail.log"
    make(path)
    status, out, err = run(capsys, *options, "--log", path)
    assert (status, out) == (2, "")
    assert said in err


def test_a_file_that_may_not_be_read(
    logs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read all, so this is a file that the kernel refuses to everybody."""
    refused = Path("/proc/self/mem")
    status, out, err = run(capsys, "--failing", "--log", refused)
    assert (status, out) == (2, "")
    assert "/proc/self/mem" in err


@pytest.mark.parametrize("cut", [40, 4000])
def test_a_truncated_gz_is_read_as_far_as_it_goes(
    logs: Path, capsys: pytest.CaptureFixture[str], cut: int
) -> None:
    path = logs / "mail.log.1.gz"
    noise = b"".join(b"%s\n" % os.urandom(30).hex().encode() for _ in range(9999))
    path.write_bytes(gzip.compress((logs / "mail.log.1").read_bytes() + noise)[:-cut])
    status, out, err = run(capsys, "--failing", "--log", path)
    assert status == 1
    assert out.startswith("<sales@crm.example>: 1 deferred, 0 sent\n")
    assert err.count("read only as far as that") == 1


FRAMES = {
    "compose": lambda line: f"postfix-1  | {line}",
    "RFC 5424": lambda line: re.sub(
        r"^(\w+ +\d+ \S+) (\S+) ([^\s\[]+)\[(\d+)\]: ",
        r"<22>1 2026-11-22T10:00:00Z \2 \3 \4 - - ",
        line,
    ),
    "priority": lambda line: f"<22>{line}",
    "json-file": lambda line: (
        json.dumps({"log": f"{line}\n", "time": "2026-11-22T10:00:00Z"})
        .replace("<", "\\u003c")
        .replace(">", "\\u003e")
    ),
    "CRI": lambda line: f"2026-11-22T10:00:00.000000001Z stdout F {line}",
    "CRI, in parts": lambda line: (
        f"2026-11-22T10:00:00.1Z stdout P {line[:90]}\n2026-11-22T10:00:00.1Z stdout F {line[90:]}"
    ),
    "journalctl json": lambda line: json.dumps(
        {"MESSAGE": list(line.partition("]: ")[2].encode()) or line, "_PID": "7"}
    ),
    "journalctl export": lambda line: (
        f"__CURSOR=s=1\n_PID=7\nMESSAGE={line.partition(']: ')[2] or line}\n"
    ),
    "journalctl verbose": lambda line: (
        "Sun 2026-11-22 10:00:00.123456 UTC [s=1;i=2]\n    _PID=7\n"
        f"    MESSAGE={line.partition(']: ')[2] or line}"
    ),
}


@pytest.mark.parametrize("frame", FRAMES.values(), ids=FRAMES.keys())
def test_frames(
    lab: Lab, capsys: pytest.CaptureFixture[str], tmp_path: Path, frame: Callable[[str], str]
) -> None:
    lab.sink.refuse("support@crm.example")
    lab.send(ANNA, ["<help@solarmora.com>"], HAM)
    theirs = lab.postfix.maillog.path.read_text().splitlines()
    ours = lab.milter.logfile.path.read_text().splitlines()
    path = tmp_path / "log"
    path.write_text("".join(frame(line) + "\n" for line in [*ours, *theirs]))
    status, out, err = run(capsys, "--failing", "--log", path)
    assert (status, err) == (1, "")
    assert out.startswith("<support@crm.example>: 1 bounced, 0 sent")
    assert "550 5.1.1 no such address" in out


def test_lines_that_postfix_cut(lab: Lab, trace: Trace) -> None:
    """A reply of several lines, each as long as SMTP allows: the line ends without its bracket."""
    lab.sink.refuse("support@crm.example", "550 5.1.1 " + "no such address " * 200)
    lab.send(ANNA, ["<help@solarmora.com>"], HAM)
    line = lab.postfix.wait_log("status=bounced")
    assert not line.rstrip().endswith(")")
    status, text = trace("--failing")
    assert status == 1
    assert text.startswith("<support@crm.example>: 1 bounced, 0 sent")


def test_a_log_of_ours_alone_tells_nothing(lab: Lab, trace: Trace) -> None:
    lab.send(ANNA, ["<sales@solarmora.com>"], HAM)
    status, text = trace("--failing", logs=(lab.milter.logfile.path,))
    assert status == 2
    assert "no line of Postfix in the log" in text


def test_a_log_of_postfix_alone_is_said(lab: Lab, trace: Trace) -> None:
    lab.send(ANNA, ["<sales@solarmora.com>"], HAM)
    status, text = trace("--failing", logs=(lab.postfix.maillog.path,))
    assert status == 0
    assert "warning: no decision of crm-milter in " in text


@pytest.mark.parametrize(
    "words",
    [
        "WHAT --log A B",
        "--log A WHAT",
        "--log A B WHAT",
        "--log=A --log=B WHAT",
        "--log A --log B WHAT",
        "--log A --log B WHAT --limit 5",
        "--limit 5 --log A B WHAT",
        "--log A WHAT --log B",
        "--log A B -- WHAT",
        "--since 1h WHAT --log A",
    ],
)
@pytest.mark.parametrize("kind", ["id", "address"])
def test_any_order_of_arguments(
    lab: Lab, capsys: pytest.CaptureFixture[str], words: str, kind: str
) -> None:
    sent = lab.send(ANNA, ["<sales@solarmora.com>"], HAM)
    maillog = lab.postfix.maillog.path
    wait_for("the delivery", lambda: f"{sent.queue_id}: removed" in maillog.read_text())
    values = {
        "WHAT": sent.queue_id if kind == "id" else "sales@crm.example",
        "A": str(lab.postfix.maillog.path),
        "B": str(lab.milter.logfile.path),
        "--log=A": f"--log={lab.postfix.maillog.path}",
        "--log=B": f"--log={lab.milter.logfile.path}",
    }
    status, out, err = run(capsys, *(values.get(word, word) for word in words.split()))
    assert (status, err) == (0, "")
    assert "removed from the queue" in out


@pytest.mark.parametrize(
    "spelling", ["ID", "ID*", "ID!", "ID:", "<sales@solarmora.com>", "mailto:Sales@Solarmora.COM",
                 "Sales <SALES@solarmora.com>", '"sales"@solarmora.com', "sales@solarmora.com.",
                 "<@relay.example:sales@solarmora.com>"]
)  # fmt: skip
def test_spellings(lab: Lab, trace: Trace, spelling: str) -> None:
    sent = lab.send(ANNA, ["<sales@solarmora.com>"], HAM)
    status, text = trace(spelling.replace("ID", sent.queue_id))
    assert status == 0
    assert text.count("removed from the queue") == 1
