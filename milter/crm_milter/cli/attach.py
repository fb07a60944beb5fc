"""The commands ``attach`` and ``detach``: crm-milter in the configuration of Postfix, or out."""

import argparse
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from crm_milter.cli import options
from crm_milter.cli.terminal import EX_NO, EX_OK, asks, load_config, say
from crm_milter.config import keys_of_service, listen
from crm_milter.config.listen import Listener
from crm_milter.config.load import load
from crm_milter.config.problems import ConfigError
from crm_milter.postfix import instances
from crm_milter.postfix.attach.attach import Terminal, Wish, attach
from crm_milter.postfix.attach.detach import detach
from crm_milter.postfix.attach.interrupt import Interrupted, interruptible
from crm_milter.postfix.postconf import Postconf, PostfixError
from crm_milter.postfix.site import Site


def attach_arguments(command: argparse.ArgumentParser) -> None:
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


def attach_milter(options: argparse.Namespace) -> int:
    """Configure Postfix to use the milter: show the changes, ask, apply and test them.

    This sets smtpd_milters, non_smtpd_milters, virtual_alias_maps (the table that "map" prints) and
    notify_classes, and, if needed, bounce_size_limit, receive_override_options and
    enable_original_recipient. If the test or the command itself fails, everything is rolled back,
    except what others changed since.
    With --when-down accept it may also be run while the milter is down: mail then goes to
    unrouted_to instead of being deferred, until "crm-milter attach" is run again.
    """
    wish = Wish(options.when_down, options.discard_dsn, proof=not options.no_proof)
    config, postconf = load_config(options.config), Postconf(options.config_directory)
    site = Site(config, options.config.absolute(), postconf)
    return _carry_out(lambda: attach(site, wish, _terminal(options)))


def detach_arguments(command: argparse.ArgumentParser) -> None:
    options.yes(command)
    options.config_directory(command)


def detach_milter(options: argparse.Namespace) -> int:
    """Undo what attach changed in Postfix; changes made by others since are kept.

    It also removes crm-milter where it was configured by hand, in all Postfix instances unless one
    is chosen. Mail for addresses that only the table of virtual aliases knows is refused (550)
    afterwards: while the milter is down it is only deferred (451), so do not detach to get mail
    flowing, but run "crm-milter attach --when-down accept".
    """
    chosen = options.config_directory
    found = [Postconf(chosen)] if chosen else instances.all_instances()
    if not found:
        print("nothing to detach: there is no configured Postfix")
    listeners, terminal = _listeners(options.config), _terminal(options)
    return _carry_out(lambda: _detach_all(found, listeners, terminal))


def _detach_all(found: list[Postconf], listeners: list[Listener], terminal: Terminal) -> bool:
    done = True
    for each in found:
        try:
            done = detach(each, listeners, terminal) and done
        except PostfixError as error:  # what one refuses must not keep the next
            say(str(error))
            done = False
    return done


def _carry_out(action: Callable[[], bool]) -> int:
    try:
        with interruptible():
            return EX_OK if action() else EX_NO
    except PostfixError as error:
        say(str(error))
    except Interrupted as error:
        with suppress(OSError):  # the terminal may be gone
            say(f"interrupted by {error}")
    return EX_NO


def _listeners(path: Path) -> list[Listener]:
    """Return where crm-milter may listen, as far as a file says that may have errors."""
    found = [listen.listener(str(keys_of_service.MILTER.keys["listen"].default))]
    with suppress(ConfigError, OSError, UnicodeError):
        return [*found, load(path).milter.listen]
    with suppress(ValueError, OSError):
        texts = re.findall(r"listen:\s*[\"']?((?:unix|inet6?):[^\"'\s#,}]+)", path.read_text())
        found += [listen.listener(each) for each in texts]
    return found


def _terminal(options: argparse.Namespace) -> Terminal:
    def tell(line: str) -> None:
        with suppress(OSError):  # a reader that has gone must not stop what was begun
            print(line)

    return Terminal(
        tell,
        confirm=lambda question: bool(options.yes) or asks(question),
        consents=lambda question: not options.yes and asks(question),
    )
