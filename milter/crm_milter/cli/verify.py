"""The command ``verify``: a real message, followed to the CRM's server."""

import argparse
import re
import socket
import sys

from crm_milter.cli import options
from crm_milter.cli.logs import of_postfix, sources
from crm_milter.cli.options import kind
from crm_milter.cli.terminal import EX_NO, EX_OK, EX_USAGE, asks, load_config, say
from crm_milter.config.listen import host_port
from crm_milter.mailbox import mailbox
from crm_milter.postfix import mailserver
from crm_milter.trace import sources as logsource
from crm_milter.trace.file import LogError
from crm_milter.verify import probe, run
from crm_milter.verify.acknowledgement import marked


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "address", type=kind(mailbox), metavar="ADDRESS", help="recipient of the test message"
    )
    command.add_argument(
        "--via",
        type=kind(_server),
        metavar="HOST:PORT",
        help="SMTP server to send it to (default: that of this Postfix, 127.0.0.1:25)",
    )
    command.add_argument(
        "--from",
        dest="sender",
        type=kind(mailbox),
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
    _waiting(command)
    options.yes(command)
    options.logs(command)


def _waiting(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--timeout",
        type=kind(_seconds),
        default=60.0,
        metavar="S",
        help="seconds to wait for the result in the log (default: 60)",
    )
    command.add_argument(
        "--until-case",
        type=kind(_span),
        default=0.0,
        metavar="TIME",
        help="then wait up to this long (30s, 5m, 1h) for the CRM's acknowledgement to the sender",
    )


def _server(text: str) -> tuple[str, int]:
    return host_port(text, default_port=probe.SMTP_PORT)


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f'expected seconds, not "{text}"') from None


def _span(text: str) -> float:
    found = re.fullmatch(r"(\d{1,6}) ?([smh]?)", text, re.ASCII)
    if not found or not int(found[1]):
        raise ValueError(f'expected a time such as "90s" or "5m", not "{text}"')
    return float(int(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]])


def verify_address(options: argparse.Namespace) -> int:
    """Send a real message to an address and follow it to the CRM's server.

    The CRM will open a case. With --spam, the message must not reach the CRM. The exit status is 0
    only if the log proves the expected result.

    With --until-case the sender is an address that no other mail has; mail to it is the CRM's
    acknowledgement, or, with a null sender, the message that the CRM returned.
    """
    if options.until_case and options.spam:
        say("--until-case has no effect with --spam: spam opens no case")
        return EX_USAGE
    config = load_config(options.config)
    sender = options.sender or _default_sender(options)
    server = options.via or mailserver.smtpd(options.config_directory)
    if options.until_case:
        sender = marked(sender, config.recipient_delimiter)
    spam_line = options.spam_line if options.spam else ""
    sent = probe.Probe(probe.new_token(), sender, options.address, spam_line, options.until_case)
    try:
        through = mailserver.relayhosts(config, options.config, options.config_directory)
        planned = run.plan(config, sent, through)
        with sources(options, run.started()) as read:
            logsource.check(read)
            for line in run.announcement(planned):
                print(line)
            if not options.yes and not _agreed():
                return EX_USAGE
            outcome = run.run(planned, server, read, options.timeout, print)
    except (run.NothingToVerifyError, LogError) as error:
        say(str(error))
        return EX_NO
    return EX_OK if outcome.is_good else EX_NO


def _agreed() -> bool:
    if not sys.stdin.isatty():
        say("standard input is not a terminal: use --yes to send without asking")
        return False
    return asks("send it")


def _default_sender(options: argparse.Namespace) -> str:
    """Return postmaster at this mail server."""
    return f"postmaster@{of_postfix(options, 'myhostname') or socket.getfqdn()}"
