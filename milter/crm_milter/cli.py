"""The command line: one function a command, results on stdout, diagnostics on stderr.

Exit status: 0 good, 1 no, 2 usage, 78 bad configuration (EX_CONFIG of sysexits.h).
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from crm_milter import __version__, explain, keys, listing, mailcommands
from crm_milter.aliases import AliasError, alias_lines
from crm_milter.config import Config, ConfigError, load
from crm_milter.json_schema import json_schema
from crm_milter.postfix import commands as postfix

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
    checking = _command(commands, "check", check)
    postfix.check_arguments(checking)
    _with_json(checking)
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
    postfix.map_arguments(_command(commands, "map", virtual_map))
    postfix.attach_arguments(_command(commands, "attach", attach_milter))
    postfix.detach_arguments(_command(commands, "detach", detach_milter))
    _command(commands, "schema", print_schema)
    mailcommands.verify_arguments(_command(commands, "verify", verify_address))
    tracing = _command(commands, "trace", trace_mail)
    mailcommands.trace_arguments(tracing)
    _with_json(tracing)
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
    """Run the milter in the foreground until SIGTERM or SIGINT; SIGHUP reads the file again."""
    # Imported here, since the other commands run where there is no libmilter.
    from crm_milter import listener, log, supervisor

    config = _load(options.config)
    try:
        return supervisor.serve(options.config, config, log.stderr_log())
    except listener.ListenError as error:
        _say(str(error))
        return EX_NO


def check(options: argparse.Namespace) -> int:
    """Read the configuration and report every problem in it.

    With --postfix also what is wrong between it and the Postfix of this host, each with the
    reason why it matters and the command that mends it.
    """
    config = _load(options.config)
    count = len(config.policy.table.rules)
    if options.postfix:
        return postfix.check_postfix(options, config, print, _say)
    if options.json:
        print(postfix.check_json(options, config))
        return EX_OK
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
    With --write the table goes to a file beside main.cf and is compiled, if it has changed.
    """
    config = _load(options.config)
    if options.write:
        return postfix.write_map(options, config, print, _say)
    try:
        lines = alias_lines(config.policy.table, config.unrouted_to)
    except AliasError as error:
        _say(f"{options.config}: {error}")
        return EX_CONFIG
    print("\n".join(lines))
    return EX_OK


def attach_milter(options: argparse.Namespace) -> int:
    """Attach the milter to Postfix: shows the change, asks, applies it and tries it.

    smtpd_milters and non_smtpd_milters, virtual_alias_maps with the table that "map" makes, and
    notify_classes. What does not work in the end is taken back.
    """
    return postfix.attach_milter(options, _load(options.config), print, _say)


def detach_milter(options: argparse.Namespace) -> int:
    """Take back what attach changed in Postfix, and leave what others changed since."""
    return postfix.detach_milter(options, print, _say)


def verify_address(options: argparse.Namespace) -> int:
    """Send a real mail to an address and follow it until the CRM's server has it.

    The CRM opens a case. With --spam it has to stay behind instead. The exit status is 0 only if
    the log proves that.
    """
    return mailcommands.verify_address(options, _load(options.config), print, _say)


def trace_mail(options: argparse.Namespace) -> int:
    """Follow real mail through the log: what was decided, and what became of it.

    The exit status is 1 if nothing was found; with --failing, if a target fails.
    """
    return mailcommands.trace_mail(options, print, _say)


def print_schema(options: argparse.Namespace) -> int:  # noqa: ARG001 - as every command
    """Print the JSON Schema of the configuration, for editors.

    It knows keys and shapes of values; what is wrong between them only "check" finds.
    """
    print(json.dumps(json_schema(keys.ROOT, "crm-milter"), indent=2))
    return EX_OK


if __name__ == "__main__":
    sys.exit(main())
