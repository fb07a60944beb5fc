"""Detach our milter from a Postfix: what attach changed is undone, and whatever else names it.

It needs neither a configuration that is valid nor a record: what names our socket is found in
main.cf, master.cf and the tables of smtpd_milter_maps, even if written by hand.
"""

import difflib
from pathlib import Path

from crm_milter.config.listen import Listener
from crm_milter.postfix import alias_file, instances, traces
from crm_milter.postfix.attach import apply, record
from crm_milter.postfix.attach.attach import Terminal, show
from crm_milter.postfix.attach.interrupt import Interrupted, uninterruptible
from crm_milter.postfix.attach.record import Record
from crm_milter.postfix.attach.staging import Staging, replace_text
from crm_milter.postfix.files import Texts, read_texts
from crm_milter.postfix.lookup import INDEXED
from crm_milter.postfix.postconf import Postconf, PostfixError, last_line
from crm_milter.postfix.traces import Ours, TableEdit

_ROUNDS = 5  # a name that is empty now may have stood in another


def detach(postconf: Postconf, listeners: list[Listener], terminal: Terminal) -> bool:
    """Detach; True if our milter is detached in the end. Raises PostfixError."""
    home = postconf.directory
    with apply.locked(home):
        apply.sweep(home)
        known, current = record.load(home), read_texts(home)
        ours = Ours(listeners, known.address if known else "", postconf)
        texts, left = _without(postconf, known, current, ours)
        tables = traces.table_edits(postconf, ours)
        if known is None and texts == current and not tables and not left:
            terminal.tell(f'nothing to detach: nothing in "{home}" names crm-milter')
            return True
        show(home, current, texts, terminal.tell)
        _explain(home, current, texts, tables, terminal)
        if not terminal.confirm("apply these changes"):
            terminal.tell("nothing was changed")
            return False
        done = _apply(postconf, current, texts, tables, known, terminal)
        for each in left:
            terminal.tell(f"remove {' '.join(ours.names)} by hand from {each}")
        return done and not left


def _without(
    postconf: Postconf, known: Record | None, current: Texts, ours: Ours
) -> tuple[Texts, list[str]]:
    """Return the files without our milter, and where it still is for all that."""
    home = postconf.directory
    texts = record.reverted(known, current, home) if known else current
    with Staging(texts, home) as staging:
        for _ in range(_ROUNDS):
            edits = traces.edits(staging.postconf, ours)
            for each in edits:
                staging.apply(each)
            if not edits:
                break
        return staging.texts, traces.remaining(staging.postconf, ours)


def _explain(
    home: Path, current: Texts, texts: Texts, tables: list[TableEdit], terminal: Terminal
) -> None:
    for each in tables:
        before, after = each.before.splitlines(), each.after.splitlines()
        new = f"{each.path} (new)"
        for line in difflib.unified_diff(before, after, str(each.path), new, lineterm=""):
            terminal.tell(line)
    table = str(home / alias_file.NAME)
    if table not in current["main.cf"]:
        return
    if table in texts["main.cf"]:
        terminal.tell(f"{table} stays: its addresses are accepted, for unrouted_to")
    else:
        terminal.tell(
            f"addresses that only {table} has are then refused (550); to accept their mail while"
            " the milter is down: crm-milter attach --when-down accept"
        )


def _apply(
    postconf: Postconf,
    current: Texts,
    texts: Texts,
    tables: list[TableEdit],
    known: Record | None,
    terminal: Terminal,
) -> bool:
    home = postconf.directory
    try:
        apply.unchanged(home, current)
        apply.replace(home, current, texts)
        for each in tables:
            _replace(postconf, each, each.before, each.after)
        if not apply.check_and_reload(postconf):
            terminal.tell("Postfix is not running")
    except (PostfixError, Interrupted) as error:
        with uninterruptible():
            _undo(postconf, current, texts, tables)
            terminal.tell(f"rolled back: {error}")
        if isinstance(error, Interrupted):
            raise
        return False
    with uninterruptible():
        _clean(home, texts, known)
        instances.forget(postconf)
    terminal.tell("detached")
    return True


def _undo(postconf: Postconf, current: Texts, texts: Texts, tables: list[TableEdit]) -> None:
    apply.put_back(postconf.directory, (texts,), current)
    for each in tables:
        if each.path.read_text("utf-8", "surrogateescape") == each.after:
            _replace(postconf, each, each.after, each.before)
    postconf.run("postfix", "reload")


def _replace(postconf: Postconf, table: TableEdit, before: str, after: str) -> None:
    replace_text(table.path, before, after)
    if table.kind in INDEXED:
        done = postconf.run("postmap", f"{table.kind}:{table.path}")
        if done.returncode != 0:
            raise PostfixError(last_line(done.stderr) or "postmap failed")


def _clean(home: Path, texts: Texts, known: Record | None) -> None:
    """Remove what attach made, unless it is in use."""
    table = str(home / alias_file.NAME)
    if known and known.made_map and not any(table in each for each in texts.values()):
        apply.remove(apply.map_files(home))
    record.remove(home)
