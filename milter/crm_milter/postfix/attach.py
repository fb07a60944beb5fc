"""Attach our milter to a Postfix, and detach it: shown first, proved, and undone if it fails.

postconf makes the changes in a copy, whose files then replace the real ones in one step each.
After that ``postfix check``, ``postfix reload`` and a session that has to reach the milter; if
one of them fails everything is put back as it was.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crm_milter.postfix import apply, eligible, lint_socket, mapfile, plan, probe, record
from crm_milter.postfix.placement import placement
from crm_milter.postfix.postconf import Postconf, PostfixError
from crm_milter.postfix.record import Record
from crm_milter.postfix.site import Site
from crm_milter.postfix.staging import FILES, Staging, Texts, read_texts


@dataclass(frozen=True, slots=True)
class Terminal:
    """How to talk to a person: print a line, and ask whether to go on."""

    tell: Callable[[str], None]
    agrees: Callable[[str], bool]


def attach(site: Site, when_down: str, terminal: Terminal) -> bool:
    """Attach; True if our milter is attached in the end. Raises PostfixError."""
    _refuse(site, when_down)
    home = site.postconf.directory
    current = read_texts(home)
    known = record.load(home)
    base = record.reverted(known, current, home) if known else current
    with Staging(base, home) as staging:
        changes = plan.attached(site, staging, when_down)
        texts = staging.texts
        then = Site(site.config, site.path, staging.postconf)
        state = mapfile.state(then)
        needs_map = bool(mapfile.listed(then)) and not (state.is_current and state.is_compiled)
        if texts == current and not needs_map:
            terminal.tell("already attached, nothing to do")
            return True
        _show(home, current, texts, terminal)
        if needs_map:
            terminal.tell(f"{mapfile.path(then)}: {len(then.aliases)} entries")
        if not terminal.agrees("apply these changes"):
            terminal.tell("nothing was changed")
            return False
        made = (known is not None and known.made_map) or not mapfile.path(then).exists()
        undo = apply.Undo(site.postconf, current)
        with undo:
            record.save(home, Record(base, texts, changes, made, site.socket.address))
            if needs_map:
                mapfile.write(then)
            apply.replace(home, current, texts)
            _prove(site, terminal)
    return undo.told(terminal.tell, "attached")


def detach(postconf: Postconf, terminal: Terminal) -> bool:
    """Take back what attach changed; True if our milter is detached. Raises PostfixError."""
    home = postconf.directory
    known = record.load(home)
    if known is None:
        terminal.tell(f'nothing to detach: there is no "{home / record.FOLDER}"')
        return True
    current = read_texts(home)
    texts = record.reverted(known, current, home)
    _show(home, current, texts, terminal)
    if not terminal.agrees("apply these changes"):
        terminal.tell("nothing was changed")
        return False
    undo = apply.Undo(postconf, current)
    with undo:
        apply.replace(home, current, texts)
        if not apply.take_up(postconf):
            terminal.tell("postfix is not running")
        table = str(home / mapfile.NAME)
        if known.made_map and not any(table in texts[name] for name in texts):
            for each in apply.map_files(home):
                each.unlink(missing_ok=True)
        record.remove(home)
    return undo.told(terminal.tell, "detached")


def _prove(site: Site, terminal: Terminal) -> None:
    """Have Postfix take the change up and reach the milter; raises PostfixError if not."""
    if not apply.take_up(site.postconf):
        terminal.tell("Postfix is not running, so no session was tested; start it")
        return
    reason = probe.failure(Site(site.config, site.path, site.postconf.anew()))
    if reason:
        raise PostfixError(f"no session reaches the milter: {reason}")
    terminal.tell("test session reached the milter")


def _refuse(site: Site, when_down: str) -> None:
    """Raise PostfixError where attaching would do harm."""
    reasons = eligible.refusals(site) if when_down == "accept" else []
    if reasons:
        raise PostfixError(f"--when-down accept would lose or change mail: {'; '.join(reasons)}")
    reason = lint_socket.unreachable(site)
    if reason:
        raise PostfixError(f"{reason}; start crm-milter first, or postfix would answer 451")
    mapfile.wanted(site)
    chrooted = [each.label for each in placement(site).wanted if each.chroot]
    if chrooted and site.socket.in_chroot is None and site.socket.address.startswith("unix:"):
        queue = site.postconf.value("queue_directory")
        raise PostfixError(
            f'"{chrooted[0]}" runs in the chroot {queue} and cannot see'
            f" {site.socket.address}: set milter.listen to"
            f" unix:{queue}/crm-milter/milter.sock in {site.path}"
        )


def _show(home: Path, before: Texts, after: Texts, terminal: Terminal) -> None:
    for name in FILES:
        old, new = before[name].splitlines(), after[name].splitlines()
        for line in difflib.unified_diff(
            old, new, f"{home / name}", f"{home / name} (new)", lineterm=""
        ):
            terminal.tell(line)
