"""The command line: one function per command, results on stdout, diagnostics on stderr.

Exit status: 0 success, 1 failure or problem found, 2 usage error or no readable log (trace),
78 invalid configuration (EX_CONFIG in sysexits.h).
"""

import argparse
import sys
from collections.abc import Sequence

from crm_milter import __version__
from crm_milter.cli.terminal import (
    EX_CONFIG,
    EX_NO,
    Command,
    add_command,
    can_print,
    say,
    take_streams,
    written,
)
from crm_milter.config.problems import ConfigError
from crm_milter.rules.rule import TableError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; without arguments, that of this process."""
    if arguments is None:
        take_streams()
    words = sys.argv[1:] if arguments is None else arguments
    return written(lambda: _run(words))


def _run(words: Sequence[str]) -> int:
    options = _parser(words[0] if words else "").parse_args(words)
    command: Command = options.command
    if command is not serve and not can_print():
        return EX_NO  # before anything is changed whose report would be lost
    try:
        return command(options)
    except ConfigError as error:
        for problem in error.problems:
            say(str(problem))
        return EX_CONFIG
    except TableError as error:
        say(str(error))
        return EX_NO


def _parser(command: str = "") -> argparse.ArgumentParser:
    """Return the parser of all commands, or of ``serve`` alone if that is the one."""
    parser = argparse.ArgumentParser(prog="crm-milter", description="Email-to-case for Postfix.")
    parser.add_argument("--version", action="version", version=f"crm-milter {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serving = add_command(commands, "serve", serve)
    serving.add_argument(
        "--hand-over",
        action="store_true",
        help="on SIGTERM leave socket and sessions to the service manager; for the systemd unit",
    )
    serving.add_argument(
        "--dry-run", action="store_true", help="load everything, then exit instead of serving"
    )
    if command != "serve":
        # Imported here, since the daemon would keep in memory what only the others need.
        from crm_milter.cli.commands import add_commands

        add_commands(commands)
    return parser


def serve(options: argparse.Namespace) -> int:
    """Run the milter in the foreground; SIGHUP reloads, SIGTERM and SIGINT stop it.

    SIGUSR2 replaces the process with the program as it is installed now, without closing a session.
    """
    try:
        # Imported here, because the other commands run without libmilter.
        from crm_milter.cli import serve as service
        from crm_milter.libmilter import threadstate
    except ImportError as error:
        say(f"cannot load {error.name or 'a library'}: {error}; install python3-milter or pymilter")
        return EX_CONFIG
    try:
        threadstate.stack_protection()
    except threadstate.UnsupportedPythonError as error:
        say(str(error))
        return EX_CONFIG
    return service.serve(options.config, hand_over=options.hand_over, dry_run=options.dry_run)


if __name__ == "__main__":
    sys.exit(main())
