"""``crm-milter reload``: the signal to the running service, and its answer."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from crm_milter.config import standing
from crm_milter.wording import counted

_TIMEOUT = 60.0  # seconds; a long file and its workers take some
_POLL_INTERVAL = 0.05


def reload(show: Callable[[str], None], say: Callable[[str], None]) -> bool:
    """Have the service read its configuration; return whether that is in force now."""
    before = standing.read()
    if before is None or not _is_its_own(before.pid):
        say("crm-milter is not running as a service; send SIGHUP to the process instead")
        return False
    os.kill(before.pid, signal.SIGHUP)
    after = _answer(before)
    if after is None:
        say(f"no answer within {_TIMEOUT:g} seconds; see the log of crm-milter")
        return False
    for problem in after.problems:
        say(problem.removeprefix("error: "))
    if not after.problems:
        show(f"reloaded, {counted(after.rules, 'rule')}")
    return not after.problems


def _answer(before: standing.Standing) -> standing.Standing | None:
    deadline = time.monotonic() + _TIMEOUT
    while time.monotonic() < deadline:
        now = standing.read()
        if now and (now.answered > before.asked or now.pid != before.pid):
            return now
        time.sleep(_POLL_INTERVAL)
    return None


def _is_its_own(pid: int) -> bool:
    """Tell whether the process is that of the user who wrote its number.

    Only root could signal another. In the sandbox of the unit no other process is seen in /proc.
    """
    try:
        if os.geteuid() == 0:
            return Path(f"/proc/{pid}").stat().st_uid == standing.path().stat().st_uid
        os.kill(pid, 0)
    except OSError:
        return False
    return True
