"""Options that several commands have, and values of options that say what is wrong with them."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Value = TypeVar("Value")


def kind(read: Callable[[str], Value]) -> Callable[[str], Value]:
    """Return a type for argparse that shows the reason of a ValueError."""

    def value(text: str) -> Value:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return value


def json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


def yes(command: argparse.ArgumentParser) -> None:
    command.add_argument("--yes", action="store_true", help="do not ask for confirmation")


def config_directory(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config-directory",
        type=Path,
        metavar="DIR",
        help="Postfix configuration directory, as for postconf -c",
    )


def logs(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--log",
        action="extend",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="read these files instead of the log of Postfix, syslog or the journal",
    )
    config_directory(command)
