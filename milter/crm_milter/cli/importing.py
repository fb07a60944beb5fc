"""The command ``import``: what forwarded mail to a CRM so far, as rules."""

import argparse
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from crm_milter import address as addresses
from crm_milter import mailbox
from crm_milter.cli.options import kind
from crm_milter.cli.terminal import EX_NO, EX_OK, read_stdin, say
from crm_milter.config import atomic
from crm_milter.config.crms import crm_of
from crm_milter.config.problems import Problem, Problems
from crm_milter.migration.chains import Tables
from crm_milter.migration.reading import AliasEntry, entries, written
from crm_milter.migration.writing import Import, as_yaml, imported
from crm_milter.wording import why

_NO_MAILBOX = "# unrouted_to: ADDRESS     # the fallback mailbox, see crm-milter.yaml(5)"
_NO_NET = "# dead_letters: ADDRESS    # a mailbox for the mail that the CRM rejects"
_SHOWN = 100
_TYPE = re.compile(r"^(proxy:)?(hash|btree|cdb|dbm|lmdb|texthash):(?=/)")
_SHOWN_DOMAINS = 5


def arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "files",
        nargs="+",
        metavar="FILE",
        help="table of virtual aliases, output of postmap -s, or CSV with two columns, in the order"
        " of virtual_alias_maps; - is standard input",
    )
    command.add_argument(
        "--crm",
        action="append",
        default=[],
        type=kind(_domain),
        metavar="DOMAIN",
        help="domain of a CRM that is not known, subdomains included; may be repeated",
    )
    command.add_argument(
        "--origin", type=kind(_domain), metavar="DOMAIN",
        help="domain of names without one, as myorigin of Postfix",
    )  # fmt: skip
    command.add_argument(
        "--unrouted-to",
        type=kind(mailbox.mailbox),
        metavar="ADDRESS",
        help="fallback mailbox to write",
    )
    command.add_argument(
        "--write",
        type=Path,
        metavar="DIR",
        help="write the files to this directory (made if missing) instead of printing them",
    )


def _domain(text: str) -> str:
    return mailbox.checked_domain(text.removeprefix("@"))


def import_aliases(options: argparse.Namespace) -> int:
    """Turn virtual aliases that lead to a CRM into rules, and list the entries to remove.

    Reads tables in Postfix format and lists of two columns (CSV), and changes nothing. Entries of
    tables count if they lead to a known CRM or to --crm, also by way of other entries; those of a
    list always do. The exit status is 1 if a line was not understood or nothing leads to a CRM.
    """
    found: list[AliasEntry] = []
    problems: list[Problem] = []
    for name in map(_source, options.files):
        of_file = Problems(name, _SHOWN)
        try:
            data = read_stdin() if name == "-" else Path(name).read_bytes()
        except OSError as error:
            say(f"{name}: {why(error)}")
            return EX_NO
        found += entries(data, of_file, options.origin or "")
        problems += of_file.listed()
    for problem in problems:
        say(str(problem))
    tables = Tables(found, _is_crm(options.crm))
    result = imported(tables, options.unrouted_to or "UNROUTED_TO")
    for entry in tables.tangled.values():
        say(f'{entry.file}:{entry.line}: "{written(entry.key)}" leads to a CRM by way of too many'
            " entries; write its rule by hand")  # fmt: skip
    if not result.rules:
        say(_nothing(found))
        return EX_NO
    status = _print(result, found, options)
    return EX_NO if problems or tables.tangled else status


def _source(name: str) -> str:
    """Return the file of a table, whose name may be that in main.cf, with its type."""
    return name if os.path.lexists(name) else _TYPE.sub("", name)


def _is_crm(more: list[str]) -> Callable[[str], bool]:
    suffixes = tuple(f".{each}" for each in more)

    def is_crm(target: str) -> bool:
        domain = addresses.domain_of(addresses.normalise(target))
        known = crm_of(domain)
        return bool(known and known.domain.fullmatch(domain)) or f".{domain}".endswith(suffixes)

    return is_crm


def _nothing(found: list[AliasEntry]) -> str:
    """Return that nothing leads to a CRM, and which domains outside may be one."""
    own = {addresses.domain_of(each.key) for each in found}
    outside = Counter(
        domain
        for entry in found
        for target in entry.targets
        if (domain := addresses.domain_of(addresses.normalise(target))) not in own
    )
    likely = ", ".join(each for each, _ in outside.most_common(_SHOWN_DOMAINS))
    hint = f"; if the CRM is one of these, use --crm DOMAIN: {likely}" if likely else ""
    return f"no entry leads to a known CRM{hint}"


def _print(result: Import, found: list[AliasEntry], options: argparse.Namespace) -> int:
    unrouted_to = options.unrouted_to
    head = [f"unrouted_to: {as_yaml(unrouted_to)}" if unrouted_to else _NO_MAILBOX, _NO_NET]
    files = list(result.files(head))
    if options.write:
        try:
            _write(options.write, files)
        except OSError as error:
            say(f"{error.filename2 or options.write}: {why(error)}")
            return EX_NO
    else:
        print("\n".join(files[0][1]))
        for name, lines in files[1:]:
            print(f"\n# The file {name}; --write DIR writes it:")
            print("\n".join(f"#   {line}" for line in lines))
    print("\n".join(_report(result, found)))
    return EX_OK


def _write(folder: Path, files: list[tuple[str, list[str]]]) -> None:
    texts = {folder / name: "".join(f"{line}\n" for line in lines) for name, lines in files}
    folder.mkdir(exist_ok=True)
    # The configuration last: once it is there, so is what it names.
    atomic.create({path: texts[path].encode() for path in reversed(texts)})
    for path in texts:
        print(f"# written: {path}")


def _report(result: Import, found: list[AliasEntry]) -> Iterator[str]:
    """Yield, as comments, what to do with the old tables."""
    for file in dict.fromkeys(entry.file for entry in found if not entry.is_listed):
        drop = [each for each in result.drop if each.file == file]
        kept = sum(each.file == file for each in found) - len(drop)
        if drop:
            yield f"\n# Remove from {file} when the rules are live (entries to keep: {kept}):"
            drop.sort(key=lambda each: each.line)
            yield from (f"#   line {each.line}: {each}" for each in drop)
    if result.add:
        yield "\n# Add there, so that Postfix goes on accepting these addresses:"
        yield from (f"#   {each}" for each in result.add)
