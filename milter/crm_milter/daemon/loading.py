"""What is served: the configuration as it is, or the last good one if that is bad at a start."""

import gc
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from crm_milter.config.load import Config, load
from crm_milter.config.problems import ConfigError, Problem, Severity
from crm_milter.config.sources import Disk, key
from crm_milter.daemon import lastgood
from crm_milter.daemon.watching import Watch
from crm_milter.log import Log, error_line
from crm_milter.metrics.memory import InUse, in_use
from crm_milter.wording import why


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration; ``file_digest`` is that of the file, ``digest`` that of all files."""

    config: Config
    file_digest: str
    digest: str
    sources: Disk | None  # None for the last good one, which is kept already
    # Worked out before the fork: later it would cost a copy of all that it reads.
    in_use: InUse = field(init=False, repr=False)

    def __post_init__(self) -> None:
        told = in_use(self.file_digest, self.config.policy.table.rules, self.digest)
        object.__setattr__(self, "in_use", told)

    @property
    def is_last_good(self) -> bool:
        """Tell whether it is the last good one, since what is there now is bad."""
        return self.sources is None


class RefusedError(Exception):
    """The configuration cannot be served; ``lines`` are those of the log that say why."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__(lines)
        self.lines = lines


class Loader:
    """Reads one configuration, again and again."""

    def __init__(self, path: Path, store: lastgood.Store, log: Log) -> None:
        self.path = path
        self._store = store
        self._log = log
        self.watch = Watch()

    def saying(self, log: Log) -> "Loader":
        """Return a loader of the same that has another log from now on."""
        loader = Loader(self.path, self._store, log)
        loader.watch = self.watch
        return loader

    def at_start(self) -> Loaded:
        """Return what to serve, the last good one if need be; raises RefusedError."""
        try:
            return self.read(had_rules=False)
        except RefusedError as refused:
            kept = self._kept()
            if kept is None:
                raise
            for line in refused.lines:
                self._log(line)
            return kept

    def read(self, *, had_rules: bool) -> Loaded:
        """Return what is there now, its warnings said; raises RefusedError."""
        sources = Disk(keep=True, before=self._store.kept(self.path))
        try:
            config = load(self.path, sources)
        except ConfigError as error:
            sources.forget()
            raise RefusedError(list(map(_line, error.problems))) from error
        except Exception as fault:  # whatever it is, the mail goes on
            raise RefusedError([error_line("configuration", fault)]) from fault
        finally:
            self.watch.begin(sources.seen, sources.folders)
        if had_rules and not config.policy.table.rules:
            # More likely a file that is just being written, or a full disk, than a wish.
            reason = (
                "the file no longer contains any rules; if that is intended, restart crm-milter"
            )
            raise RefusedError([f"error: {self.path}: {reason}"])
        for problem in config.warnings:
            self._log(_line(problem))
        return Loaded(config, sources.digests[key(self.path)], sources.digest(), sources)

    def keep(self, loaded: Loaded) -> None:
        """Keep what is being served now, for a start with a bad file."""
        if loaded.sources is None:
            return
        try:
            self._store.save(self.path, loaded.sources)
        except OSError as error:
            self._log(f"warning: cannot keep the last good configuration: {why(error)}")
        finally:
            loaded.sources.forget()

    def _kept(self) -> Loaded | None:
        kept = self._store.kept(self.path)
        if kept is None:
            return None
        try:
            config = load(self.path, kept)
        except ConfigError as error:
            self._log(f"error: the last good configuration is of no use: {error.problems[0]}")
            return None
        accepted = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(kept.accepted))
        self._log(f"error: serving the last good configuration, that of {accepted}")
        return Loaded(config, kept.digest_of(self.path), kept.digest, None)


def freeze() -> None:
    """Keep the collector of children off what they share with us: a page written is copied."""
    gc.collect()
    gc.freeze()


def lasting(config: Config) -> dict[str, object]:
    """Return the keys, with their values, that only count at the start."""
    return {
        "milter.listen": config.milter.listen,
        "milter.socket_mode": config.milter.socket_mode,
        "milter.socket_group": config.milter.socket_group,
        "metrics.listen": config.metrics_listen,
    }


def _line(problem: Problem) -> str:
    """Return a problem as a line of the log, where the level comes first."""
    return f"{problem.severity.value}: {replace(problem, severity=Severity.ERROR)}"
