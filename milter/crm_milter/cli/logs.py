"""The mail log as the commands read it: the files of --log, or where this Postfix logs."""

import argparse
from contextlib import AbstractContextManager, suppress
from datetime import datetime, timedelta

from crm_milter.cli.terminal import say
from crm_milter.postfix.postconf import Postconf, PostfixError
from crm_milter.trace import sources as logsource

WINDOW = timedelta(days=7)  # longer than mail stays in a queue (maximal_queue_lifetime)


def sources(
    options: argparse.Namespace, since: datetime | None
) -> AbstractContextManager[list[logsource.Source]]:
    if options.log:
        return logsource.given(options.log, since, warn)
    start = since or datetime.now().astimezone() - WINDOW
    return logsource.found(start, of_postfix(options, "maillog_file"), warn)


def warn(text: str) -> None:
    say(f"warning: {text}")


def of_postfix(options: argparse.Namespace, parameter: str) -> str:
    """Return the value of a parameter of Postfix, "" if there is none to ask."""
    with suppress(PostfixError):
        return Postconf(options.config_directory).value(parameter)
    return ""
