"""The table for patterns: ``crm-milter-patterns`` beside main.cf, of type pcre or else regexp."""

from pathlib import Path

from crm_milter.alias_patterns import pattern_lines
from crm_milter.aliases import AliasError
from crm_milter.postfix.files import write_atomically
from crm_milter.postfix.postconf import PostfixError, split_list
from crm_milter.postfix.site import Site
from crm_milter.postfix.staging import Edit
from crm_milter.tables import why

NAME = "crm-milter-patterns"


def path(site: Site) -> Path:
    """Return the table."""
    return site.postconf.directory / NAME


def listed(site: Site) -> str:
    """Return the table as virtual_alias_maps has it, "" if it is not there."""
    maps = split_list(site.postconf.value("virtual_alias_maps"))
    return next((each for each in maps if each.endswith(f":{path(site)}")), "")


def kind(site: Site) -> str:
    """Return the type of the table: the one in main.cf, else the best that this Postfix has."""
    if listed(site):
        return listed(site).partition(":")[0]
    here = site.postconf.run("postconf", "-m").stdout.split()
    return "pcre" if "pcre" in here else "regexp"


def wanted(site: Site) -> str:
    """Return the text that the table ought to have, "" if it needs none; raises PostfixError."""
    try:
        lines = pattern_lines(site.table, site.config.unrouted_to)
    except AliasError as error:
        raise PostfixError(str(error)) from error
    return "".join(f"{line}\n" for line in lines)


def is_current(site: Site) -> bool:
    """Tell whether the table is on disk as it ought to be."""
    try:
        return path(site).read_text("utf-8", "surrogateescape") == wanted(site)
    except OSError:
        return False


def write(site: Site) -> bool:
    """Bring the table up to date, and tell whether that changed anything; raises PostfixError."""
    text = wanted(site)
    if is_current(site) or not (text or listed(site)):
        return False
    try:
        write_atomically(path(site), text)
    except OSError as error:
        raise PostfixError(f'cannot write "{path(site)}": {why(error)}') from error
    return True


def edits(site: Site) -> list[Edit]:
    """Return the edit that adds the table to virtual_alias_maps."""
    if listed(site):
        return []
    raw = split_list(site.postconf.raw("virtual_alias_maps"))
    items = raw if site.postconf.value("virtual_alias_maps") else []
    return [Edit("", "virtual_alias_maps", ", ".join([*items, f"{kind(site)}:{path(site)}"]))]
