"""The command line: one function a command, results on stdout, diagnostics on stderr.

Exit status: 0 good, 1 no, 2 usage, 78 bad configuration (EX_CONFIG of sysexits.h).
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from crm_milter import __version__, explain, listing
from crm_milter.aliases import AliasError, alias_lines
from crm_milter.config import Config, ConfigError, load

DEFAULT_CONFIG = "/etc/crm-milter/crm-milter.yaml"
EX_OK, EX_NO, EX_CONFIG = 0, 1, 78

Command = Callable[[argparse.Namespace], int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    command: Command = options.command
    try:
        return command(options)
    except ConfigError as error:
        for problem in error.problems:
            _say(str(problem))
        return EX_CONFIG
    except BrokenPipeError:
        # The reader of our output has seen enough; Python would complain at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EX_NO


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="crm-milter", description="Email-to-case for Postfix.")
    parser.add_argument("--version", action="version", version=f"crm-milter {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _command(commands, "serve", serve)
    _command(commands, "check", check)
    explaining = _command(commands, "explain", explain_message)
    explaining.add_argument(
        "--from", dest="sender", required=True, metavar="ADDRESS", help='"" is the null sender'
    )
    explaining.add_argument(
        "--to", action="append", required=True, metavar="ADDRESS", help="may be given repeatedly"
    )
    explaining.add_argument("message", nargs="?", default="-", help="a file; -: standard input")
    _with_json(explaining)
    _with_json(_command(commands, "rules", list_rules))
    _command(commands, "map", virtual_map)
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, function: Command
) -> argparse.ArgumentParser:
    words = (function.__doc__ or "").strip()
    summary = words.splitlines()[0].rstrip(".")
    command = commands.add_parser(name, help=summary, description=words)
    command.add_argument(
        "--config",
        type=Path,
        default=Path(DEFAULT_CONFIG),
        metavar="FILE",
        help="the configuration (default: %(default)s)",
    )
    command.set_defaults(command=function)
    return command


def _with_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON, for scripts")


def _say(line: str) -> None:
    print(f"crm-milter: {line}", file=sys.stderr)


def _load(path: Path) -> Config:
    config = load(path)
    for warning in config.warnings:
        _say(str(warning))
    return config


def serve(options: argparse.Namespace) -> int:
    """Run the milter in the foreground until SIGTERM or SIGINT."""
    # Imported here, since the other commands run where there is no libmilter.
    from crm_milter import listener, log, worker

    config = _load(options.config)
    settings = config.milter
    try:
        opened = listener.Listener(settings.listen, settings.socket_mode, settings.socket_group)
    except listener.ListenError as error:
        _say(str(error))
        return EX_NO
    status = worker.serve(opened, config.policy, settings.drain_timeout, log.stderr_log())
    sys.stdout.flush()
    # libmilter's threads are still there, and must not keep a process that was told to end.
    os._exit(status)


def check(options: argparse.Namespace) -> int:
    """Read the configuration and report every problem in it."""
    config = _load(options.config)
    count = len(config.policy.table.rules)
    print(f"{options.config}: good, {count} {'rule' if count == 1 else 'rules'}")
    return EX_OK


def explain_message(options: argparse.Namespace) -> int:
    """Tell what would be done with a message, rule by rule, in the words of the log."""
    config = _load(options.config)
    try:
        message = _read_message(options.message)
    except OSError as error:
        _say(f"{options.message}: {(error.strerror or str(error)).lower()}")
        return EX_NO
    story = explain.explain(config.policy, options.sender, options.to, message)
    if options.json:
        print(json.dumps(explain.as_json(story), indent=2))
    else:
        print("\n".join(explain.lines(story)))
    return EX_OK


def _read_message(name: str) -> bytes:
    return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()


def list_rules(options: argparse.Namespace) -> int:
    """Print the rules in the order in which they are tried."""
    rules = _load(options.config).policy.table.rules
    if options.json:
        print(json.dumps([listing.rule_json(rule) for rule in rules], indent=2))
    else:
        print("\n".join(listing.table_lines(rules)))
    return EX_OK


def virtual_map(options: argparse.Namespace) -> int:
    """Print the source of the virtual_alias_maps table: each exact address and its mailbox.

    Wildcards and patterns get no entry: one would take the mail of every mailbox of the domain.
    """
    config = _load(options.config)
    try:
        lines = alias_lines(config.policy.table, config.unrouted_to)
    except AliasError as error:
        _say(f"{options.config}: {error}")
        return EX_CONFIG
    print("\n".join(lines))
    return EX_OK


if __name__ == "__main__":
    sys.exit(main())
