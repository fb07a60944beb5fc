"""The rules in force, and those that are to follow them: read, refused or taken over, and told."""

from crm_milter.config.build import Reload
from crm_milter.config.load import Config
from crm_milter.config.standing import Answers
from crm_milter.daemon.loading import Loaded, Loader, lasting
from crm_milter.daemon.processors import worker_count
from crm_milter.daemon.systemd import notify, reloading
from crm_milter.log import Log
from crm_milter.metrics.memory import SharedCounters
from crm_milter.wording import counted


class InForce:
    """What is served, told to the log, the metrics, systemd and ``crm-milter reload``."""

    def __init__(self, loader: Loader, loaded: Loaded, numbers: SharedCounters, log: Log) -> None:
        self._loader = loader
        self._loaded = self._candidate = loaded
        self._lasting = lasting(loaded.config)
        self._numbers = numbers
        self._log = log
        self._answers = Answers()
        numbers.loaded(loaded.in_use)

    @property
    def config(self) -> Config:
        """The configuration that is served."""
        return self._loaded.config

    def forget(self) -> None:
        """Let go of all rules, in a child that needs none."""
        vars(self).clear()

    def ask(self, times: int) -> None:
        """Note that a reload was asked for so many times."""
        self._answers.ask(times)
        self._publish()

    def has_changed(self) -> bool:
        """Tell whether the files are others than those that were read, if they are watched."""
        return self.config.reload is Reload.WATCH and self._loader.watch.has_changed()

    def read(self) -> Config:
        """Return what is to follow; raises RefusedError."""
        self._answers.begin()
        reloading()
        self._candidate = self._loader.read(had_rules=bool(self.config.policy.table.rules))
        for key, value in lasting(self._candidate.config).items():
            if value != self._lasting[key]:
                path = self._loader.path
                self._log(f"warning: {path}: {key}: changed; takes effect after a restart")
        return self._candidate.config

    def refuse(self, lines: list[str], reason: str = "") -> None:
        """Keep what is served, and tell why."""
        for line in lines:
            self._log(line)
        self._candidate = self._loaded
        self._numbers.reload_failed()
        failed = f"error: reload failed, keeping the previous rules{reason}"
        self._log(failed)
        self._answers.answer(*lines, failed)
        self._publish()
        notify("READY=1", f"STATUS=serving {self._size()}, the last reload failed")

    def taken_over(self, *, is_reload: bool) -> None:
        """Take note that what was to follow is served, and alone."""
        self._loaded = loaded = self._candidate
        self._numbers.loaded(loaded.in_use)
        self._numbers.serves_last_good(loaded.is_last_good)
        self._loader.keep(loaded)
        self._answers.answer()
        self._publish()
        state = ", the last good configuration" if loaded.is_last_good else ""
        self._log(f"{'reloaded, ' if is_reload else ''}serving {self._size()}{state}")
        notify("READY=1", f"STATUS=serving {self._size()}{state}")

    def _publish(self) -> None:
        loaded = self._loaded
        rules = len(loaded.config.policy.table.rules)
        self._answers.publish(loaded.digest, rules, is_last_good=loaded.is_last_good)

    def _size(self) -> str:
        config = self._loaded.config
        rules, workers = len(config.policy.table.rules), config.milter.workers
        return f"{counted(rules, 'rule')} with {counted(worker_count(workers), 'worker')}"
