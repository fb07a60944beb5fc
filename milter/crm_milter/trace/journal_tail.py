"""The journal of systemd, followed by journalctl from a cursor that outlives the process.

By journalctl instead of python3-systemd: every host with a journal has it, it adds no dependency,
and a damaged journal can only end that process. Entries are passed on in the format of syslog.
"""

import json
import os
import subprocess
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from crm_milter.trace.file import LogError
from crm_milter.trace.sources import journal_matches
from crm_milter.wording import why

_CHUNK = 1 << 18
_END_OF_TIME = 1e11  # seconds; journalctl knows no later ones
_LONGEST = 1 << 20  # bytes of an entry; a longer one is skipped
_FIELDS = "MESSAGE,SYSLOG_IDENTIFIER,SYSLOG_PID,_PID,_HOSTNAME"

Position = dict[str, Any]


def is_place(value: Any) -> bool:
    """Tell whether this is a position, or the lack of one: a file may have been damaged."""
    if isinstance(value, dict) and "cursor" in value:
        return isinstance(value["cursor"], str) and value["cursor"].isprintable()
    since = value.get("since") if isinstance(value, dict) else value
    return since is None or (isinstance(since, int | float) and 0 <= since < _END_OF_TIME)


class JournalTail:
    """Lines of Postfix and crm-milter, or of crm-milter alone; ``directory`` is for tests."""

    name = "the journal"

    def __init__(
        self, position: Position | None = None, *, ours_alone: bool = False, directory: str = ""
    ) -> None:
        self.position: Position = position or {"since": time.time()}
        self._matches = journal_matches(ours_alone=ours_alone)
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._rest = b""

    @staticmethod
    def is_readable() -> bool:
        """Tell whether journalctl finds a journal that this user may read."""
        command = ["journalctl", "--quiet", "--no-pager", "--lines=1", "--output=cat"]
        with suppress(OSError, subprocess.TimeoutExpired):
            return (
                subprocess.run(command, capture_output=True, timeout=10, check=False).returncode
                == 0
            )
        return False

    def lines(self) -> list[bytes]:
        """Return the next lines, none if there are no more for now; raises LogError."""
        process = self._process or self._started()
        try:
            chunk = os.read(_output(process), _CHUNK)
        except BlockingIOError:
            return []
        if not chunk:
            raise self._ended(process)
        *entries, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > _LONGEST:
            self._rest = b""
        return [line for each in entries if (line := self._line(each))]

    def close(self) -> None:
        """End journalctl."""
        process, self._process, self._rest = self._process, None, b""
        if process:
            process.kill()
            process.wait()
            for stream in (process.stdout, process.stderr):
                if stream:
                    stream.close()

    def _started(self) -> subprocess.Popen[bytes]:
        command = ["journalctl", "--quiet", "--no-pager", "--all", "--follow", "--no-tail"]
        # Else it would begin with this boot.
        command.append("--boot=all")
        command += ["--output=json", f"--output-fields={_FIELDS}"]
        if "cursor" in self.position:
            command.append(f"--after-cursor={self.position['cursor']}")
        else:
            command.append(f"--since=@{self.position['since']:.6f}")
        command += [f"--directory={self._directory}"] if self._directory else []
        # If this process is killed, it ends as well: it watches the other end of its output.
        try:
            process = subprocess.Popen(
                [*command, *self._matches],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            raise LogError(f"journalctl: {why(error)}") from error
        os.set_blocking(_output(process), False)
        self._process = process
        return process

    def _ended(self, process: subprocess.Popen[bytes]) -> LogError:
        status = process.wait()
        said = process.stderr.read(1000) if process.stderr else b""
        words = said.decode("utf-8", "replace").strip().lower()
        self.close()
        if "cursor" in self.position and "cursor" in words:  # "failed to seek to cursor"
            self.position = {"since": time.time()}
            words += "; it is read from now on"
        return LogError(f"journalctl: {words or f'exited with status {status}'}")

    def _line(self, entry: bytes) -> bytes:
        """Return an entry as a line of syslog, b"" if it is none, and note the place behind it."""
        with suppress(ValueError, KeyError, TypeError, AttributeError):
            fields = json.loads(entry)
            self.position = {"cursor": fields["__CURSOR"]}
            when = datetime.fromtimestamp(int(fields["__REALTIME_TIMESTAMP"]) / 1e6, UTC)
            message = fields["MESSAGE"]
            if isinstance(message, list):  # octets that are not UTF-8
                message = bytes(message).decode("utf-8", "replace")
            pid = fields.get("SYSLOG_PID") or fields.get("_PID") or 0
            host, program = fields.get("_HOSTNAME", "-"), fields.get("SYSLOG_IDENTIFIER", "-")
            line = f"{when:%Y-%m-%dT%H:%M:%S.%f}+00:00 {host} {program}[{pid}]: {message}"
            return line.encode("utf-8", "replace")
        return b""


def _output(process: subprocess.Popen[bytes]) -> int:
    return process.stdout.fileno() if process.stdout else -1
