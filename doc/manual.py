"""Manual pages and completion for shells, in the words of ``--help`` and of the annotated example.

    python doc/manual.py DIRECTORY

writes crm-milter.8, crm-milter.yaml.5, crm-milter.bash and _crm-milter (zsh). For the build, from
a checkout; needs the package shtab. The date is that of SOURCE_DATE_EPOCH, or today.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import mdoc
import reference
from crm_milter import __version__
from crm_milter.cli import main as cli
from crm_milter.cli import terminal

EXAMPLE = Path(__file__).parents[1] / "milter" / "crm-milter.yaml"
_FILES = (
    (terminal.DEFAULT_CONFIG, "the configuration, see"),
    ("/etc/crm-milter/marker.key", "secret key of the marker, the same on all mail hosts"),
    ("/etc/postfix/crm-milter-aliases", "table of virtual aliases that map --write makes"),
    ("/var/lib/crm-milter", "last good configuration, pauses, counts of deliveries"),
    ("/var/spool/postfix/crm-milter/milter.sock", "socket on which the milter listens for Postfix"),
)


def main(arguments: list[str]) -> int:
    """Write everything into a directory."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python doc/manual.py DIRECTORY\n")
        return 2
    target = Path(arguments[0])
    target.mkdir(parents=True, exist_ok=True)
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    parser = cli._parser()
    example = EXAMPLE.read_text(encoding="utf-8")
    pages = {
        "crm-milter.8": "\n".join(page_8(parser, moment.date())) + "\n",
        "crm-milter.yaml.5": "\n".join(page_5(example, moment.date())) + "\n",
        "crm-milter.bash": completion("bash"),
        "_crm-milter": completion("zsh"),
    }
    for name, text in pages.items():
        (target / name).write_text(text, encoding="utf-8")
    return 0


def completion(shell: str) -> str:
    """Return the script with which a shell completes the command."""
    import shtab

    parser = cli._parser()
    for command in commands(parser).values():
        command.description = (command.description or "").partition("\n")[0]
        for action in command._actions:
            kinds = {"FILE": shtab.FILE, "MAILBOX": shtab.FILE, "DIR": shtab.DIRECTORY}
            kind = kinds.get(str(action.metavar))
            if kind:
                action.complete = kind  # type: ignore[attr-defined]
    script: str = shtab.complete(parser, shell)
    return _repaired(script)


def _repaired(script: str) -> str:
    """Let Debian 12's shtab offer all choices: it takes the first, and joins them by spaces."""
    script = script.replace('${current_action}_choices"', '${current_action}_choices[@]"')
    words = '"${current_action_choices}" --'
    return script.replace(words, words.replace("s}", "s// /$'\\n'}"))


def commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each command, in order."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def page_8(parser: argparse.ArgumentParser, day: date) -> Iterator[str]:
    """Yield the page of the command."""
    yield from mdoc.heading("crm-milter", 8, day, __version__)
    yield from (".Sh NAME", ".Nm crm-milter")
    summary = (parser.description or "").rstrip(".")
    yield f".Nd {summary[:1].lower()}{summary[1:]}"
    yield from (".Sh SYNOPSIS", ".Nm", ".Ar COMMAND", ".Op Ar argument ...", ".Nm", ".Fl -version")
    yield ".Sh DESCRIPTION"
    first, *others = commands(parser)["serve"].description.split("\n\n")  # type: ignore[union-attr]
    yield from mdoc.text(f"The serve command is the daemon. {first}")
    for paragraph in others:
        yield ".Pp"
        yield from mdoc.text(paragraph)
    yield ".Pp"
    yield from mdoc.text("The other commands are for set-up and operation.")
    yield ".Sh COMMANDS"
    for name, command in commands(parser).items():
        yield from _command(name, command)
    yield ".Sh FILES"
    yield ".Bl -tag -width Ds"
    for path, purpose in _FILES:
        yield f".It Pa {path}"
        yield purpose
        if path == terminal.DEFAULT_CONFIG:
            yield ".Xr crm-milter.yaml 5"
    yield ".El"
    yield from _exit_status()
    yield from (".Sh SEE ALSO", ".Xr postconf 1 ,", ".Xr crm-milter.yaml 5 ,", ".Xr postconf 5")


def _command(name: str, command: argparse.ArgumentParser) -> Iterator[str]:
    actions = [each for each in command._actions if not isinstance(each, argparse._HelpAction)]
    yield f".Ss {name}"
    yield f".Nm Cm {name}"
    for action in sorted(actions, key=lambda each: not each.option_strings):
        required = action.required and action.nargs not in ("?", "*")
        yield f".{_usage(action)}" if required else f".Op {_usage(action)}"
    for paragraph in (command.description or "").split("\n\n"):
        yield ".Pp"
        yield from mdoc.text(paragraph)
    if actions:
        yield ".Bl -tag -width Ds"
        for action in actions:
            yield f".It {_usage(action)}"
            words = command._get_formatter()._expand_help(action) if action.help else ""
            yield from mdoc.text(f"{words[:1].upper()}{words[1:]}.") if words else ("",)
        yield ".El"


def _usage(action: argparse.Action) -> str:
    option = f"Fl {action.option_strings[-1][1:]}" if action.option_strings else ""
    takes = action.nargs != 0
    value = f"Ar {mdoc.argument(_metavar(action))}" if takes else ""
    more = " Ar ..." if action.nargs in ("+", "*") else ""
    return f"{option} {value}{more}".strip()


def _metavar(action: argparse.Action) -> str:
    if action.choices is not None:
        return "|".join(map(str, action.choices))
    return str(action.metavar or (action.dest.upper() if action.option_strings else action.dest))


def _exit_status() -> Iterator[str]:
    """Yield the section from the docstring of ``cli``: "Exit status: 0 good, 1 no, ..."."""
    words = next(
        part for part in (cli.__doc__ or "").split("\n\n") if part.startswith("Exit status: ")
    )
    listed = " ".join(words.removeprefix("Exit status: ").split()).rstrip(".")
    yield ".Sh EXIT STATUS"
    yield ".Bl -tag -width Ds"
    for item in listed.split(", "):
        number, _, meaning = item.partition(" ")
        yield f".It {number}"
        yield from mdoc.text(meaning)
    yield ".El"


def page_5(example: str, day: date) -> Iterator[str]:
    """Yield the page of the configuration."""
    yield from mdoc.heading("crm-milter.yaml", 5, day, __version__)
    title, *rest = reference.introduction(example)
    yield from (".Sh NAME", ".Nm crm-milter.yaml")
    yield ".Nd configuration of crm-milter"
    yield ".Sh DESCRIPTION"
    yield from mdoc.prose([title, *rest])
    for section in reference.sections(example):
        yield f".Sh {section.title.upper()}"
        yield ".Bl -tag -width Ds"
        for entry in section.entries:
            yield f".It Ic {mdoc.argument(entry.path)}"
            yield from mdoc.prose(entry.prose)
        yield ".El"
    yield from (".Sh FILES", ".Bl -tag -width Ds", f".It Pa {terminal.DEFAULT_CONFIG}", ".El")
    yield ".Sh EXAMPLES"
    yield from mdoc.literal(reference.in_use(example))
    yield from (".Sh SEE ALSO", ".Xr virtual 5 ,", ".Xr crm-milter 8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
