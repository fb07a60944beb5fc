"""``pause`` and ``resume``: a rule that leaves its mail for a while."""

import argparse
import json
import os
import time
from pathlib import Path

from crm_milter.cli import options as common
from crm_milter.cli.terminal import EX_NO, EX_OK, load_config, say
from crm_milter.config import paused
from crm_milter.config.problems import ConfigError
from crm_milter.config.values import is_rule_name, span
from crm_milter.postfix.postconf import Postconf, PostfixError
from crm_milter.wording import counted, printable, suggestion, why

_LONGEST = 30 * 86400  # seconds
_BEFORE, _AFTER = 6 * 3600, 60  # seconds from a message's arrival to the word that it is held


def pause_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("rule", metavar="RULE", help="name of the rule")
    command.add_argument(
        "--for",
        dest="seconds",
        type=common.kind(_duration),
        required=True,
        metavar="TIME",
        help="how long: a number with s, m, h or d, such as 90m or 2h; up to 30d",
    )
    command.add_argument("--why", default="", metavar="TEXT", help="a reason, for the log")
    command.add_argument(
        "--hold",
        action="store_true",
        help="put mail into Postfix's hold queue instead of leaving it",
    )


def resume_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("rule", metavar="RULE", help="name of the rule")
    command.add_argument(
        "--config-directory",
        type=Path,
        metavar="DIR",
        help="of the Postfix whose held mail is released (default: that of postconf)",
    )


def _duration(text: str) -> int:
    return span(text, _LONGEST, "30d")


def pause(options: argparse.Namespace) -> int:
    """Let a rule leave its mail for a while, as it leaves spam: it goes to unrouted_to.

    The pause ends by itself, or by "crm-milter resume", and survives a restart. With --hold,
    messages wait in Postfix's hold queue if it applies to all their recipients, until "crm-milter
    resume" releases them; others, and mail from sendmail(1), are left.
    """
    if not _is_rule(options.rule, options.config):
        return EX_NO
    now, directory = time.time(), paused.folder()
    reason = printable(" ".join(options.why.split()))[:200]
    pause = paused.Pause(now, now + options.seconds, options.hold, reason)
    try:
        with paused.alone(directory):
            paused.write(directory, {**paused.current(directory), options.rule: pause})
    except OSError as error:
        return _failed(directory, error)
    time.sleep(2 * paused.GLANCE)  # from here on every worker knows
    until = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now + options.seconds))
    print(f"{options.rule}: paused until {until}, mail is {'held' if options.hold else 'left'}")
    return EX_OK


def _is_rule(name: str, config: Path) -> bool:
    """Tell whether there may be such a rule: the service goes on with the rules of a valid file."""
    try:
        names = [rule.name for rule in load_config(config).policy.table.rules]
    except ConfigError as error:
        if config.exists() and is_rule_name(name):
            say(f"{error.problems[0]}")
            say(f'warning: {config} is invalid; whether there is a rule "{name}" is not known')
            return True
        raise
    if name not in names:
        say(f'there is no rule "{printable(name)}" in {config}{suggestion(name, names)}')
    return name in names


def _failed(directory: Path, error: OSError) -> int:
    hint = "; run it as root" if os.geteuid() != 0 else ""
    say(f"cannot write in {directory}, the state directory of the service: {why(error)}{hint}")
    return EX_NO


def resume(options: argparse.Namespace) -> int:
    """End the pause of a rule, and release the mail that was held for it.

    Only messages that crm-milter put on hold for this rule are released; not those that wait for
    another paused rule as well.
    """
    directory = paused.folder()
    is_known = options.rule in paused.current(directory)
    if not is_known and not paused.held(directory, options.rule):
        say(f'rule "{printable(options.rule)}" is not paused')
        return EX_NO
    try:
        with paused.alone(directory):
            pauses = paused.current(directory)
            pauses.pop(options.rule, None)
            paused.write(directory, pauses)
    except OSError as error:
        return _failed(directory, error)
    time.sleep(2 * paused.GLANCE)  # from here on no message is held
    try:
        released = _released(options, directory, set(pauses))
    except (PostfixError, OSError) as error:
        reason = why(error) if isinstance(error, OSError) else str(error)
        say(f"{options.rule}: resumed, but held mail is not released: {reason}")
        return EX_NO
    more = "" if released is None else f", {counted(released, 'message')} released"
    print(f"{options.rule}: resumed{more}")
    return EX_OK


def _released(options: argparse.Namespace, directory: Path, paused_still: set[str]) -> int | None:
    """Release what was held for a rule alone; return how many messages, None if none was held."""
    waiting = paused.held(directory, options.rule)
    if not waiting:
        return None
    others = {each for rule in paused_still for each in paused.held(directory, rule)}
    ours = {each: noted for each, noted in waiting.items() if each not in others}
    released = _release(Postconf(options.config_directory), ours)
    paused.forget_held(directory, options.rule)
    return released


def _release(postconf: Postconf, waiting: dict[str, float]) -> int:
    """Release those of these messages that are on hold; return how many."""
    if not waiting:
        return 0
    listed = postconf.run("postqueue", "-j")
    if listed.returncode != 0:
        raise PostfixError(f"postqueue: {listed.stderr.strip()}")
    ours = [
        str(entry["queue_id"])
        for entry in map(json.loads, listed.stdout.splitlines())
        if entry["queue_name"] == "hold" and _is_that(entry, waiting)
    ]
    if ours:
        # Not as arguments: of these the system takes only so many.
        done = postconf.run("postsuper", "-H", "-", stdin="".join(f"{each}\n" for each in ours))
        if done.returncode != 0:
            raise PostfixError(f"postsuper: {done.stderr.strip()}")
    return len(ours)


def _is_that(entry: dict[str, object], waiting: dict[str, float]) -> bool:
    """Tell whether a message is one that was held, and not a later one with the same queue id."""
    noted, arrived = waiting.get(str(entry["queue_id"])), float(str(entry["arrival_time"]))
    return noted is not None and noted - _BEFORE <= arrived <= noted + _AFTER
