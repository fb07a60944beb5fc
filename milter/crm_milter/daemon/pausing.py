"""Says in the log when a rule is paused, and when that has ended."""

import time
from pathlib import Path

from crm_milter.config import paused
from crm_milter.config.paused import Pause
from crm_milter.log import Log


class PauseLog:
    """Looks at the pauses from time to time."""

    def __init__(self, directory: Path | None, log: Log) -> None:
        self._directory = directory
        self._log = log
        self._active: dict[str, Pause] = {}

    def look(self) -> None:
        """Say what has begun or ended since the last look."""
        if self._directory is None:
            return
        now = time.time()
        found = paused.read(self._directory)
        active = {rule: pause for rule, pause in found.items() if now < pause.until}
        for rule, pause in active.items():
            if self._active.get(rule) != pause:
                self._log(f"warning: {begun(rule, pause)}")
        for rule in self._active.keys() - active.keys():
            waiting = paused.held(self._directory, rule) if rule in found else {}
            more = f"; release held mail: crm-milter resume {rule}" if waiting else ""
            self._log(f'{"warning: " if more else ""}the pause of rule "{rule}" has ended{more}')
        self._active = active


def begun(rule: str, pause: Pause) -> str:
    """Return the words for a pause."""
    until = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(pause.until))
    why = f" ({pause.why})" if pause.why else ""
    what = "held" if pause.hold else "left"
    return f'rule "{rule}" is paused until {until}{why}: its mail is {what}'
