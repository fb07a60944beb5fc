"""The configuration of a Postfix instance, as postconf(1) understands it.

Everything is asked once and kept: an instance that changes needs a new ``Postconf``. Each call
has a timeout. Syntax and options are those of Postfix 3.4 to 3.10.
"""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from crm_milter.wording import why

TIMEOUT = 60.0  # seconds; postconf itself waits until main.cf is two seconds old

_PLACES = os.pathsep.join(("/usr/sbin", "/sbin", "/usr/local/sbin", "/opt/postfix/sbin"))


class PostfixError(Exception):
    """Postfix is not there or does not answer; the text says why."""


@dataclass(frozen=True, slots=True)
class Service:
    """One service of master.cf; ``overrides`` are its -o options, unexpanded."""

    name: str
    kind: str
    chroot: bool
    command: str
    overrides: Mapping[str, str] = field(default_factory=dict, hash=False, compare=False)

    @property
    def label(self) -> str:
        """Return the service as postconf -P writes it, such as ``smtp/inet``."""
        return f"{self.name}/{self.kind}"


class Postconf:
    """One instance: its parameters, its services and the commands for it.

    ``home`` is given for a copy of a configuration: the directory that it was copied from.
    """

    def __init__(self, directory: Path | None = None, home: Path | None = None) -> None:
        self._chosen = directory
        self._home = home
        self._expanded: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}

    def refreshed(self) -> "Postconf":
        """Return the same instance as it is now."""
        return Postconf(self._chosen, self._home)

    @cached_property
    def directory(self) -> Path:
        """Return where main.cf and master.cf are."""
        if self._home:
            return self._home
        # Without main.cf postconf gives nothing but defaults, and waits a second before it says so.
        is_default = self._chosen is None and "MAIL_CONFIG" not in os.environ
        options = ("-d", "-h") if is_default else ("-h",)
        return Path(self._ask(*options, "config_directory").strip())

    @cached_property
    def _raw(self) -> dict[str, str]:
        return dict(_settings(self._ask()))

    @cached_property
    def explicit(self) -> frozenset[str]:
        """Return the names of the parameters that main.cf sets."""
        return frozenset(name for name, _ in _settings(self._ask("-n")))

    @cached_property
    def _master(self) -> str:
        return self._ask("-M")

    @cached_property
    def services(self) -> tuple[Service, ...]:
        """Return the services in the order of master.cf."""
        overrides: dict[str, dict[str, str]] = {}
        for name, value in _settings(self._ask("-P")):
            label, _, parameter = name.rpartition("/")
            overrides.setdefault(label, {})[parameter] = value
        return tuple(self._services(overrides))

    def _services(self, overrides: Mapping[str, Mapping[str, str]]) -> Iterator[Service]:
        for line in self._master.splitlines():
            words = line.split(None, 7)
            if len(words) < 8:
                continue
            name, kind, _, _, chroot, _, _, command = words
            # Since Postfix 3.0 "-" depends on compatibility_level (master(5)).
            is_chroot = chroot == "y" or (chroot == "-" and self._level < 1)
            own = overrides.get(f"{name}/{kind}", {})
            yield Service(name, kind, is_chroot, Path(command.split()[0]).name, own)

    @property
    def _level(self) -> int:
        major = self.value("compatibility_level").partition(".")[0]
        return int(major) if major.isdigit() else 0

    def arguments(self, transport: str) -> list[str]:
        """Return the words of the command of a transport, such as that of a pipe(8)."""
        fields = (line.split(None, 7) for line in self._master.splitlines())
        return [words[7] for words in fields if len(words) == 8 and words[0] == transport]

    def running_as(self, *commands: str) -> tuple[Service, ...]:
        """Return the services that run one of these programs."""
        return tuple(each for each in self.services if each.command in commands)

    def raw(self, name: str, service: Service | None = None) -> str:
        """Return a value as written, with ``$name`` in it; the default where it is not set."""
        if service is not None and name in service.overrides:
            return service.overrides[name]
        return self._raw.get(name, "")

    def value(self, name: str, service: Service | None = None) -> str:
        """Return a value with every ``$name`` expanded, as a service sees it."""
        # postconf -o also expands what other parameters say of an overridden one.
        key = tuple(service.overrides.items()) if service else ()
        if key not in self._expanded:
            options = [word for name, value in key for word in ("-o", f"{name}={value}")]
            text = self._ask("-x", *options)
            if self._home:
                text = text.replace(str(self._chosen), str(self._home))  # of $config_directory
            self._expanded[key] = dict(_settings(text))
        return self._expanded[key].get(name, "")

    @cached_property
    def origin(self) -> str:
        """Return the domain of addresses without one: myorigin, or what the file there says."""
        value = self.value("myorigin")
        if value.startswith("/"):
            try:
                value = Path(value).read_text("utf-8", "replace").strip()
            except OSError:
                return ""
        return value.split("\n", 1)[0].strip().lower()

    def is_on(self, name: str, service: Service | None = None) -> bool:
        """Return a boolean parameter."""
        return self.value(name, service).lower() == "yes"

    def command(self, tool: str, *arguments: str) -> str:
        """Return a command for a person's shell."""
        chosen = ["-c", str(self._chosen)] if self._chosen else []
        return shlex.join([tool, *chosen, *arguments])

    def own_command(self, tool: str, *arguments: str) -> str:
        """Return a command of ours for a person's shell."""
        chosen = ["--config-directory", str(self._chosen)] if self._chosen else []
        return shlex.join([tool, *arguments, *chosen])

    def run(
        self,
        tool: str,
        *arguments: str,
        stdin: str = "",
        stderr: int = subprocess.PIPE,
        timeout: float = TIMEOUT,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command of Postfix for this instance; raises PostfixError if it cannot run."""
        path = shutil.which(tool, path=f"{os.environ.get('PATH', '')}{os.pathsep}{_PLACES}")
        if path is None:
            raise PostfixError(f'"{tool}" not found: is Postfix installed on this host?')
        chosen = ["-c", str(self._chosen)] if self._chosen else []
        try:
            return subprocess.run(
                [path, *chosen, *arguments],
                input=stdin,
                stdout=subprocess.PIPE,
                stderr=stderr,
                encoding="utf-8",
                errors="surrogateescape",
                timeout=timeout,
                check=False,
                process_group=0,  # ^C is for this program, which ends what it has begun
            )
        except subprocess.TimeoutExpired:
            message = (
                f'"{self.command(tool, *arguments)}" did not finish within {timeout:g} seconds'
            )
            raise PostfixError(message) from None
        except OSError as error:
            raise PostfixError(f'cannot run "{path}": {why(error)}') from error

    def _ask(self, *arguments: str) -> str:
        done = self.run("postconf", *arguments)
        if done.returncode != 0:
            raise PostfixError(last_line(done.stderr) or "postconf failed")
        return done.stdout


def _settings(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        name, separator, value = line.partition(" =")
        if separator:
            yield name, value.strip()


def last_line(text: str) -> str:
    """Return the last line that is not empty: where Postfix's tools say why they gave up."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""


def split_list(value: str) -> list[str]:
    """Return the items of a list of Postfix: separated by commas or blanks outside braces."""
    items: list[str] = []
    item, depth = "", 0
    for character in value:
        if depth == 0 and (character == "," or character.isspace()):
            if item:
                items.append(item)
            item = ""
            continue
        depth += (character == "{") - (character == "}")
        item += character
    return [*items, item] if item else items
