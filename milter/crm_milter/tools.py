"""The commands beside ``serve``, which come to an end."""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from crm_milter import explain, keys, listing, mailcommands, reloading, silence, unit
from crm_milter.aliases import AliasError, alias_lines
from crm_milter.config import Config, ConfigError
from crm_milter.console import (
    EX_CONFIG,
    EX_NO,
    EX_OK,
    add_command,
    load_config,
    read_stdin,
    say,
    show_utf8,
)
from crm_milter.json_schema import json_schema
from crm_milter.log import counted
from crm_milter.postfix import commands as postfix
from crm_milter.problem import Problem, Severity
from crm_milter.sources import Disk


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add them, with their arguments."""
    checking = add_command(commands, "check", check)
    postfix.check_arguments(checking)
    _with_json(checking)
    explaining = add_command(commands, "explain", explain_message)
    explaining.add_argument(
        "--from",
        dest="sender",
        required=True,
        metavar="ADDRESS",
        help='envelope sender; "" is the null sender',
    )
    explaining.add_argument(
        "--to", action="append", required=True, metavar="ADDRESS", help="recipient; may be repeated"
    )
    explaining.add_argument(
        "message", nargs="?", default="-", help="message file; - is standard input (default)"
    )
    _with_json(explaining)
    _with_json(add_command(commands, "rules", list_rules))
    mapping = add_command(commands, "map", virtual_map)
    postfix.map_arguments(mapping)
    postfix.map_in_force_argument(mapping)
    add_command(commands, "reload", reload_service)
    postfix.attach_arguments(add_command(commands, "attach", attach_milter))
    postfix.detach_arguments(add_command(commands, "detach", detach_milter))
    add_command(commands, "schema", print_schema)
    mailcommands.verify_arguments(add_command(commands, "verify", verify_address))
    tracing = add_command(commands, "trace", trace_mail)
    mailcommands.trace_arguments(tracing)
    _with_json(tracing)


def _with_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")


def check(options: argparse.Namespace) -> int:
    """Read the configuration and report every problem in it.

    With --postfix, also check this host's Postfix against it. Each finding says why it matters and
    how to fix it.
    """
    disk = Disk()
    try:
        config = load_config(options.config, disk)
    except ConfigError as error:
        if options.json:
            print(postfix.as_json(options.config, None, errors=list(map(str, error.problems))))
        raise
    outside = [*_silences(options.config, config), *_unfit(options, config, disk.digests)]
    config = replace(config, warnings=(*config.warnings, *outside))
    if options.postfix:
        return postfix.check_postfix(options, config, print, say)
    if options.json:
        print(postfix.as_json(options.config, config))
        return EX_OK
    count = counted(len(config.policy.table.rules), "rule")
    print(f"{options.config}: OK, {count}{postfix.no_rules(config)}")
    return EX_OK


def _silences(file: Path, config: Config) -> Iterator[Problem]:
    """Yield, and say, what the spam filter has to be told."""
    for message in silence.warnings(config.policy):
        problem = Problem(str(file), 0, "", message, Severity.WARNING)
        say(str(problem))
        yield problem


def _unfit(options: argparse.Namespace, config: Config, files: Iterable[str]) -> list[Problem]:
    """Return, and say, what the service cannot do with the files; raises ConfigError."""
    found = list(unit.problems(options.config, config, unit.unit(), files))
    if any(each.severity is Severity.ERROR for each in found):
        if options.json:
            print(postfix.as_json(options.config, None, errors=list(map(str, found))))
        raise ConfigError(tuple(found))
    for problem in found:
        say(str(problem))
    return found


def explain_message(options: argparse.Namespace) -> int:
    """Show what would happen to a message, rule by rule, and the log lines it would produce."""
    config = load_config(options.config)
    try:
        message = _read_message(options.message)
    except OSError as error:
        say(f"{options.message}: {(error.strerror or str(error)).lower()}")
        return EX_NO
    story = explain.explain(config.policy, options.sender, options.to, message)
    if options.json:
        print(json.dumps(explain.as_json(story), indent=2))
    else:
        print("\n".join(explain.lines(story)))
    return EX_OK


def _read_message(name: str) -> bytes:
    return read_stdin() if name == "-" else Path(name).read_bytes()


def list_rules(options: argparse.Namespace) -> int:
    """List the rules in the order they are tried."""
    rules = load_config(options.config).policy.table.rules
    if options.json:
        print(json.dumps([listing.rule_json(rule) for rule in rules], indent=2))
    else:
        print("\n".join(listing.table_lines(rules)))
    return EX_OK


def reload_service(_options: argparse.Namespace) -> int:
    """Have the running service read its configuration again, and wait for the result.

    The exit status is 1 if the service keeps using the previous rules.
    """
    return EX_OK if reloading.reload(print, say) else EX_NO


def virtual_map(options: argparse.Namespace) -> int:
    """Print the virtual alias table: each exact address and its mailbox (unrouted_to).

    Wildcards and patterns get no entry, because an entry would capture the mail of every mailbox in
    the domain. With --write, the table is written to a file next to main.cf and compiled if it has
    changed.
    """
    if options.write and options.in_force:
        return postfix.write_tables_in_force(options, print, say)
    config = load_config(options.config)
    if options.write:
        return postfix.write_map(options, config, print, say)
    try:
        lines = alias_lines(config.policy.table, config.unrouted_to)
    except AliasError as error:
        say(f"{options.config}: {error}")
        return EX_CONFIG
    show_utf8("\n".join(lines))
    return EX_OK


def attach_milter(options: argparse.Namespace) -> int:
    """Configure Postfix to use the milter: show the changes, ask, apply and test them.

    This sets smtpd_milters, non_smtpd_milters, virtual_alias_maps (the table that "map" prints) and
    notify_classes, and receive_override_options and enable_original_recipient where needed. If the
    test or the command itself fails, everything is rolled back, except what others changed since.
    With --when-down accept it may also be run while the milter is down: mail then goes to
    unrouted_to instead of being deferred, until "crm-milter attach" is run again.
    """
    return postfix.attach_milter(options, load_config(options.config), print, say)


def detach_milter(options: argparse.Namespace) -> int:
    """Undo what attach changed in Postfix; changes made by others since are kept.

    It also removes crm-milter where it was configured by hand, in all Postfix instances unless one
    is chosen. Mail for addresses that only the table of virtual aliases knows is refused (550)
    afterwards: while the milter is down it is only deferred (451), so do not detach to get mail
    flowing, but run "crm-milter attach --when-down accept".
    """
    return postfix.detach_milter(options, print, say)


def verify_address(options: argparse.Namespace) -> int:
    """Send a real message to an address and follow it to the CRM's server.

    The CRM will open a case. With --spam, the message must not reach the CRM. The exit status is 0
    only if the log proves the expected result.
    """
    return mailcommands.verify_address(options, load_config(options.config), print, say)


def trace_mail(options: argparse.Namespace) -> int:
    """Follow messages through the mail log: what crm-milter decided and what Postfix did.

    The exit status is 1 if nothing was found or, with --failing, if a target is failing; it is 2 if
    the log cannot be read.
    """
    return mailcommands.trace_mail(options, print, say)


def print_schema(options: argparse.Namespace) -> int:  # noqa: ARG001 - as every command
    """Print the JSON Schema of the configuration, for editors.

    The schema covers keys and value formats; only "check" finds conflicts between them.
    """
    print(json.dumps(json_schema(keys.ROOT, "crm-milter"), indent=2))
    return EX_OK
