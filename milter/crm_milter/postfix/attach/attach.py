"""Attach our milter to a Postfix: shown first, proved, and undone if it fails.

The changes are made in a copy, whose files then replace the real ones in one step each, unless
another program has changed those since. After that ``postfix check``, ``postfix reload`` and a
session with each smtpd that has to reach the milter; if one of them fails, or a signal comes,
what this program wrote is undone, and nothing else.
"""

import difflib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from crm_milter.postfix import alias_file, instances, patternfile, plan
from crm_milter.postfix.attach import apply, precheck, record
from crm_milter.postfix.attach import proof as probe
from crm_milter.postfix.attach.interrupt import Interrupted, committed, uninterruptible
from crm_milter.postfix.attach.proof import Result, SessionState
from crm_milter.postfix.attach.record import Record
from crm_milter.postfix.attach.staging import Staging
from crm_milter.postfix.edit import Edit
from crm_milter.postfix.files import FILES, Texts, read_texts
from crm_milter.postfix.plan import (
    discarded_dsn,
    non_smtpd_milters,
    notify_classes,
    original_recipient,
    receive_overrides,
    smtpd_milters,
    virtual_aliases,
)
from crm_milter.postfix.postconf import PostfixError
from crm_milter.postfix.site import Site
from crm_milter.postfix.whole_reports import bounce_size


