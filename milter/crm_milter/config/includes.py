"""Which files ``include`` means, and the domains that their rules may match.

Nothing that is meant may be overlooked in silence, so a directory is listed here rather than by
``glob``, which takes one that it may not read for an empty one.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from crm_milter.config.build import RuleEntry
from crm_milter.config.kinds import Key, ListOf, OneOf, table
from crm_milter.config.place import Section
from crm_milter.config.scalars import Text
from crm_milter.config.sources import Sources
from crm_milter.mailbox import checked_domain
from crm_milter.rules.fence import keys_outside, outside
from crm_milter.wording import why

Domains = frozenset[str]
_SPECIAL = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Include:
    """Files by their names or patterns; their rules may match these domains, None for any."""

    files: tuple[str, ...]
    domains: Domains | None = None


def plain(text: str) -> Include:
    """Return an include that is only a name."""
    return Include((text,))


def fenced(section: Section) -> Include:
    """Return an include with the domains of its rules."""
    return Include(section["files"], frozenset(section["domains"]))


INCLUDE = ListOf(
    OneOf(
        Text("a file", plain),
        table(
            'a mapping with "files" and "domains"',
            fenced,
            Key("files", ListOf(Text("a file"), least=1), (), "files with rules", required=True),
            Key(
                "domains",
                ListOf(Text("a domain", checked_domain, "^[^@<>,; ]+$"), least=1),
                (),
                "the only domains that these rules may match",
                required=True,
            ),
        ),
    )
)


def included(
    section: Section, file: Path, sources: Sources
) -> tuple[tuple[Path, Domains | None], ...]:
    """Return the files that the configuration ``file`` includes, each once, and their domains.

    Notes what cannot be found, and a file that is included with two fences: one has no effect.
    """
    found: dict[str, tuple[Path, Domains | None]] = {}
    for number, include in enumerate(section["include"]):
        for name in include.files:
            try:
                for path in _meant(file.parent, name, sources):
                    real = os.path.realpath(path)
                    if real == os.path.realpath(file):
                        raise ValueError(f'"{name}" also matches this file itself')
                    if found.setdefault(real, (path, include.domains))[1] != include.domains:
                        raise ValueError(f'"{path}" is also included with other domains')
            except OSError as error:
                section.place.complain(("include", number), f'"{name}": {why(error)}')
            except ValueError as error:
                section.place.complain(("include", number), str(error))
    return tuple(found.values())


def _meant(folder: Path, name: str, sources: Sources) -> Iterator[Path]:
    path = folder / name
    if _SPECIAL & set(str(Path(name).parent)):
        raise ValueError('"*", "?" and "[" are allowed in the file name only, not in its directory')
    if not _SPECIAL & set(path.name):
        sources.find(path)
        yield path
        return
    for each in sources.names(path.parent):
        if fnmatchcase(each, path.name) and not each.startswith("."):
            yield path.parent / each


def within(entries: Iterable[RuleEntry], domains: Domains) -> list[RuleEntry]:
    """Return the rules with these as their fence, and note what they may match outside."""
    inside = [replace(each, rule=replace(each.rule, fence=domains)) for each in entries]
    _check_fence(inside, domains)
    return inside


def _check_fence(entries: Iterable[RuleEntry], domains: Domains) -> None:
    named = ", ".join(sorted(domains)[:5]) + (", ..." if len(domains) > 5 else "")
    for entry in entries:
        rule, place = entry.rule, entry.place
        for number, pattern in enumerate(rule.match):
            reason = outside(pattern, domains)
            if reason:
                message = f'"{pattern}" may match addresses outside of {named}: {reason}'
                place.complain(("match", number), message)
        if rule.address_map is not None:
            reason = keys_outside(rule.address_map.targets, domains)
            if reason:
                message = f'"{rule.address_map.source}" has addresses outside of {named}: {reason}'
                place.complain(("address_map",), message)
