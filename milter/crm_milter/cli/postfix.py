"""The commands about the running Postfix: ``check --postfix``, ``map --write``, attach, detach.

``show`` prints a line of the result, ``say`` a diagnostic.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from crm_milter.cli.terminal import EX_CONFIG, EX_OK, load_config, say, show_utf8
from crm_milter.config import keys, listen
from crm_milter.config.listen import Listener
from crm_milter.config.load import Config, load
from crm_milter.config.problems import ConfigError, Severity
from crm_milter.postfix import alias_file, in_force, instances
from crm_milter.postfix.aliases import AliasError, alias_lines
from crm_milter.postfix.attach.attach import Terminal, Wish, attach
from crm_milter.postfix.attach.detach import detach
from crm_milter.postfix.attach.interrupt import Interrupted, interruptible
from crm_milter.postfix.checks import finding, run
from crm_milter.postfix.checks.finding import Finding
from crm_milter.postfix.postconf import Postconf, PostfixError
from crm_milter.postfix.site import Site

GOOD, NO = 0, 1

Show = Callable[[str], None]


def check_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``check``."""
    command.add_argument("--postfix", action="store_true", help="also check this host's Postfix")
    _with_directory(command)


def map_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``map``."""
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
    _with_directory(command)


def map_in_force_argument(command: argparse.ArgumentParser) -> None:
    """Add the argument of ``map`` for the service."""
    command.add_argument(
        "--in-force",
        action="store_true",
        help="with --write: for every attached instance, if the running service has accepted FILE",
    )


def attach_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``attach``."""
    command.add_argument(
        "--when-down",
        choices=("tempfail", "accept"),
        default="tempfail",
        help="what Postfix does while the milter is down: tempfail (the sender retries) or accept"
        " (mail goes to unrouted_to), which may be chosen while it is down"
        " (default: %(default)s)",
    )
    command.add_argument(
        "--discard-dsn",
        action=argparse.BooleanOptionalAction,
        help="do not offer DSN to strangers, who could ask for the header after the edits"
        " (default: as before)",
    )
    command.add_argument(
        "--no-proof", action="store_true", help="keep the change without trying a session"
    )
    detach_arguments(command)