@dataclass(frozen=True, slots=True)
class Terminal:
    """How to talk to a person: print a line, and ask whether to go on.

    ``consents`` asks as well; if all questions are answered in advance (--yes), it is no.
    """

    tell: Callable[[str], None]
    confirm: Callable[[str], bool]
    consents: Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked of attach; ``discard_dsn`` None is as the last attach did."""

    when_down: str = "tempfail"
    discard_dsn: bool | None = None
    proof: bool = True


@dataclass(frozen=True)
class _Job:
    """One run of attach: the files as they are, as they were before any, and as they will be."""

    site: Site
    wish: Wish
    terminal: Terminal
    current: Texts
    known: Record | None
    is_down: bool

    @cached_property
    def home(self) -> Path:
        return self.site.postconf.directory

    @cached_property
    def base(self) -> Texts:
        if self.known is None:
            return self.current
        return record.reverted(self.known, self.current, self.home)

    @property
    def target(self) -> Texts:
        """What a failure restores: the state after the previous attach, if that was completed."""
        return self.current if self.known and self.known.settled else self.base

    @cached_property
    def discards_dsn(self) -> bool:
        if self.wish.discard_dsn is not None:
            return self.wish.discard_dsn
        return self.known is not None and self.known.discards_dsn


def attach(site: Site, wish: Wish, terminal: Terminal) -> bool:
    """Attach; True if our milter is attached in the end. Raises PostfixError."""
    home = site.postconf.directory
    with apply.locked(home):
        apply.sweep(home)
        is_down = precheck.refuse(site, wish.when_down)
        job = _Job(site, wish, terminal, read_texts(home), record.load(home), is_down)
        with Staging(job.base, home) as staging:
            changes = attached(site, staging, wish.when_down, discard_dsn=job.discards_dsn)
            texts = staging.texts
            then = Site(site.config, site.path, staging.postconf)
            return _carry_out(job, then, Record(job.base, texts, changes))


def _carry_out(job: _Job, then: Site, new: Record) -> bool:
    state = alias_file.state(then)
    needs_map = bool(alias_file.listed(then)) and not (state.is_current and state.is_compiled)
    needs_map = needs_map or (bool(patternfile.listed(then)) and not patternfile.is_current(then))
    if new.after == job.current and not needs_map and (job.known is None or job.known.settled):
        return _already(job)
    if job.known and not job.known.settled:
        job.terminal.tell("an attach before this one was not finished")
    show(job.home, job.current, new.after, job.terminal.tell)
    for line in plan.remarks(then, discard_dsn=job.discards_dsn):
        job.terminal.tell(line)
    if needs_map:
        job.terminal.tell(f"{alias_file.path(then)}: {len(then.aliases)} entries")
        if lost := alias_file.shrinking(then):
            raise PostfixError(f'{lost}; run "crm-milter map --write --force" if that is intended')
    if not job.terminal.confirm("apply these changes"):
        job.terminal.tell("nothing was changed")
        return False
    made = (job.known is not None and job.known.made_map) or not alias_file.path(then).exists()
    new = replace(
        new,
        made_map=made,
        address=job.site.socket.address,
        earlier=job.current,
        discards_dsn=job.discards_dsn,
    )
    return _apply(job, then if needs_map else None, new)


def _already(job: _Job) -> bool:
    """Nothing has to be written, but a session is tested all the same."""
    try:
        _sessions(job)
    except PostfixError as error:
        job.terminal.tell(f"already attached, but {error}")
        return False
    job.terminal.tell("already attached, nothing to do")
    return True


def _apply(job: _Job, mapped: Site | None, new: Record) -> bool:
    tables = apply.map_files(job.home)
    before = apply.contents(tables)
    written: dict[Path, bytes | None] | None = None
    try:
        apply.unchanged(job.home, job.current)
        record.save(job.home, new)
        if mapped:
            written = {}  # what it is if that is interrupted is looked up then
            alias_file.write(mapped)
            patternfile.write(mapped)
            written = apply.contents(tables)
        apply.replace(job.home, job.current, new.after)
        is_settled = _prove(job)
        committed()
        record.save(job.home, replace(new, settled=is_settled))
        instances.remember(job.site.postconf)
    except (PostfixError, Interrupted) as error:
        with uninterruptible():
            lines = _undo(job, new, before, written)
            for line in [*lines, f"rolled back: {error}"]:
                job.terminal.tell(line)
        if isinstance(error, Interrupted):
            raise
        return False
    job.terminal.tell("attached")
    return True


def _undo(
    job: _Job,
    new: Record,
    before: dict[Path, bytes | None],
    written: dict[Path, bytes | None] | None,
) -> list[str]:
    """Undo what this attach wrote; return what a person has to know."""
    left = apply.put_back(job.home, (new.after, job.current), job.target)
    if left and job.target == job.base:
        # Edited by others since: remove only what attach added.
        now = read_texts(job.home)
        merged = record.reverted(new, now, job.home)
        left = apply.put_back(job.home, (now,), merged)
    if written is not None:
        apply.restore(before, written or apply.contents([*before]))
    if left:
        names = ", ".join(f'"{each}"' for each in left)
        lines = [f"{names} changed in the meantime and was left: run crm-milter detach"]
    else:
        _forget(job)
        lines = []
    apply.sweep(job.home)
    job.site.postconf.run("postfix", "reload")
    return lines


def _forget(job: _Job) -> None:
    if job.known is not None and job.known.settled:
        record.save(job.home, job.known)
        return
    table = str(job.home / alias_file.NAME)
    if job.known and job.known.made_map and not any(table in each for each in job.base.values()):
        apply.remove(apply.map_files(job.home))
    record.remove(job.home)


def _prove(job: _Job) -> bool:
    """Have Postfix load the change and reach the milter; False if Postfix is not running."""
    if not apply.check_and_reload(job.site.postconf):
        job.terminal.tell("Postfix is not running, so no session was tested; start it")
        return False
    _sessions(job)
    return True


def _sessions(job: _Job) -> None:
    """Raise PostfixError if sessions do not show that the milter is reached."""
    if not job.wish.proof:
        job.terminal.tell("no session was tested")
        return
    postconf = job.site.postconf.refreshed()
    if postconf.run("postfix", "status").returncode != 0:
        job.terminal.tell("Postfix is not running, so no session was tested; start it")
        return
    site = Site(job.site.config, job.site.path, postconf)
    results = probe.prove(site, is_down=job.is_down)
    failed = [each.reason for each in results if each.state is SessionState.FAILED]
    if failed:
        raise PostfixError(f"no session reaches the milter: {failed[0]}")
    _judge(job, site, results)


def _judge(job: _Job, site: Site, results: list[Result]) -> None:
    proved = [each.service for each in results if each.state is SessionState.REACHED]
    unknown = [each for each in results if each.state is SessionState.UNKNOWN]
    twins = {(each.chroot, site.postconf.raw("smtpd_milters", each)) for each in proved}
    reasons = []
    for each in unknown:
        job.terminal.tell(f'"{each.service.label}" was not tested: {each.reason}')
        raw = site.postconf.raw("smtpd_milters", each.service)
        if (each.service.chroot, raw) not in twins:
            reasons.append(each.reason)
    if not results:
        reasons.append("no smtpd has crm-milter; mail from sendmail(1) cannot be tried beforehand")
    if reasons and not job.terminal.consents(f"not proved: {reasons[0]}; keep it"):
        raise PostfixError(
            f"not proved that a session reaches the milter: {reasons[0]};"
            " attach --no-proof keeps it all the same"
        )
    if proved:
        job.terminal.tell(_DOWN if job.is_down else "test session reached the milter")


_DOWN = (
    "the milter is down: Postfix accepts mail without it, for unrouted_to;"
    ' "crm-milter attach" when it is back'
)


def show(home: Path, before: Texts, after: Texts, tell: Callable[[str], None]) -> None:
    """Print what would change."""
    for name in FILES:
        old, new = before[name].splitlines(), after[name].splitlines()
        for line in difflib.unified_diff(
            old, new, f"{home / name}", f"{home / name} (new)", lineterm=""
        ):
            tell(line)


def attached(
    site: Site, staging: Staging, when_down: str, *, discard_dsn: bool = False
) -> tuple[record.Change, ...]:
    """Apply to a copy all that is missing, and return what that was."""
    steps: tuple[Callable[[Site], list[Edit]], ...] = (
        lambda now: smtpd_milters(now, when_down),
        lambda now: non_smtpd_milters(now, when_down),
        lambda now: smtpd_milters(now, when_down),  # those that inherit non_smtpd_milters
        receive_overrides,
        virtual_aliases,
        plan.patterns,
        notify_classes,
        bounce_size,
        original_recipient,
        *([discarded_dsn] if discard_dsn else []),
    )
    return tuple(
        record.change(staging, edit)
        for step in steps
        for edit in step(Site(site.config, site.path, staging.postconf))
    )
