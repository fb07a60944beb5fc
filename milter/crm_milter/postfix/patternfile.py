"""The table for patterns: ``crm-milter-patterns`` next to main.cf, of type pcre or else regexp."""

from pathlib import Path

from crm_milter import address as addresses
from crm_milter.postfix import alias_file
from crm_milter.postfix.alias_patterns import pattern_lines, posix
from crm_milter.postfix.aliases import AliasError, diverts
from crm_milter.postfix.domains import Destination
from crm_milter.postfix.files import write_atomically
from crm_milter.postfix.postconf import PostfixError, split_list
from crm_milter.postfix.site import Site
from crm_milter.rules.pattern import Glob, Regex
from crm_milter.rules.strangers import domains_of
from crm_milter.wording import why

NAME = "crm-milter-patterns"


def path(site: Site) -> Path:
    """Return the table."""
    return site.postconf.directory / NAME


def table(site: Site) -> str:
    """Return the table as main.cf names it, of the best type that this Postfix has."""
    if listed(site):
        return listed(site)
    here = site.postconf.run("postconf", "-m").stdout.split()
    return f"{'pcre' if 'pcre' in here else 'regexp'}:{path(site)}"


def listed(site: Site) -> str:
    """Return the table as virtual_alias_maps has it, "" if it is not there."""
    maps = split_list(site.postconf.value("virtual_alias_maps"))
    return next((each for each in maps if each.endswith(f":{path(site)}")), "")


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
        return not wanted(site) and not listed(site)


def write(site: Site, *, force: bool = False) -> bool:
    """Bring the table up to date, and tell whether that changed anything; raises PostfixError.

    It is not emptied unless that is forced, as the other table is not.
    """
    text = wanted(site)
    if is_current(site) or not (text or listed(site)):
        return False
    try:
        if not (text or force) and path(site).exists() and path(site).read_text():
            raise PostfixError(
                f"{path(site)} would be emptied, and postfix would refuse mail for its patterns;"
                ' use "map --write --force" if that is intended'
            )
        write_atomically(path(site), text)
    except OSError as error:
        raise PostfixError(f'cannot write "{path(site)}": {why(error)}') from error
    return True


def refused(site: Site) -> dict[str, str]:
    """Return the patterns whose addresses Postfix refuses, each with the name of its rule."""
    found: dict[str, str] = {}
    unwritten = _unwritten(site)
    for rule in site.rules:
        for pattern in rule.match if diverts(rule) else ():
            if isinstance(pattern, Glob | Regex) and _is_refused(site, pattern, unwritten):
                found.setdefault(pattern.source, rule.name)
    return found


def _unwritten(site: Site) -> set[str]:
    """Return those of our tables that main.cf names and that "map --write" has yet to write."""
    ours = ((alias_file.listed(site), alias_file.path(site)), (listed(site), path(site)))
    return {table for table, source in ours if table and not source.exists()}


def _is_refused(site: Site, pattern: Glob | Regex, unwritten: set[str]) -> bool:
    """Tell whether Postfix refuses what a pattern takes, tried with one address of it."""
    if isinstance(pattern, Glob):
        sample = f"{'1'.join(pattern.pieces)}@{pattern.domain}"
        return site.domains.fate(sample, empty=unwritten) is Destination.UNKNOWN
    if listed(site) and posix(pattern):
        return not is_current(site)
    samples = (addresses.join("crm-milter-no-such-user", each) for each in domains_of(pattern))
    return any(site.domains.fate(each, empty=unwritten) is Destination.UNKNOWN for each in samples)
