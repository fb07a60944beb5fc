"""The command ``trace``: messages, or the targets that fail, in the mail log."""

import argparse
import json
from pathlib import Path

from crm_milter.address import strip_path
from crm_milter.cli import options
from crm_milter.cli.logs import sources, warn
from crm_milter.cli.options import kind
from crm_milter.cli.terminal import EX_NO, EX_OK, EX_USAGE, say
from crm_milter.trace import failing, report, search
from crm_milter.trace import sources as logsource
from crm_milter.trace.file import LogError
from crm_milter.trace.lines import is_queue_id

_BLIND = 2  # nothing can be said: the log cannot be read


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "what",
        nargs="?",
        metavar="QUEUEID|ADDRESS",
        help="a queue id, or an address for all messages from or to it",
    )
    command.add_argument(
        "--since",
        type=kind(search.since),
        metavar="TIME",
        help="30m, 2h, 3d, 1w, today, yesterday or 2026-11-22 10:00 (default: 7d; with --log,"
        " the whole files)",
    )
    command.add_argument(
        "--failing",
        action="store_true",
        help="list targets whose mail is deferred or bounced",
    )
    command.add_argument(
        "--limit",
        type=int,
        default=100,
        metavar="N",
        help="show at most the newest N messages (default: 100)",
    )
    options.logs(command)
    options.json(command)


def trace_mail(options: argparse.Namespace) -> int:
    """Follow messages through the mail log: what crm-milter decided and what Postfix did.

    The exit status is 1 if nothing was found or, with --failing, if a target is failing; it is 2 if
    the log cannot be read.
    """
    _take_from_logs(options, "what")
    what = options.what = _sought(options.what) if options.what else None
    is_address = "@" in what if what else False
    if what is None and not options.failing:
        say("name a queue id or an address, or use --failing")
        return EX_USAGE
    if what and not is_address and (options.failing or not is_queue_id(what)):
        say(
            f'"{what}" is'
            f" {'not an address' if options.failing else 'neither a queue id nor an address'}"
        )
        return EX_USAGE
    try:
        with sources(options, options.since) as found:
            read = logsource.readable(found, warn)
            if options.failing:
                return _failing(options, read)
            return _stories(options, read or found)
    except LogError as error:
        say(str(error))
        return _BLIND


def _take_from_logs(options: argparse.Namespace, name: str) -> None:
    """Let what is looked for also follow a file of --log, which takes several."""
    logs = options.log or []
    if getattr(options, name) is None and len(logs) > 1:
        for number, path in enumerate(map(str, logs)):
            if not Path(path).exists() and ("@" in path or is_queue_id(_sought(path))):
                setattr(options, name, path)
                options.log = [*logs[:number], *logs[number + 1 :]]
                return


def _sought(text: str) -> str:
    """Return a queue id or an address as a person copies it: from mailq, a header or a link."""
    text = text.strip().removeprefix("mailto:")
    if text.endswith(">") and "<" in text:
        text = text[text.rindex("<") :]
    found = strip_path(text).rstrip(":;,")
    return found if "@" in found else found.rstrip("*!#")


def _stories(options: argparse.Namespace, sources: list[logsource.Source]) -> int:
    what: str = options.what
    if "@" in what:
        story = search.by_address(sources, what, options.limit)
    else:
        story = search.Found(search.by_queue_ids(sources, frozenset({what})), [])
    if options.json:
        print(json.dumps(report.as_json(story), indent=2))
    elif story:
        print("\n".join(report.text(story)))
    else:
        say(f'"{what}" not found in {", ".join(source.name for source in sources)}')
    return EX_OK if story else EX_NO


def _failing(options: argparse.Namespace, sources: list[logsource.Source]) -> int:
    if not sources:
        raise LogError("no line in the log")
    failed = failing.failing(sources, options.what)
    if not any(each.holds(failing.is_ours) for each in sources):
        names = ", ".join(each.name for each in sources)
        warn(f"no decision of crm-milter in {names}: is its log being read? see --log")
    if options.json:
        print(json.dumps(failing.as_json(failed), indent=2))
    else:
        print("\n".join(failing.text(failed)) or "no failing targets")
    return EX_NO if failed else EX_OK
