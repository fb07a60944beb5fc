"""The commands except ``serve``: name, function, and what adds its arguments."""

import argparse
from collections.abc import Callable

from crm_milter.cli import (
    attach,
    check,
    explain,
    importing,
    load,
    pause,
    replaying,
    resend,
    rules,
    testing,
    trace,
    verify,
)
from crm_milter.cli import virtual_map as aliases
from crm_milter.cli.terminal import Command, add_command

Arguments = Callable[[argparse.ArgumentParser], None]

COMMANDS: tuple[tuple[str, Command, Arguments | None], ...] = (
    ("check", check.check, check.arguments),
    ("explain", explain.explain_message, explain.arguments),
    ("test", testing.test_rules, testing.arguments),
    ("replay", replaying.replay_mail, replaying.arguments),
    ("rules", rules.list_rules, rules.arguments),
    ("map", aliases.virtual_map, aliases.arguments),
    ("import", importing.import_aliases, importing.arguments),
    ("load", load.load_table, load.arguments),
    ("pause", pause.pause, pause.pause_arguments),
    ("resume", pause.resume, pause.resume_arguments),
    ("reload", check.reload_service, None),
    ("attach", attach.attach_milter, attach.attach_arguments),
    ("detach", attach.detach_milter, attach.detach_arguments),
    ("schema", check.print_schema, None),
    ("verify", verify.verify_address, verify.arguments),
    ("trace", trace.trace_mail, trace.arguments),
    ("resend", resend.resend_mail, resend.arguments),
)


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    for name, function, arguments in COMMANDS:
        command = add_command(commands, name, function)
        if arguments:
            arguments(command)
