"""Commands for a person's shell that mend a finding."""

import shlex
from collections.abc import Iterable
from pathlib import Path

from crm_milter.postfix.postconf import Service
from crm_milter.postfix.site import Site
from crm_milter.postfix.staging import Edit
from crm_milter.postfix.tables import INDEXED, plain

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
    kind, _, path = plain(table).partition(":")
    if kind not in INDEXED and kind != "texthash":
        return f'add "{key}" to {table}'
    command = f"printf '%s\\n' {shlex.quote(f'{key} {value}')} >> {shlex.quote(path)}"
    return f"{command} && {_compiled(site, kind, path)}"


def drop_entry(site: Site, table: str, key: str) -> str:
    """Return the commands that take an entry out of a table that is a file."""
    kind, _, path = plain(table).partition(":")
    if kind not in INDEXED and kind != "texthash":
        return f'remove "{key}" from {table}'
    escaped = "".join(f"\\{each}" if each in ".*[]^$/\\" else each for each in key)
    command = f"sed -i {shlex.quote(f'/^{escaped}[[:space:]]/Id')} {shlex.quote(path)}"
    return f"{command} && {_compiled(site, kind, path)}"


def _compiled(site: Site, kind: str, path: str) -> str:
    return (
        reload(site) if kind == "texthash" else site.postconf.command("postmap", f"{kind}:{path}")
    )


def origin(name: str, service: Service) -> str:
    """Return the place a service takes a parameter from, for grouping and for messages."""
    return f'"{service.label}"' if name in service.overrides else "main.cf"
