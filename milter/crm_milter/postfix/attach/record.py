"""What attach changed, kept next to main.cf, so that detach can undo exactly that.

The directory ``crm-milter-attached`` has copies of main.cf and master.cf as they were, and a
record of the edits, which is on disk before the first file changes: whatever ends attach, the
next attach or detach finds it. A file that still is what attach wrote becomes what it was before.
Otherwise each edit is undone by itself: in the text, as long as its lines are still there, else
in the parameter's list, where only the items that attach had added or removed are touched.
"""

import difflib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from crm_milter.postfix.attach.staging import Staging
from crm_milter.postfix.edit import Edit, without_blanks
from crm_milter.postfix.files import FILES, Texts, copy_as, real, write_atomically
from crm_milter.postfix.milters import parse
from crm_milter.postfix.postconf import PostfixError, split_list
from crm_milter.wording import why

FOLDER = "crm-milter-attached"


@dataclass(frozen=True, slots=True)
class Change:
    """One edit: the parameter's value before (None: not set), and the lines that changed."""

    file: str
    edit: Edit
    before: str | None
    hunks: tuple[tuple[str, str], ...]  # the lines before and after


@dataclass(frozen=True, slots=True)
class Record:
    """All that attach did: the files before and after, each change, whether it made the map.

    ``earlier`` is what the files were when this attach began, after an attach before it.
    ``address`` is what main.cf calls our socket: detach needs no configuration of ours. An attach
    that is not ``settled`` was interrupted, or Postfix was not running: the next one proves it.
    """

    before: Texts
    after: Texts
    changes: tuple[Change, ...] = field(default=())
    made_map: bool = False
    address: str = ""
    earlier: Texts = field(default_factory=dict)
    settled: bool = False
    discards_dsn: bool = False


def change(staging: Staging, edit: Edit) -> Change:
    """Apply an edit to a copy, and return what that changed."""
    texts = staging.texts
    before = _explicit(staging, edit.scope, edit.name)
    staging.apply(edit)
    file = "master.cf" if edit.scope else "main.cf"
    return Change(file, edit, before, tuple(_hunks(texts[file], staging.texts[file])))


def _explicit(staging: Staging, scope: str, name: str) -> str | None:
    postconf = staging.postconf
    if not scope:
        return postconf.raw(name) if name in postconf.explicit else None
    service = next((each for each in postconf.services if each.label == scope), None)
    return service.overrides.get(name) if service else None


def _hunks(before: str, after: str) -> list[tuple[str, str]]:
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    return [
        ("".join(old[a:b]), "".join(new[c:d]))
        for what, a, b, c, d in matcher.get_opcodes()
        if what != "equal"
    ]


def reverted(record: Record, current: Texts, home: Path) -> dict[str, str]:
    """Return the files as they would be had attach never run, with what others did since."""
    texts = dict(current)
    for name in FILES:
        if texts[name] in (record.after[name], record.earlier.get(name)):
            texts[name] = record.before[name]
    for each in reversed(record.changes):
        if texts[each.file] == record.before[each.file]:
            continue
        text = _undone(texts[each.file], each)
        if text is not None:
            texts[each.file] = text
            continue
        with Staging(texts, home) as staging:
            edit = _reverse(staging, each, record.address)
            if edit:
                staging.apply(edit)
            texts = staging.texts
    return texts


def _undone(text: str, change: Change) -> str | None:
    """Return a file without the lines of a change, None where they are not there as they were."""
    for old, new in reversed(change.hunks):
        # Whole lines: the text begins there, or the line before has ended.
        at = text.rfind(new) if new else -1
        if at < 0 or (at > 0 and text[at - 1] != "\n"):
            return None
        text = text[:at] + old + text[at + len(new) :]
    return text


def _reverse(staging: Staging, change: Change, ours: str) -> Edit | None:
    """Return the edit that removes a change from a parameter that others also edited."""
    scope, name = change.edit.scope, change.edit.name
    now = _explicit(staging, scope, name)
    if now is None:
        return None
    before, after = split_list(change.before or ""), split_list(change.edit.value or "")
    is_kept = {each: each in before or not _is_added(each, after, ours) for each in split_list(now)}
    kept = [each for each, kept in is_kept.items() if kept]
    kept += [each for each in before if each not in after and each not in kept]
    if kept == before:
        return Edit(scope, name, change.before)
    if kept == split_list(now):
        return None
    return Edit(scope, name, ", ".join(kept))


def _is_added(item: str, after: list[str], ours: str) -> bool:
    # In master.cf the same item stands without blanks.
    return without_blanks(item) in map(without_blanks, after) or ours in (
        each.address for each in parse(item)
    )


def load(directory: Path) -> Record | None:
    """Return the record in a configuration directory, None if there is none."""
    path = directory / FOLDER / "record.json"
    try:
        return _from_json(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise PostfixError(f'cannot read "{path}": {error}') from error


def _from_json(data: Mapping[str, Any]) -> Record:
    changes = (
        Change(
            each["file"],
            Edit(**each["edit"]),
            each["before"],
            tuple((old, new) for old, new in each["hunks"]),
        )
        for each in data["changes"]
    )
    return Record(**{**data, "changes": tuple(changes)})


def save(directory: Path, record: Record) -> None:
    """Keep a record; raises PostfixError."""
    folder = directory / FOLDER
    try:
        folder.mkdir(mode=0o755, exist_ok=True)
        for name, text in record.before.items():
            copy_as(real(directory / name), folder / name, text)
        # The last: without it there is no record, with it a complete one. main.cf may hide
        # passwords from other users.
        write_atomically(folder / "record.json", json.dumps(asdict(record), indent=1) + "\n", 0o600)
    except OSError as error:
        raise PostfixError(f'cannot write to "{folder}": {why(error)}') from error


def remove(directory: Path) -> None:
    """Forget a record; raises PostfixError."""
    folder = directory / FOLDER
    try:
        (folder / "record.json").unlink()  # the first: see save()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise PostfixError(f'cannot remove "{folder}": {why(error)}') from error
    shutil.rmtree(folder, ignore_errors=True)
