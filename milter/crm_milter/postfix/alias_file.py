"""The table of virtual aliases: ``crm-milter-aliases`` next to main.cf, and its compiled form.

Next to main.cf, because it is Postfix that needs it: each instance has its own, and it can be read
wherever main.cf can. Its type is the one that main.cf names for it, else the default type of
this Postfix if that is indexed, else the first indexed type there is, else texthash.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from crm_milter.postfix.aliases import AliasError
from crm_milter.postfix.files import write_atomically
from crm_milter.postfix.lookup import INDEXED, plain
from crm_milter.postfix.postconf import PostfixError, last_line, split_list
from crm_milter.postfix.site import Site
from crm_milter.wording import why

NAME = "crm-milter-aliases"
_PREFERRED = ("lmdb", "hash", "cdb", "btree")


def path(site: Site) -> Path:
    """Return the source of the table."""
    return site.postconf.directory / NAME


def table(site: Site) -> str:
    """Return the table as main.cf names it, such as ``hash:/etc/postfix/crm-milter-aliases``."""
    return listed(site) or f"{_kind(site)}:{path(site)}"


def listed(site: Site) -> str:
    """Return our table as virtual_alias_maps has it, "" if it is not there."""
    maps = split_list(site.postconf.value("virtual_alias_maps"))
    return next((each for each in maps if each.endswith(f":{path(site)}")), "")


def _kind(site: Site) -> str:
    here = set(site.postconf.run("postconf", "-m").stdout.split())
    default = site.postconf.value("default_database_type")
    return next(
        (each for each in (default, *_PREFERRED) if each in here & INDEXED.keys()), "texthash"
    )


def compiled(site: Site) -> Path | None:
    """Return what postmap makes of the table, None where Postfix reads the source itself."""
    suffix = INDEXED.get(plain(table(site)).partition(":")[0])
    source = path(site)
    return source.with_name(source.name + suffix) if suffix else None


def wanted(site: Site) -> str:
    """Return the text that the table ought to have; raises PostfixError if there can be none."""
    if isinstance(site.alias_lines, AliasError):
        raise PostfixError(str(site.alias_lines))
    return "".join(f"{line}\n" for line in site.alias_lines)


@dataclass(frozen=True, slots=True)
class TableState:
    """How the table on disk compares with what it ought to be."""

    is_current: bool
    is_compiled: bool


def state(site: Site) -> TableState:
    """Return how the table on disk is."""
    source, result = path(site), compiled(site)
    try:
        is_current = source.read_text("utf-8", "surrogateescape") == wanted(site)
    except OSError:
        return TableState(is_current=False, is_compiled=False)
    return TableState(is_current, result is None or _is_fresh(site, source, result))


def _is_fresh(site: Site, source: Path, result: Path) -> bool:
    """Tell whether the compiled table is not older than its source, and has what that says."""
    if not result.exists() or result.stat().st_mtime < source.stat().st_mtime:
        return False
    # It may be of another type: hash and btree share a name.
    asked = _queryable(site)
    return site.tables.look_up(table(site), asked) == asked


def write(site: Site, *, force: bool = False) -> bool:
    """Bring the table up to date and tell whether that changed anything; raises PostfixError.

    Unless forced, a table is neither emptied nor shrunk by more than a third: an address without
    its entry is refused, and a file that lost its rules looks like one that never had any.
    Readers see the old table or the new one: the compiled file is made next to it and moved in its
    place, which a running Postfix notices. texthash it reads again only after a reload.
    """
    now = state(site)
    if now.is_current and now.is_compiled:
        return False
    source, result = path(site), compiled(site)
    lost = shrinking(site)
    if lost and not force:
        raise PostfixError(f'{lost}; use "map --write --force" if that is intended')
    try:
        if result is not None:
            _compile(site, source, result)
        write_atomically(source, wanted(site))
        if result is not None:
            os.utime(result)  # Postfix warns of a table that is older than its source
    except OSError as error:
        raise PostfixError(f'cannot write "{source}": {why(error)}') from error
    return True


def shrinking(site: Site) -> str:
    """Return how the table would be emptied or shrunk by more than a third, "" if it is not."""
    source, after = path(site), len(site.aliases)
    before = max(_count(source), _compiled_count(site))
    if 3 * after >= 2 * before:
        return ""
    return (
        f"{source} would shrink from {before} to {after} entries, and postfix would refuse mail"
        " for the others"
    )


def _count(source: Path) -> int:
    try:
        text = source.read_text("utf-8", "surrogateescape")
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise PostfixError(f'cannot read "{source}": {why(error)}') from error
    return sum(bool(line.strip()) and line[0] not in "# \t" for line in text.splitlines())


def _compiled_count(site: Site) -> int:
    result = compiled(site)
    if result is None or not result.exists():
        return 0
    return len(site.tables.entries(table(site)) or ())


def _compile(site: Site, source: Path, result: Path) -> None:
    kind = plain(table(site)).partition(":")[0]
    draft = source.with_name(f"{source.name}.new{os.getpid()}")
    made = draft.with_name(draft.name + INDEXED[kind])
    try:
        write_atomically(draft, wanted(site))
        done = site.postconf.run("postmap", f"{kind}:{draft}")
        if done.returncode != 0:
            raise PostfixError(last_line(done.stderr) or "postmap failed")
        now = time.time()
        os.utime(made, (now, now))
        made.replace(result)
    finally:
        draft.unlink(missing_ok=True)
        made.unlink(missing_ok=True)


def missing(site: Site) -> list[str]:
    """Return the addresses that Postfix's virtual aliases do not send where our table would."""
    maps = split_list(site.postconf.value("virtual_alias_maps"))
    asked = _queryable(site)
    for each in maps:
        site.tables.look_up(each, asked)
    return [key for key, mailbox in asked.items() if _is_missing(site, maps, key, mailbox)]


def _is_missing(site: Site, maps: list[str], key: str, mailbox: str) -> bool:
    answer = _answer(site, maps, key)
    if answer and _same(mailbox) == _same(key):
        return False  # an account that is to keep its mail may be an alias
    return answer != _same(mailbox)


def _queryable(site: Site) -> dict[str, str]:
    """Return the entries that postmap -q can be asked for: it takes no quotes off a key."""
    return {key: mailbox for key, mailbox in site.aliases.items() if '"' not in key}


def _answer(site: Site, maps: list[str], key: str) -> str | None:
    found = site.tables.first(maps, [key])
    return _same(found[2]) if found else None


def _same(members: str) -> str:
    return ", ".join(sorted(member.lower() for member in split_list(members)))
