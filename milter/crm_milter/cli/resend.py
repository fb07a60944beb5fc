"""The command ``resend``: what the CRM rejected, handed in again."""

import argparse
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

from crm_milter.cli import options as shared
from crm_milter.cli.options import kind
from crm_milter.cli.terminal import EX_NO, EX_OK, load_config, read_stdin, say
from crm_milter.config.listen import host_port
from crm_milter.mailbox import mailbox
from crm_milter.postfix import mailserver
from crm_milter.resend import maildir, record
from crm_milter.resend.letter import Letter, Letters
from crm_milter.resend.report import NotOursError
from crm_milter.verify import probe
from crm_milter.wording import counted, printable, why

_STDIN = "-"


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "messages",
        metavar="FILE",
        help="a delivery report or a message, a Maildir of them, or - for standard input",
    )
    command.add_argument("--dry-run", action="store_true", help="only show what would be handed in")
    command.add_argument(
        "--to",
        type=kind(mailbox),
        metavar="ADDRESS",
        help="recipient, instead of the one that the report or the message names",
    )
    command.add_argument(
        "--via",
        type=kind(lambda text: host_port(text, default_port=probe.SMTP_PORT)),
        metavar="HOST:PORT",
        help="SMTP server to hand it to (default: that of this Postfix, 127.0.0.1:25)",
    )
    shared.config_directory(command)


def resend_mail(options: argparse.Namespace) -> int:
    """Hand in again what the CRM rejected.

    Takes the message, its sender and its recipient out of a delivery report in the mailbox of
    dead_letters, or takes a message as it is, such as the copy in a team's mailbox. What was handed
    in once is not handed in again; in a Maildir it gets the flag P. The exit status is 0 only if
    nothing is left to do.
    """
    letters = Letters(load_config(options.config).policy)
    server = options.via or _server(options)
    try:
        paths = list(_paths(options.messages))
        with nullcontext(_read()) if options.dry_run else record.opened() as known:
            left = [each for each in paths if not _resent(each, letters, server, known, options)]
    except OSError as error:
        say(f"{error.filename or options.messages}: {why(error)}")
        return EX_NO
    if len(paths) != 1:
        print(f"{counted(len(paths), 'message')}, {len(left)} not sent")
    return EX_NO if left else EX_OK


def _server(options: argparse.Namespace) -> tuple[str, int]:
    return ("", 0) if options.dry_run else mailserver.smtpd(options.config_directory)


def _read() -> record.Record | None:
    try:
        return record.read()
    except OSError as error:
        say(f"warning: cannot tell what was sent again before: {record.path()}: {why(error)}")
        return None


def _paths(name: str) -> Iterator[Path]:
    path = Path(name)
    if name == _STDIN or not path.is_dir():
        yield path
    elif maildir.is_maildir(path):
        yield from maildir.messages(path)
    else:
        raise OSError(0, "is a directory, but not a maildir", name)


def _resent(
    path: Path,
    letters: Letters,
    server: tuple[str, int],
    known: record.Record | None,
    options: argparse.Namespace,
) -> bool:
    """Hand in one message, say what became of it, and tell whether nothing is left to do."""
    try:
        octets = read_stdin() if str(path) == _STDIN else path.read_bytes()
        letter = letters.letter(octets, options.to or "")
    except (NotOursError, OSError) as error:
        say(f"{path}: {why(error) if isinstance(error, OSError) else printable(str(error))}")
        return False
    if before := known.queue_id(letter.known_as) if known else "":
        print(f"sent again before: {_words(letter)} queue_id={before} {path}")
    elif known is None or options.dry_run:
        print(f"would send again: {_words(letter)} size={len(letter.message)} {path}")
    elif not _sent(letter, server, known, path):
        return False
    return options.dry_run or _marked(path)


def _marked(path: Path) -> bool:
    try:
        maildir.mark(path)
    except OSError as error:
        say(f"{path}: cannot be marked as sent again: {why(error)}")
        return False
    return True


def _sent(letter: Letter, server: tuple[str, int], known: record.Record, path: Path) -> bool:
    reply = probe.hand_in(server, letter.sender, letter.recipients, letter.message)
    if not reply.accepted:
        say(f"{path}: not sent again: {_words(letter)}: {printable(str(reply))}")
        return False
    try:
        known.add(letter.known_as, reply.queue_id)
    finally:  # it was sent, even if that cannot be taken down
        words = f"{_words(letter)} queue_id={reply.queue_id}"
        print(f"sent again: {words} {path}: {printable(str(reply))}")
    return True


def _words(letter: Letter) -> str:
    to = ",".join(f"<{printable(each)}>" for each in letter.recipients)
    old = f" rejected_as={printable(letter.queue_id)}" if letter.queue_id else ""
    return f"to={to} from=<{printable(letter.sender)}>{old}"
