"""The virtual alias tables of all attached Postfix instances, after the daemon's verdict.

A table is written only from the configuration that the daemon has accepted, so that Postfix and
crm-milter always agree on the addresses. What cannot be written for a good reason is said, and is
no failure; a table that would shrink too far is one.
"""

from collections.abc import Callable
from pathlib import Path

from crm_milter.config import standing
from crm_milter.config.load import Config, load
from crm_milter.config.problems import ConfigError
from crm_milter.config.sources import Disk
from crm_milter.postfix import alias_file, patternfile
from crm_milter.postfix.aliases import AliasError
from crm_milter.postfix.instances import all_instances
from crm_milter.postfix.postconf import Postconf, PostfixError
from crm_milter.postfix.site import Site
from crm_milter.wording import counted

Say = Callable[[str], None]


def write(path: Path, directory: Path | None, show: Say, say: Say) -> bool:
    """Write the tables, those of one instance or of all; return False if one is not as it ought."""
    state = standing.read()
    if state is None:
        say("cannot tell which configuration is in force: crm-milter is not running as a service")
        return False
    if state.is_last_good:
        say("the last good configuration is in force: the virtual alias tables stay as they are")
        return True
    try:
        sources = Disk()
        config = load(path, sources)
    except ConfigError as error:
        say(f"{path} is not in force: {error.problems[0]}")
        return False
    if sources.digest() != state.digest:
        say(f"{path} is not in force: it, or a file that it names, has changed; reload crm-milter")
        return False
    return _write_all(config, path, directory, show, say)


def _write_all(config: Config, path: Path, directory: Path | None, show: Say, say: Say) -> bool:
    try:
        instances = [Postconf(directory)] if directory else all_instances()
        sites = [Site(config, path.absolute(), each) for each in instances]
        attached = [site for site in sites if alias_file.listed(site) or patternfile.listed(site)]
    except PostfixError as error:
        show(f"no virtual alias table to write: {error}")
        return True
    if not attached:
        show("no virtual alias table to write: no Postfix instance uses one")
    done = [_write(site, show, say) for site in attached]  # each, even if one fails
    return all(done)


def _write(site: Site, show: Say, say: Say) -> bool:
    if isinstance(site.alias_lines, AliasError):
        say(f"{alias_file.path(site)} stays as it is: {site.alias_lines}")
        return True
    try:
        lines = write_one(site)
    except PostfixError as error:
        say(str(error))
        return False
    for line in lines:
        show(line)
    return True


def write_one(site: Site, *, force: bool = False) -> list[str]:
    """Write the tables of one instance, which takes them up; return a line about each."""
    is_new = alias_file.write(site, force=force)
    has_patterns = patternfile.write(site, force=force)
    once = is_new and alias_file.compiled(site) is None and alias_file.listed(site)
    if once or (has_patterns and patternfile.listed(site)):
        # A running smtpd reads texthash, regexp and pcre only once.
        site.postconf.run("postfix", "reload")
    state = "written" if is_new else "unchanged"
    size = counted(len(site.aliases), "entry", "entries")
    aliases = f"{alias_file.table(site)}: {state}, {size}"
    return [aliases, *([f"{patternfile.table(site)}: written"] if has_patterns else [])]
