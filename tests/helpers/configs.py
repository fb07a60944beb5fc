"""The configuration of the milters here, and how they are started."""

import os
import sys

from lab.milter import program

# CRM_MILTER_LONG=1 runs what takes minutes at its full length.
LONG = os.environ.get("CRM_MILTER_LONG", "") not in ("", "0")

# Mail that reaches it@ has passed without being routed.
ALIASES = {"help@solarmora.com": "it@solarmora.com"}


def changed(statement: str) -> tuple[str, ...]:
    """The command of a milter with something changed in its modules."""
    names = "child, processors, supervisor, workers"
    code = f"import sys; from crm_milter.daemon import {names}; "
    code += f"from crm_milter.cli import main as cli; {statement}; sys.exit(cli.main())"
    return (sys.executable, "-c", code)


# Kills come closer together here than the supervisor would put up with.
PATIENT = changed("child.RestartBackoff.WINDOW = 0.0")
# What comes while signals are looked at comes for certain before they are.
SLOW = changed(
    "child.RestartBackoff.WINDOW = 0.0; import time; taken = child.Signals.taken;"
    "child.Signals.taken = lambda self: time.sleep(0.2) or taken(self)"
)
# Time enough to send signals one by one that are meant as one.
SETTLED = changed("supervisor._SETTLE = 2.0")
# No time at all: a reload begins with the signal.
HASTY = changed("supervisor._SETTLE = 0.0")


def config(version: int = 1, milter: str = "", rules: str = "") -> str:
    """A configuration whose recipients tell the version; `milter` is more of that section."""
    settings = {"socket_mode": '"0666"', "workers": "2"}
    settings |= dict(line.split(": ", 1) for line in milter.splitlines())
    lines = "".join(f"  {key}: {value}\n" for key, value in settings.items())
    return f"""
milter:
  listen: LISTEN
{lines}
unrouted_to: it@solarmora.com
spam: amavis
rules:
  - name: support
    match: help@solarmora.com
    replace_with: support-{version}@crm.example
    also_deliver_to: [team-{version}@solarmora.com]
{rules}"""


def routed(version: int = 1) -> list[str]:
    """Who gets mail for help@ by this version of the rules, each once."""
    return [f"support-{version}@crm.example", f"team-{version}@solarmora.com"]


def environment(**variables: str) -> tuple[str, ...]:
    """The command of the milter with more variables."""
    return ("env", *(f"{name}={value}" for name, value in variables.items()), *program())
