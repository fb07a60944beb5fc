"""The command ``test``: expectations of the rules, checked without a mail server."""

import argparse
from pathlib import Path

from crm_milter.cli.terminal import EX_NO, EX_OK, load_config, say
from crm_milter.config.problems import ConfigError, Problem
from crm_milter.dryrun import testreport
from crm_milter.dryrun.cases import Case, read
from crm_milter.dryrun.comparison import run
from crm_milter.dryrun.decided import DryRun
from crm_milter.wording import why


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="test cases (YAML)")
    command.add_argument("--tap", action="store_true", help="print TAP instead of the differences")
    command.add_argument("--junit", type=Path, metavar="FILE", help="also write JUnit XML there")


def test_rules(options: argparse.Namespace) -> int:
    """Check that the rules do what test cases expect.

    A case is an envelope, header fields and the expected words of the log; nothing is sent. The
    exit status is 1 if a case failed, and 78 if a file is not valid.
    """
    cases = _cases(options.files)
    rules = DryRun(load_config(options.config).policy)
    results = [run(case, rules) for case in cases]
    if options.junit:
        try:
            options.junit.write_bytes(testreport.junit(results))
        except OSError as error:
            say(f"{options.junit}: {why(error)}")
            return EX_NO
    lines = testreport.tap(results) if options.tap else testreport.text(results)
    print("\n".join(lines))
    return EX_NO if any(each.differences for each in results) else EX_OK


def _cases(files: list[Path]) -> list[Case]:
    """Return the cases of all files; raises ConfigError with the problems of all."""
    cases: list[Case] = []
    problems: list[Problem] = []
    for file in files:
        try:
            cases += read(file)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(tuple(problems))
    return cases