def detach_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``detach``."""
    command.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    _with_directory(command)


def _with_directory(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config-directory",
        type=Path,
        metavar="DIR",
        help="Postfix configuration directory, as for postconf -c",
    )


def check_postfix(options: argparse.Namespace, config: Config, show: Show, say: Show) -> int:
    """Print what is wrong between the configuration and Postfix; 1 where that is an error."""
    try:
        found = run.check(_site(options, config))
    except PostfixError as error:
        if options.json:
            show(as_json(options.config, config, errors=[str(error)]))
        say(str(error))
        return NO
    if options.json:
        show(as_json(options.config, config, found))
    else:
        for line in finding.lines(found):
            show(line)
        result = (
            f"checked with Postfix: {finding.count_text(found)}"
            if found
            else "OK, Postfix configuration included"
        )
        show(f"{options.config}: {result}{no_rules(config)}")
    return NO if any(each.severity is Severity.ERROR for each in found) else GOOD


def no_rules(config: Config) -> str:
    """Return the word on a file without rules: it is valid, and easily not what was meant."""
    return "" if config.policy.table.rules else ", but there are no rules: no mail is routed"


def as_json(
    file: Path, config: Config | None, found: Sequence[Finding] = (), errors: Sequence[str] = ()
) -> str:
    """Return the result of ``check --json``; the configuration is None if it was refused."""
    data = {
        "file": str(file),
        "rules": len(config.policy.table.rules) if config else None,
        "errors": list(errors),
        "warnings": [str(each) for each in config.warnings] if config else [],
        "findings": [finding.as_json(each) for each in found],
    }
    return json.dumps(data, indent=2)


def write_tables_in_force(options: argparse.Namespace, show: Show, say: Show) -> int:
    """Bring the tables of all attached instances up to date with what the service serves."""
    return GOOD if in_force.write(options.config, options.config_directory, show, say) else NO


def write_map(options: argparse.Namespace, config: Config, show: Show, say: Show) -> int:
    """Bring the table of virtual aliases up to date where it is not."""
    site = _site(options, config)
    try:
        changed = in_force.write_one(site, force=options.force)
        state = "written" if changed else "unchanged"
        show(f"{alias_file.table(site)}: {state}, {len(site.aliases)} entries")
    except PostfixError as error:
        say(str(error))
        return NO
    return GOOD


def _attach(options: argparse.Namespace, config: Config, show: Show, say: Show) -> int:
    """Attach the milter to Postfix."""
    wish = Wish(options.when_down, options.discard_dsn, proof=not options.no_proof)
    site = _site(options, config)
    return _carry_out(lambda: attach(site, wish, _terminal(options, show, say)), say)


def _detach(options: argparse.Namespace, show: Show, say: Show) -> int:
    """Detach the milter from Postfix, whatever the configuration of ours says."""
    chosen = options.config_directory
    found = [Postconf(chosen)] if chosen else instances.all_instances()
    if not found:
        show("nothing to detach: there is no configured Postfix")
    listeners, terminal = _listeners(options.config), _terminal(options, show, say)
    return _carry_out(lambda: _detach_all(found, listeners, terminal, say), say)


def _detach_all(
    found: list[Postconf], listeners: list[Listener], terminal: Terminal, say: Show
) -> bool:
    done = True
    for each in found:
        try:
            done = detach(each, listeners, terminal) and done
        except PostfixError as error:  # what one refuses must not keep the next
            say(str(error))
            done = False
    return done


def _carry_out(action: Callable[[], bool], say: Show) -> int:
    try:
        with interruptible():
            return GOOD if action() else NO
    except PostfixError as error:
        say(str(error))
    except Interrupted as error:
        with suppress(OSError):  # the terminal may be gone
            say(f"interrupted by {error}")
    return NO


def _listeners(path: Path) -> list[Listener]:
    """Return where crm-milter may listen, as far as a file says that may have errors."""
    found = [listen.listener(str(keys.MILTER.keys["listen"].default))]
    with suppress(ConfigError, OSError, UnicodeError):
        return [*found, load(path).milter.listen]
    with suppress(ValueError, OSError):
        texts = re.findall(r"listen:\s*[\"']?((?:unix|inet6?):[^\"'\s#,}]+)", path.read_text())
        found += [listen.listener(each) for each in texts]
    return found


def _site(options: argparse.Namespace, config: Config) -> Site:
    return Site(config, options.config.absolute(), Postconf(options.config_directory))


def _terminal(options: argparse.Namespace, show: Show, say: Show) -> Terminal:
    def tell(line: str) -> None:
        with suppress(OSError):  # a reader that has gone must not stop what was begun
            show(line)

    def asks(question: str) -> bool:
        say(f"{question}? [y/N]")
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    return Terminal(
        tell,
        agrees=lambda question: bool(options.yes) or asks(question),
        consents=lambda question: not options.yes and asks(question),
    )


def virtual_map(options: argparse.Namespace) -> int:
    """Print the virtual alias table: each exact address and its mailbox (unrouted_to).

    Wildcards and patterns get no entry, because an entry would capture the mail of every mailbox in
    the domain. With --write, the table is written to a file next to main.cf and compiled if it has
    changed.
    """
    if options.write and options.in_force:
        return write_tables_in_force(options, print, say)
    config = load_config(options.config)
    if options.write:
        return write_map(options, config, print, say)
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
    return _attach(options, load_config(options.config), print, say)


def detach_milter(options: argparse.Namespace) -> int:
    """Undo what attach changed in Postfix; changes made by others since are kept.

    It also removes crm-milter where it was configured by hand, in all Postfix instances unless one
    is chosen. Mail for addresses that only the table of virtual aliases knows is refused (550)
    afterwards: while the milter is down it is only deferred (451), so do not detach to get mail
    flowing, but run "crm-milter attach --when-down accept".
    """
    return _detach(options, print, say)
