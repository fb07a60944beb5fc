"""What all commands share: the option ``--config``, the words to a person, the exit status."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from crm_milter.config import Config, load
from crm_milter.sources import Sources

DEFAULT_CONFIG = "/etc/crm-milter/crm-milter.yaml"
EX_OK, EX_NO, EX_CONFIG = 0, 1, 78

Command = Callable[[argparse.Namespace], int]


def add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, function: Command
) -> argparse.ArgumentParser:
    """Add a command whose help is the docstring of its function."""
    words = (function.__doc__ or "").strip()
    summary = words.splitlines()[0].rstrip(".")
    command = commands.add_parser(name, help=summary, description=words)
    command.add_argument(
        "--config",
        type=Path,
        default=Path(DEFAULT_CONFIG),
        metavar="FILE",
        help="configuration file (default: %(default)s)",
    )
    command.set_defaults(command=function)
    return command


def say(line: str) -> None:
    """Print a diagnostic."""
    print(f"crm-milter: {line}", file=sys.stderr)


def load_config(path: Path, sources: Sources | None = None) -> Config:
    """Return the configuration, its warnings said; raises ConfigError."""
    config = load(path, sources)
    for warning in config.warnings:
        say(str(warning))
    return config
