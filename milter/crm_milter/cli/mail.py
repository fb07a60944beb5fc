"""The commands about mail under way, ``verify`` and ``trace``: arguments in, words out.

``show`` prints a line of the result, ``say`` a diagnostic.
"""

import argparse
import json
import socket
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from datetime import datetime, timedelta
from pathlib import Path

from crm_milter.address import strip_path
from crm_milter.cli.terminal import load_config, say
from crm_milter.config.load import Config
from crm_milter.mailbox import mailbox
from crm_milter.postfix import mailserver
from crm_milter.postfix.postconf import Postconf, PostfixError
from crm_milter.trace import failing, report, search
from crm_milter.trace import sources as logsource
from crm_milter.trace.file import LogError
from crm_milter.trace.lines import is_queue_id
from crm_milter.verify import probe, run

GOOD, NO, USAGE = 0, 1, 2
BLIND = 2  # nothing can be said: the log cannot be read
WINDOW = timedelta(days=7)  # longer than mail stays in a queue (maximal_queue_lifetime)

Show = Callable[[str], None]


def verify_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``verify``."""
    command.add_argument(
        "address", type=_address, metavar="ADDRESS", help="recipient of the test message"
    )
    command.add_argument(
        "--via",
        type=_server,
        metavar="HOST:PORT",
        help="SMTP server to send it to (default: that of this Postfix, 127.0.0.1:25)",
    )
    command.add_argument(
        "--from",
        dest="sender",
        type=_address,
        metavar="ADDRESS",
        help="envelope sender (default: postmaster at this host)",
    )
    command.add_argument(
        "--spam", action="store_true", help="send a spam test message, which must not reach the CRM"
    )
    command.add_argument(
        "--spam-line",
        default=probe.GTUBE,
        metavar="TEXT",
        help="line that makes the test message spam (default: the GTUBE string)",
    )
    command.add_argument(
        "--timeout",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="seconds to wait for the result in the log (default: 60)",
    )
    command.add_argument("--yes", action="store_true", help="do not ask for confirmation")
    _with_logs(command)


def trace_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``trace``; "--json" is the caller's."""
    command.add_argument(
        "what",
        nargs="?",
        metavar="QUEUEID|ADDRESS",
        help="a queue id, or an address for all messages from or to it",
    )
    command.add_argument(
        "--since",
        type=_since,
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
    _with_logs(command)


def _with_logs(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--log",
        action="extend",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="read these files instead of the log of Postfix, syslog or the journal",
    )
    command.add_argument(
        "--config-directory",
        type=Path,
        metavar="DIR",
        help="Postfix configuration directory, as for postconf -c",
    )


def _address(text: str) -> str:
    try:
        return mailbox(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _server(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(probe.SMTP_PORT)
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isdecimal() and 0 < int(port) < 65536):
        raise argparse.ArgumentTypeError(f'expected HOST:PORT, not "{text}"')
    return host, int(port)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'expected seconds, not "{text}"') from None


def _since(text: str) -> datetime:
    try:
        return search.since(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _verify(options: argparse.Namespace, config: Config, show: Show, say: Show) -> int:
    """Send a probe and return the exit status: 0 only if it arrived, or provably stayed."""
    sender = options.sender or _default_sender(options)
    server = options.via or mailserver.smtpd(options.config_directory)
    spam_line = options.spam_line if options.spam else ""
    sent = probe.Probe(probe.new_token(), sender, options.address, spam_line)
    try:
        planned = run.plan(config, sent, mailserver.host_of(_of_postfix(options, "relayhost")))
        with _sources(options, run.started(), say) as sources:
            logsource.check(sources)
            for line in run.announcement(planned):
                show(line)
            if not options.yes and not _agreed(say):
                return USAGE
            outcome = run.run(planned, server, sources, options.timeout, show)
    except (run.NothingToVerifyError, LogError) as error:
        say(str(error))
        return NO
    return GOOD if outcome.is_good else NO


def _agreed(say: Show) -> bool:
    if not sys.stdin.isatty():
        say("standard input is not a terminal: use --yes to send without asking")
        return False
    try:
        return input("send it? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False


def _trace(options: argparse.Namespace, show: Show, say: Show) -> int:
    """Show messages, or the targets that fail, and return the exit status."""
    _take_from_logs(options, "what")
    what = options.what = _sought(options.what) if options.what else None
    is_address = "@" in what if what else False
    if what is None and not options.failing:
        say("name a queue id or an address, or use --failing")
        return USAGE
    if what and not is_address and (options.failing or not is_queue_id(what)):
        say(
            f'"{what}" is'
            f" {'not an address' if options.failing else 'neither a queue id nor an address'}"
        )
        return USAGE
    try:
        with _sources(options, options.since, say) as sources:
            read = logsource.readable(sources, _warning(say))
            if options.failing:
                return _failing(options, read, show, say)
            return _stories(options, read or sources, show, say)
    except LogError as error:
        say(str(error))
        return BLIND


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


def _warning(say: Show) -> Show:
    return lambda text: say(f"warning: {text}")


def _stories(
    options: argparse.Namespace, sources: list[logsource.Source], show: Show, say: Show
) -> int:
    what: str = options.what
    if "@" in what:
        story = search.by_address(sources, what, options.limit)
    else:
        story = search.Found(search.by_queue_ids(sources, frozenset({what})), [])
    if options.json:
        show(json.dumps(report.as_json(story), indent=2))
    elif story:
        show("\n".join(report.text(story)))
    else:
        say(f'"{what}" not found in {", ".join(source.name for source in sources)}')
    return GOOD if story else NO


def _failing(
    options: argparse.Namespace, sources: list[logsource.Source], show: Show, say: Show
) -> int:
    if not sources:
        raise LogError("no line in the log")
    failed = failing.failing(sources, options.what)
    if not any(each.holds(failing.is_ours) for each in sources):
        names = ", ".join(each.name for each in sources)
        say(f"warning: no decision of crm-milter in {names}: is its log being read? see --log")
    if options.json:
        show(json.dumps(failing.as_json(failed), indent=2))
    else:
        show("\n".join(failing.text(failed)) or "no failing targets")
    return NO if failed else GOOD


def _sources(
    options: argparse.Namespace, since: datetime | None, say: Show
) -> AbstractContextManager[list[logsource.Source]]:
    if options.log:
        return logsource.given(options.log, since, _warning(say))
    start = since or datetime.now().astimezone() - WINDOW
    return logsource.found(start, _of_postfix(options, "maillog_file"), _warning(say))


def _default_sender(options: argparse.Namespace) -> str:
    """Return postmaster at this mail server."""
    return f"postmaster@{_of_postfix(options, 'myhostname') or socket.getfqdn()}"


def _of_postfix(options: argparse.Namespace, parameter: str) -> str:
    """Return the value of a parameter of Postfix, "" if there is none to ask."""
    with suppress(PostfixError):
        return Postconf(options.config_directory).value(parameter)
    return ""


def verify_address(options: argparse.Namespace) -> int:
    """Send a real message to an address and follow it to the CRM's server.

    The CRM will open a case. With --spam, the message must not reach the CRM. The exit status is 0
    only if the log proves the expected result.
    """
    return _verify(options, load_config(options.config), print, say)


def trace_mail(options: argparse.Namespace) -> int:
    """Follow messages through the mail log: what crm-milter decided and what Postfix did.

    The exit status is 1 if nothing was found or, with --failing, if a target is failing; it is 2 if
    the log cannot be read.
    """
    return _trace(options, print, say)
