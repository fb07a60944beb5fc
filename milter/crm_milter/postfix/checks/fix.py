"""Commands for a person's shell that fix a finding."""

import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from crm_milter.postfix.checks.finding import names
from crm_milter.postfix.edit import Edit
from crm_milter.postfix.lookup import INDEXED, plain
from crm_milter.postfix.postconf import Service
from crm_milter.postfix.site import Site

DEFAULT_CONFIG = Path("/etc/crm-milter/crm-milter.yaml")


def settings(site: Site, edits: Iterable[Edit]) -> str:
    """Return the commands that make these edits and let Postfix see them."""
    commands = [site.postconf.command("postconf", *edit.arguments) for edit in edits]
    return " && ".join([*commands, reload(site)])


def setting(site: Site, name: str, value: str | None, services: Iterable[Service] = ()) -> str:
    """Return the commands that set a parameter where each of these services takes it from."""
    scopes = {each.label if name in each.overrides else "" for each in services} or {""}
    return settings(site, [Edit(scope, name, value) for scope in sorted(scopes)])


def reload(site: Site) -> str:
    """Return the command that lets Postfix read main.cf again."""
    return site.postconf.command("postfix", "reload")


def ours(site: Site, *words: str) -> str:
    """Return a command of crm-milter for this configuration and this Postfix."""
    config = [] if site.path == DEFAULT_CONFIG else ["--config", str(site.path)]
    return site.postconf.own_command("crm-milter", *words, *config)


def add_entry(site: Site, table: str, key: str, value: str) -> str:
    """Return the commands that add an entry to a table that is a file."""
    return add_entries(site, table, {key: value})


def add_entries(site: Site, table: str, entries: Mapping[str, str]) -> str:
    """Return the commands that add entries to a table that is a file."""
    kind, _, path = plain(table).partition(":")
    if kind not in INDEXED and kind != "texthash":
        return f"add {names(entries)} to {table}"
    colon = ":" if is_local_aliases(site, table) else ""
    lines = " ".join(shlex.quote(f"{key}{colon} {value}") for key, value in entries.items())
    # The file may not end in a newline.
    command = f"printf '\\n%s' {lines} >> {shlex.quote(path)} && echo >> {shlex.quote(path)}"
    return f"{command} && {_compiled(site, table)}"


def drop_entry(site: Site, table: str, key: str) -> str:
    """Return the commands that take an entry out of a table that is a file.

    Only where that is one line: what continues it would become part of the entry before.
    """
    kind, _, path = plain(table).partition(":")
    if kind not in INDEXED and kind != "texthash":
        return f'remove "{key}" from {table}'
    end = ":" if is_local_aliases(site, table) else ""
    expression = f"^{_escaped(key)}[[:space:]]{f'*{end}' if end else ''}"
    if not _is_one_line(Path(path), key, end):
        return f'remove "{key}" from {path} in an editor, then run {_compiled(site, table)}'
    command = f"sed -i {shlex.quote(f'/{expression}/Id')} {shlex.quote(path)}"
    return f"{command} && {_compiled(site, table)}"


def replace_entry(site: Site, table: str, key: str, value: str) -> str:
    """Return the commands that give an entry of a postmap(1) table another value."""
    kind, _, path = plain(table).partition(":")
    is_file = kind in INDEXED or kind == "texthash"
    if not is_file or not _is_one_line(Path(path), key, ""):
        return f'set the value of "{key}" in {table} to "{value}"'
    new = f"{key} {value}".replace("\\", r"\\").replace("/", r"\/").replace("&", r"\&")
    command = (
        f"sed -i {shlex.quote(f's/^{_escaped(key)}[[:space:]].*/{new}/I')} {shlex.quote(path)}"
    )
    return f"{command} && {_compiled(site, table)}"


def is_local_aliases(site: Site, table: str) -> bool:
    """Tell whether a table has the format of aliases(5): postmap would destroy it."""
    return site.domains.tool(table) == "postalias"


def _escaped(key: str) -> str:
    return "".join(f"\\{each}" if each in ".*[]^$/\\" else each for each in key)


def _is_one_line(path: Path, key: str, end: str) -> bool:
    """Tell whether a file has a single entry for a key, on a line of its own."""
    try:
        lines = path.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return False
    entry = re.compile(rf"{re.escape(key)}\s{'*' + end if end else ''}", re.IGNORECASE)
    found = [at for at, line in enumerate(lines) if entry.match(line)]
    if len(found) != 1:
        return False
    after = next((line for line in lines[found[0] + 1 :] if line.strip() and line[0] != "#"), "")
    return not after[:1].isspace()


def _compiled(site: Site, table: str) -> str:
    kind, _, path = plain(table).partition(":")
    if kind == "texthash":
        return reload(site)
    tool = "postalias" if is_local_aliases(site, table) else "postmap"
    return site.postconf.command(tool, f"{kind}:{path}")


def origin(name: str, service: Service) -> str:
    """Return the place a service takes a parameter from, for grouping and for messages."""
    return f'"{service.label}"' if name in service.overrides else "main.cf"
