"""The commands beside ``serve``, each with its arguments."""

import argparse

from crm_milter.cli import importing, mail, postfix, testing
from crm_milter.cli.check import check, print_schema, reload_service
from crm_milter.cli.explain import explain_message
from crm_milter.cli.mail import trace_mail, verify_address
from crm_milter.cli.postfix import attach_milter, detach_milter, virtual_map
from crm_milter.cli.rules import list_rules
from crm_milter.cli.terminal import add_command


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add them, with their arguments."""
    checking = add_command(commands, "check", check)
    postfix.check_arguments(checking)
    _with_json(checking)
    explaining = add_command(commands, "explain", explain_message)
    explaining.add_argument(
        "--from",
        dest="sender",
        required=True,
        metavar="ADDRESS",
        help='envelope sender; "" is the null sender',
    )
    explaining.add_argument(
        "--to", action="append", required=True, metavar="ADDRESS", help="recipient; may be repeated"
    )
    explaining.add_argument(
        "message", nargs="?", default="-", help="message file; - is standard input (default)"
    )
    _with_json(explaining)
    testing.arguments(add_command(commands, "test", testing.test_rules))
    _with_json(add_command(commands, "rules", list_rules))
    mapping = add_command(commands, "map", virtual_map)
    postfix.map_arguments(mapping)
    postfix.map_in_force_argument(mapping)
    importing.arguments(add_command(commands, "import", importing.import_aliases))
    add_command(commands, "reload", reload_service)
    postfix.attach_arguments(add_command(commands, "attach", attach_milter))
    postfix.detach_arguments(add_command(commands, "detach", detach_milter))
    add_command(commands, "schema", print_schema)
    mail.verify_arguments(add_command(commands, "verify", verify_address))
    tracing = add_command(commands, "trace", trace_mail)
    mail.trace_arguments(tracing)
    _with_json(tracing)


def _with_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="print JSON")
