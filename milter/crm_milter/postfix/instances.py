"""The Postfix instances of this host: the default one, and all others that are known of.

Those of postmulti(1) stand in main.cf of the default instance, as do alternate_config_directories.
An instance that neither names is remembered in a file next to that main.cf when it is attached.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from crm_milter.postfix.files import write_atomically
from crm_milter.postfix.milters import MilterEntry, parse
from crm_milter.postfix.postconf import Postconf, PostfixError, split_list
from crm_milter.postfix.site import Site

_NAME = "crm-milter-instances"
_LISTS = ("multi_instance_directories", "alternate_config_directories")


def all_instances() -> list[Postconf]:
    """Return every instance that has a configuration, the default one first; [] if none has."""
    default = Postconf()
    try:
        home = default.directory
    except PostfixError:
        return []
    found = {os.path.realpath(home): default} if _is_configured(home) else {}
    for each in [*_listed(default), *_remembered(home)]:
        key = os.path.realpath(each)
        if key not in found and _is_configured(each):
            found[key] = Postconf(each)
    return list(found.values())


def _is_configured(directory: Path) -> bool:
    return (directory / "main.cf").exists() and (directory / "master.cf").exists()


def _listed(default: Postconf) -> list[Path]:
    try:
        return [Path(each) for name in _LISTS for each in split_list(default.value(name))]
    except PostfixError:
        return []


def _remembered(home: Path) -> list[Path]:
    try:
        return [Path(line) for line in (home / _NAME).read_text().splitlines() if line]
    except OSError:
        return []


def remember(postconf: Postconf) -> None:
    """Keep in mind an instance that no other list has, so that it is found without its name."""
    with suppress(OSError, PostfixError):
        home, default = postconf.directory, Postconf()
        others = map(os.path.realpath, (default.directory, *_listed(default)))
        if _is_configured(default.directory) and os.path.realpath(home) not in others:
            _write(default.directory, {*_remembered(default.directory), home})


def forget(postconf: Postconf) -> None:
    """Forget an instance that was detached."""
    with suppress(OSError, PostfixError):
        home = Postconf().directory
        remembered = {*_remembered(home)}
        if postconf.directory in remembered:
            _write(home, remembered - {postconf.directory})


def _write(home: Path, directories: Iterable[Path]) -> None:
    lines = "".join(f"{each}\n" for each in sorted(directories) if _is_configured(each))
    if lines:
        write_atomically(home / _NAME, lines)
    else:
        (home / _NAME).unlink(missing_ok=True)


def others_attached(site: Site) -> bool:
    """Tell whether another instance uses the socket of this configuration."""
    here = os.path.realpath(site.postconf.directory)
    for each in all_instances():
        with suppress(PostfixError):
            other = Site(site.config, site.path, each)
            if os.path.realpath(each.directory) != here and other.ours(_entries(each)):
                return True
    return False


def _entries(postconf: Postconf) -> list[MilterEntry]:
    return [
        entry
        for service in postconf.running_as("smtpd")
        for entry in parse(postconf.value("smtpd_milters", service))
    ]
