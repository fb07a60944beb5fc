"""The command ``map``: the table of virtual aliases that the rules need."""

import argparse

from crm_milter.cli import options
from crm_milter.cli.terminal import EX_CONFIG, EX_NO, EX_OK, load_config, say, show_utf8
from crm_milter.config.load import Config
from crm_milter.postfix import alias_file, in_force
from crm_milter.postfix.aliases import AliasError, alias_lines
from crm_milter.postfix.postconf import Postconf, PostfixError
from crm_milter.postfix.site import Site


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--write",
        action="store_true",
        help=f"update {alias_file.NAME} next to main.cf and compile it",
    )
    command.add_argument(
        "--force",
        action="store_true",
        help="with --write: also empty the table, or remove more than a third of its entries",
    )
    options.config_directory(command)
    command.add_argument(
        "--in-force",
        action="store_true",
        help="with --write: for every attached instance, if the running service has accepted FILE",
    )


def virtual_map(options: argparse.Namespace) -> int:
    """Print the virtual alias table: each exact address and its mailbox (unrouted_to).

    Wildcards get no entry, because an entry would capture the mail of every mailbox in the domain,
    unless their rule has "apply_to: unknown": then each known recipient gets its own entry.
    Patterns get no entry either. With --write, the table is written to a file next to main.cf and
    compiled if it has changed; the patterns get a table of their own there, of type pcre or regexp.
    """
    if options.write and options.in_force:
        done = in_force.write(options.config, options.config_directory, print, say)
        return EX_OK if done else EX_NO
    config = load_config(options.config)
    if options.write:
        return _write(options, config)
    try:
        lines = alias_lines(config.policy.table, config.unrouted_to)
    except AliasError as error:
        say(f"{options.config}: {error}")
        return EX_CONFIG
    show_utf8("\n".join(lines))
    return EX_OK


def _write(options: argparse.Namespace, config: Config) -> int:
    """Bring the table of virtual aliases up to date where it is not."""
    site = Site(config, options.config.absolute(), Postconf(options.config_directory))
    try:
        for line in in_force.write_one(site, force=options.force):
            print(line)
    except PostfixError as error:
        say(str(error))
        return EX_NO
    return EX_OK
