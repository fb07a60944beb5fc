"""What is wrong with a configuration, where, and how bad: collected, bounded, in order of lines.

One problem is one line of text, ``FILE:LINE: KEY: MESSAGE``, whatever the file holds: control
characters of quoted values are escaped and long values cut.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import NoReturn

from crm_milter.wording import one_line

# Enough to fix a file in one go; a generated file may have a hundred thousand.
SHOWN = 100

Path = tuple[str | int, ...]
_PLAIN_KEY = re.compile(r"[A-Za-z0-9_.-]{1,60}", re.ASCII)


class Severity(Enum):
    """Whether a file is refused for it."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem; ``line`` is 0 and ``key`` is "" if it concerns the whole file."""

    file: str
    line: int
    key: str
    message: str
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        kind = "warning" if self.severity is Severity.WARNING else ""
        return ": ".join(part for part in (place, kind, self.key, self.message) if part)


class ConfigError(Exception):
    """A configuration that is refused, with every problem found in it, warnings as well."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__(problems)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class AlreadyReported(Exception):  # noqa: N818 - not an error: it says that one was reported
    """A value is of no use, and its problems are noted already."""


class Problems:
    """The problems of one file so far, and of the files that belong to it.

    Of each severity the first ``shown`` are kept, the others counted.
    """

    def __init__(self, file: str, shown: int = SHOWN) -> None:
        self.file = file
        self._shown = shown
        self._kept: dict[Severity, list[Problem]] = {each: [] for each in Severity}
        self._count = dict.fromkeys(Severity, 0)
        self._beside: list[Problems] = []

    def for_file(self, file: str, shown: int = SHOWN) -> "Problems":
        """Return the problems, none so far, of another file that belongs to this one."""
        self._beside.append(Problems(file, shown))
        return self._beside[-1]

    def add(self, line: int, path: Path, message: str, severity: Severity = Severity.ERROR) -> None:
        """Note a problem of the key at ``path``; the file as a whole where line is 0."""
        self._count[severity] += 1
        if self._count[severity] <= self._shown:
            problem = Problem(self.file, line, key_path(path), one_line(message), severity)
            self._kept[severity].append(problem)

    def fail(self, line: int, message: str) -> NoReturn:
        """Raise ConfigError with this problem alone: after it the file cannot be read.

        What was noted of the file before may only be its consequence, such as a key that seems
        missing, and is forgotten.
        """
        self._kept = {each: [] for each in Severity}
        self._count = dict.fromkeys(Severity, 0)
        self.add(line, (), message)
        raise ConfigError(self._listed(Severity.ERROR))

    @property
    def full(self) -> bool:
        """Tell whether further errors are only counted, so that suggestions are not needed."""
        return self._count[Severity.ERROR] >= self._shown

    @property
    def has_errors(self) -> bool:
        """Tell whether one of the problems is an error, in this file or one that belongs to it."""
        return bool(self._count[Severity.ERROR]) or any(each.has_errors for each in self._beside)

    def raise_errors(self) -> None:
        """Raise ConfigError with all problems if one of them is an error."""
        if self.has_errors:
            raise ConfigError(self._listed(*Severity))

    def warnings(self) -> tuple[Problem, ...]:
        """Return the warnings, file by file, in order of lines."""
        return self._listed(Severity.WARNING)

    def listed(self) -> tuple[Problem, ...]:
        """Return all problems, file by file, in order of lines."""
        return self._listed(*Severity)

    def _listed(self, *severities: Severity) -> tuple[Problem, ...]:
        kept = [problem for each in severities for problem in self._kept[each]]
        kept.sort(key=lambda problem: problem.line)
        for each in severities:
            more = self._count[each] - len(self._kept[each])
            if more:
                message = f"{more} more {each.value}{'s' if more > 1 else ''} not shown"
                kept.append(Problem(self.file, 0, "", message, each))
        others = (problem for other in self._beside for problem in other._listed(*severities))
        return (*kept, *others)


def key_path(path: Path) -> str:
    """Return the path to a key as the messages write it: ``rules[3].replace_with``."""
    written = ""
    for part in path:
        if isinstance(part, int):
            written += f"[{part}]"
        else:
            name = part if _PLAIN_KEY.fullmatch(part) else f'"{one_line(part[:60])}"'
            written += f".{name}" if written else name
    return written
