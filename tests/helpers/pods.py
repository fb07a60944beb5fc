"""Containers for the tests, by the plain command line of podman."""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

ROOT = Path(__file__).parents[2]
HERE = ROOT / "tests/container"
ENVIRONMENT = os.environ | {"CONTAINERS_CONF": str(HERE / "containers.conf")}
T = TypeVar("T")


class PodError(Exception):
    """Something did not come about; the text says what, and what was there instead."""


def run(*command: str, text: str = "", timeout: float = 60, check: bool = True) -> str:
    """Run a command and return its output, stderr with it."""
    done = subprocess.run(
        command,
        input=text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=ENVIRONMENT,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode != 0:
        raise PodError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}")
    return done.stdout


def why_not() -> str:
    """Return why containers cannot run here, "" if they can."""
    if os.geteuid() != 0:
        return "containers with systemd need root"
    if not shutil.which("podman") or not shutil.which("runc"):
        return "podman or runc is not installed (postfix/install --tests)"
    return ""


def image(name: str) -> str:
    """Return the image that images/NAME describes, made if need be."""
    return run(str(HERE / "image"), name, timeout=900).splitlines()[-1]


def base_image() -> str:
    """Return the image of the release alone, made if need be."""
    return run(str(HERE / "base-image"), timeout=900).splitlines()[-1]


def wait_for(what: str, condition: Callable[[], T | None], timeout: float = 30) -> T:
    """Return the first answer of ``condition`` that is true."""
    deadline = time.monotonic() + timeout
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise PodError(f"waited {timeout:g} s without success for {what}")
        time.sleep(0.1)
    return answer


def _unified() -> list[str]:
    """Return the options with which systemd hears that a control group has become empty.

    On a machine with a hybrid hierarchy it would not be told of that in a container, and so take
    a killed service for alive until TimeoutStopSec.
    """
    unified = Path("/sys/fs/cgroup/unified")
    return ["-v", f"{unified}:{unified}:rw"] if unified.is_dir() else []


# Without these systemd leaves out, and does not say so, what a sandbox does by mounting.
_MOUNTING = ("--cap-add=SYS_ADMIN,NET_ADMIN,SYS_PTRACE", "--security-opt=seccomp=unconfined")


class Container:
    """A container that runs until the block ends; ``booted`` with systemd as its first process."""

    def __init__(self, name: str, image: str, *command: str, booted: bool = False) -> None:
        self.name = f"crm-milter-tests-{name}-{os.getpid()}"
        self._booted = booted
        options = ["--systemd=always", *_MOUNTING, *_unified()] if booted else []
        self._arguments = [
            *(
                "podman",
                "run",
                "-d",
                "--name",
                self.name,
                "--hostname",
                f"{name}.solarmora.example",
            ),
            *("-v", f"{ROOT}:/source:ro", "--stop-timeout", "3", *options, image, *command),
        ]

    def __enter__(self) -> Self:
        run(*self._arguments)
        self.wait_until_up()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        run("podman", "rm", "--force", "--time", "0", self.name, check=False)

    def wait_until_up(self) -> None:
        """Return when systemd has started everything."""
        if self._booted:
            states = ("running", "degraded")
            asked = ("systemctl", "is-system-running")
            wait_for("systemd", lambda: self.run(*asked, check=False).strip() in states, 60)

    def reboot(self) -> None:
        """Shut down as systemd does it, and start again."""
        self.run("systemctl", "poweroff", check=False)
        state = ("podman", "inspect", "--format", "{{.State.Status}}", self.name)
        wait_for("the end of the container", lambda: run(*state).strip() == "exited", 90)
        run("podman", "start", self.name)
        self.wait_until_up()

    def run(self, *command: str, text: str = "", timeout: float = 60, check: bool = True) -> str:
        """Run a command in it and return its output."""
        return run(
            "podman", "exec", "-i", self.name, *command, text=text, timeout=timeout, check=check
        )

    def status_of(self, *command: str) -> int:
        """Run a command in it and return its exit status."""
        script = '"$@" >/dev/null 2>&1; echo $?'
        return int(self.run("sh", "-c", script, "sh", *command).split()[-1])

    def start(self, *command: str) -> "subprocess.Popen[str]":
        """Start a command in it that runs beside us."""
        return subprocess.Popen(
            ["podman", "exec", "-i", self.name, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )

    def write(self, path: str, text: str) -> None:
        """Write a file in it."""
        self.run("sh", "-c", 'cat >"$1"', "sh", path, text=text)

    def read(self, path: str) -> str:
        """Return a file in it, "" if there is none."""
        return self.run("sh", "-c", 'cat "$1" 2>/dev/null || true', "sh", path)

    @property
    def address(self) -> str:
        """Its IP address."""
        (inspected,) = json.loads(run("podman", "inspect", self.name))
        return str(inspected["NetworkSettings"]["IPAddress"])
