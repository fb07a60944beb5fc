"""The systemd unit of the daemon, as far as the configuration has to agree with it.

root may read everything; the daemon runs as the user of its unit, and is killed if it takes
longer to stop than the unit allows.
"""

import grp
import os
import pwd
import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from crm_milter.config.load import Config
from crm_milter.config.problems import Problem, Severity

UNIT = "crm-milter.service"
_USER = "crm-milter"
_CONFIG = Path("/etc/crm-milter/crm-milter.yaml")
# systemd.unit(5): the first that has the unit counts; drop-ins are read from all of them.
_FOLDERS = (
    "etc/systemd/system",
    "run/systemd/system",
    "usr/local/lib/systemd/system",
    "usr/lib/systemd/system",
    "lib/systemd/system",
)
_SPAN = re.compile(r"([0-9.]+)\s*(ms|seconds?|sec|s|minutes?|min|m|hours?|hr|h|)")
_SECONDS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_SETTING = re.compile(
    r"(?m)^(User|TimeoutStopSec|TimeoutSec|SupplementaryGroups)[ \t]*=[ \t]*(.*)$"
)
_WRITABLE = 'for each; do [ -w "$each" ] || printf "%s\\n" "$each"; done'
_READABLE = 'for each; do [ -r "$each" ] || printf "%s\\n" "$each"; done'


@dataclass(frozen=True, slots=True)
class Unit:
    """What the unit says; ``stop`` is in seconds, None if it says nothing or has no limit."""

    user: str = _USER
    stop: float | None = None
    groups: tuple[str, ...] = ()


def unit(root: Path = Path("/")) -> Unit:
    """Return the unit of the daemon with its drop-ins, what is usual where there is none."""
    settings: dict[str, str] = {}
    groups: list[str] = []
    for path in _files(root):
        for name, value in _SETTING.findall(path.read_text("utf-8", "replace")):
            settings[name] = value.strip()
            if name == "SupplementaryGroups":  # each line adds to the list, an empty one clears it
                groups = [*groups, *value.split()] if value.split() else []
    text = settings.get("TimeoutStopSec", settings.get("TimeoutSec", ""))
    return Unit(settings.get("User", "") or _USER, _span(text), tuple(groups))


def _files(root: Path) -> Iterator[Path]:
    folders = [root / each for each in _FOLDERS]
    yield from [each / UNIT for each in folders if (each / UNIT).is_file()][:1]
    drop_ins = {
        path.name: path for each in reversed(folders) for path in each.glob(f"{UNIT}.d/*.conf")
    }
    yield from (drop_ins[name] for name in sorted(drop_ins))


def _span(text: str) -> float | None:
    """Return a time span of systemd.time(7) in seconds, None for no limit."""
    parts = _SPAN.findall(text)
    if not parts:
        return None
    units = {"mi": "m", "ms": "ms"}
    return sum(float(n) * _SECONDS[units.get(unit[:2], unit[:1])] for n, unit in parts)


def problems(file: Path, config: Config, found: Unit, files: Iterable[str]) -> Iterator[Problem]:
    """Yield what keeps the daemon of this unit from using the configuration."""
    seconds = config.milter.drain_timeout
    if found.stop is not None and seconds >= found.stop:
        message = (
            f"{seconds} seconds are not less than TimeoutStopSec of {UNIT} ({found.stop:g}):"
            " systemd would kill the milter first; shorten it, or raise TimeoutStopSec"
        )
        yield Problem(str(file), 0, "milter.drain_timeout", message, Severity.WARNING)
    # A draft elsewhere is not what the daemon reads.
    severity = Severity.ERROR if file.absolute() == _CONFIG else Severity.WARNING
    for path in unreadable(found.user, files, found.groups) if os.geteuid() == 0 else ():
        message = f'the user "{found.user}" of {UNIT} cannot read it'
        yield Problem(path, 0, "", message, severity)


def unwritable(user: str, folders: Iterable[str], groups: Iterable[str] = ()) -> list[str]:
    """Return the directories that a user cannot write, [] if there is no such user; needs root."""
    return _as(user, groups, _WRITABLE, folders)


def unreadable(user: str, files: Iterable[str], groups: Iterable[str] = ()) -> list[str]:
    """Return the files that a user cannot read, [] if there is no such user; needs root."""
    return _as(user, groups, _READABLE, files)


def _as(user: str, groups: Iterable[str], script: str, files: Iterable[str]) -> list[str]:
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return []
    done = subprocess.run(
        ["/bin/sh", "-c", script, "sh", *files],
        user=account.pw_uid,
        group=account.pw_gid,
        extra_groups=[*os.getgrouplist(user, account.pw_gid), *_ids(groups)],
        cwd="/",
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        timeout=10,
        check=False,
    )
    return done.stdout.splitlines()


def _ids(groups: Iterable[str]) -> Iterator[int]:
    """Yield the ids of groups by name or number, without those that do not exist."""
    for each in groups:
        with suppress(KeyError):
            yield int(each) if each.isdecimal() else grp.getgrnam(each).gr_gid
