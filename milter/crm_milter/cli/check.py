"""``check``: the problems of the configuration, and with --postfix those of Postfix."""

import argparse
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from crm_milter.cli import options
from crm_milter.cli.terminal import EX_NO, EX_OK, load_config, say
from crm_milter.config import keys
from crm_milter.config.json_schema import json_schema
from crm_milter.config.load import Config
from crm_milter.config.problems import ConfigError, Problem, Severity
from crm_milter.config.sources import Disk
from crm_milter.daemon import reloading, unit
from crm_milter.postfix.checks import finding, run, verdicts
from crm_milter.postfix.checks.finding import Finding
from crm_milter.postfix.postconf import Postconf, PostfixError
from crm_milter.postfix.site import Site
from crm_milter.wording import counted


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--postfix", action="store_true", help="also check this host's Postfix")
    options.config_directory(command)
    options.json(command)


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
            print(_as_json(options.config, None, errors=list(map(str, error.problems))))
        raise
    files = [*disk.digests, *disk.databases]
    outside = [*_silences(options.config, config), *_rows(config), *_unfit(options, config, files)]
    config = replace(config, warnings=(*config.warnings, *outside))
    if options.postfix:
        return _check_postfix(options, config)
    if options.json:
        print(_as_json(options.config, config))
        return EX_OK
    rules = config.policy.table.rules
    count = f", {counted(len(rules), 'rule')}" if rules else _no_rules(config)
    print(f"{options.config}: OK{count}")
    return EX_OK


def _silences(file: Path, config: Config) -> Iterator[Problem]:
    """Print and yield what the configuration of the spam filter needs."""
    for message in verdicts.warnings(config.policy):
        problem = Problem(str(file), 0, "", message, Severity.WARNING)
        say(str(problem))
        yield problem


def _rows(config: Config) -> Iterator[Problem]:
    """Print and yield what is wrong in the tables that are asked for each address."""
    if not config.policy.table.live():
        return
    from crm_milter.config.lint import live  # here: SQLite takes time to load

    for problem in live.warnings(config.policy.table):
        say(str(problem))
        yield problem


def _unfit(options: argparse.Namespace, config: Config, files: Iterable[str]) -> list[Problem]:
    """Print and return what the service cannot do with the files; raises ConfigError."""
    service = unit.unit()
    found = list(unit.problems(options.config, config, service, files))
    found += _locked_out(config, service.user, service.groups)
    if any(each.severity is Severity.ERROR for each in found):
        if options.json:
            print(_as_json(options.config, None, errors=list(map(str, found))))
        raise ConfigError(tuple(found))
    for problem in found:
        say(str(problem))
    return found


def _locked_out(config: Config, user: str, groups: Iterable[str] = ()) -> Iterator[Problem]:
    """Yield which tables the service cannot read because of their journal."""
    if not config.policy.table.live() or os.geteuid() != 0:
        return
    from crm_milter.tables.database import is_wal  # here: SQLite takes time to load

    paths = [each.path for each in config.policy.table.live() if is_wal(each.path)]
    closed = set(unit.unwritable(user, {str(path.parent) for path in paths}, groups))
    for path in paths:
        if str(path.parent) in closed:
            message = (
                f'is in WAL mode, and the user "{user}" of {unit.UNIT} cannot write in its'
                " directory; run: sqlite3 FILE 'PRAGMA journal_mode = DELETE'"
            )
            yield Problem(str(path), 0, "", message, Severity.WARNING)


def _check_postfix(options: argparse.Namespace, config: Config) -> int:
    """Print what is wrong between the configuration and Postfix; 1 where that is an error."""
    try:
        found = run.check(
            Site(config, options.config.absolute(), Postconf(options.config_directory))
        )
    except PostfixError as error:
        if options.json:
            print(_as_json(options.config, config, errors=[str(error)]))
        say(str(error))
        return EX_NO
    if options.json:
        print(_as_json(options.config, config, found))
    else:
        for line in finding.lines(found):
            print(line)
        result = (
            f"checked with Postfix: {finding.count_text(found)}"
            if found
            else "OK, Postfix configuration included"
        )
        print(f"{options.config}: {result}{_no_rules(config)}")
    return EX_NO if any(each.severity is Severity.ERROR for each in found) else EX_OK


def _no_rules(config: Config) -> str:
    """Return a remark on a file without rules, which is valid but rarely intended."""
    return "" if config.policy.table.rules else ", but there are no rules: no mail is rerouted"


def _as_json(
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


def reload_service(_options: argparse.Namespace) -> int:
    """Have the running service read its configuration again, and wait for the result.

    The exit status is 1 if the service keeps using the previous rules.
    """
    return EX_OK if reloading.reload(print, say) else EX_NO


def print_schema(options: argparse.Namespace) -> int:  # noqa: ARG001 - as every command
    """Print the JSON Schema of the configuration, for editors.

    The schema covers keys and value formats; only "check" finds conflicts between them.
    """
    print(json.dumps(json_schema(keys.ROOT, "crm-milter"), indent=2))
    return EX_OK
