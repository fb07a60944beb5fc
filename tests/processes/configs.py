"""The configuration of the milters here, and how they are started."""

import os
import sys

from lab.milter import program

# CRM_MILTER_LONG=1 runs what takes minutes at its full length.
LONG = os.environ.get("CRM_MILTER_LONG", "") not in ("", "0")

# Mail that reaches it@ has passed without being routed.
ALIASES = {"help@solarmora.com": "it@solarmora.com"}
# Kills come closer together here than the supervisor would put up with.
PATIENT = (
    sys.executable,
    "-c",
    "import sys; from crm_milter import children, cli; children.Deaths.WINDOW = 0.0;"
    "sys.exit(cli.main())",
)


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
