"""A probe sent through Postfix and followed in the log until it is clear where it went.

The only command with an effect elsewhere: the CRM opens a case. What will happen is printed before
anything is sent.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from crm_milter import address as addresses
from crm_milter.config.listen import UnixSocket
from crm_milter.config.load import Config
from crm_milter.rules.conditions import Occasion
from crm_milter.rules.rule import Match, Mode, Rule
from crm_milter.trace.history import group_by_message
from crm_milter.trace.report import delivery_words
from crm_milter.trace.sources import Source
from crm_milter.verify import acknowledgement
from crm_milter.verify.aftermath import consequences
from crm_milter.verify.outcome import Evidence, Expected, Proof, Result, evaluate
from crm_milter.verify.probe import Probe, ServerReply
from crm_milter.verify.rehearsal import look_for_session
from crm_milter.verify.relayhost import Relayhost, direct
from crm_milter.wording import printable

_POLL_INTERVAL = 0.2  # seconds between two looks at the log
# An outcome that rests on a line that is not there is believed after this many seconds.
_GRACE = 1.5
_COMPLAINTS = ("warning: connect to Milter service ", "warning: milter ")


class NothingToVerifyError(Exception):
    """The configuration promises nothing that a probe could prove; the text says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be sent, and what ought to become of it."""

    probe: Probe
    expected: Expected
    mode: Mode
    milter: str  # how Postfix's complaints name ours, at their end


def plan(config: Config, probe: Probe, through: Callable[[str, str], Relayhost] = direct) -> Plan:
    """Return what a probe is to prove; raises NothingToVerifyError.

    ``through`` finds the host through which Postfix sends mail of a sender to a recipient.
    """
    raw = addresses.strip_path(probe.recipient)
    normal = addresses.normalise(raw)
    fields = ((name.lower(), str(value)) for name, value in probe.message().items())
    header = config.policy.facts(fields).header
    occasion = Occasion(addresses.normalise(probe.sender), header=header, now=time.time())
    match = config.policy.table.match(normal, occasion, raw)
    if match is None:
        message = (
            f'no rule matches <{normal}> from <{probe.sender}>; "crm-milter explain" shows why'
        )
        raise NothingToVerifyError(message)
    if probe.until_case and (name := acknowledgement.rerouted_by(config, probe.sender)):
        message = f'rule "{name}" would reroute the acknowledgement to <{probe.sender}>; use --from'
        raise NothingToVerifyError(message)
    *_, match = match.chain()  # behind rules in mode test, the one that acts
    if probe.spam_line:
        _check_spam(config, match)
    expected = _expected(config, match, normal, probe, through)
    return Plan(probe, expected, match.rule.mode, _milter_name(config))


def _expected(
    config: Config,
    match: Match,
    normal: str,
    probe: Probe,
    through: Callable[[str, str], Relayhost],
) -> Expected:
    rule, found = match.rule, match.targets()
    if found is None:
        raise NothingToVerifyError(f'rule "{rule.name}" produces no valid target for <{normal}>')
    targets = tuple(addresses.normalise(each) for each in found)
    copies = tuple(sorted({addresses.normalise(each.address) for each in rule.copies} - {*targets}))
    box = rule.dead_letters or config.dead_letters or ""
    becomes_box = _becomes_sender(probe, rule, box)
    sender = box if becomes_box else probe.sender
    return Expected(
        normal,
        rule.name,
        targets,
        copies,
        any(each.marks_ham for each in config.policy.filters),
        spam=bool(probe.spam_line),
        relayhosts={each: through(sender, each) for each in (*targets, *copies)},
        keeps_sender=rule.suppress_bounces and not becomes_box,
        dead_letters=box,
    )


def _becomes_sender(probe: Probe, rule: Rule, box: str) -> bool:
    """Tell whether the mailbox for dead letters replaces the sender of a probe."""
    return bool(probe.sender and box) and all(each.suppress_bounces for each in rule.copies)


def _check_spam(config: Config, match: Match) -> None:
    if match.rule.bypass_spam_filter:
        name = match.rule.name
        message = f'rule "{name}" bypasses the spam filter: it reroutes spam on purpose'
        raise NothingToVerifyError(message)
    if not config.policy.filters:
        raise NothingToVerifyError(
            'no spam filter is configured under "spam": all mail counts as ham'
        )


def _milter_name(config: Config) -> str:
    listen = config.milter.listen
    if isinstance(listen, UnixSocket):
        # Seen from the chroot the path is shorter; folder and name stay.
        return "/".join(Path(listen.path).parts[-2:])
    return f":{listen.port}"


def announcement(planned: Plan) -> Iterator[str]:
    """Yield what will happen."""
    expected = planned.expected
    targets = ", ".join(f"<{each}>" for each in expected.targets)
    copies = ", ".join(f"<{each}>" for each in expected.copies)
    goes = f"goes to {targets}" if targets else "stays"
    also = f", copies to {copies}" if copies else ""
    yield f'rule "{expected.rule}": <{expected.address}> {goes}{also}'
    if planned.mode is Mode.TEST:
        yield (
            "this sends a real message; in test mode it is delivered as if crm-milter were not"
            " there"
        )
    elif expected.spam:
        yield (
            "this sends a real message that the filter should mark as spam; if it reaches the"
            " CRM, a case is opened"
        )
    else:
        yield f"this sends a real message: {targets or copies} will open a case"
    if planned.probe.until_case:
        seconds = planned.probe.until_case
        yield f"the log can be read: this waits up to {seconds:g} s for the CRM's acknowledgement"


def run(
    planned: Plan,
    server: tuple[str, int],
    sources: list[Source],
    timeout: float,
    say: Callable[[str], None],
) -> Proof:
    """Send the probe, say what the log shows, and return the outcome."""
    for source in sources:
        source.forget()
    probe, sent_at = planned.probe, time.monotonic()
    host, port = server
    reply = probe.send(host, port, connected=lambda: look_for_session(server, sources))
    say(f"sent      to {host}:{port} as {probe.token}")
    say(f"answer    {printable(str(reply))}")
    if reply.accepted:
        names = ", ".join(source.name for source in sources)
        say(f"log       waiting up to {timeout:g} s for it in {names}")
    evidence, result = _watch(planned, reply, sources, timeout)
    for line in (*_shown(planned.expected, evidence), *consequences(planned.expected, evidence)):
        say(printable(line))
    say(printable(f"{result.outcome.value}: {result.why}"))
    for advice in result.advice:
        say(f"  {advice}")
    if probe.until_case and result.outcome is Proof.ARRIVED:
        return _case(planned, sources, sent_at, say)
    return result.outcome


def _case(
    planned: Plan, sources: list[Source], sent_at: float, say: Callable[[str], None]
) -> Proof:
    """Wait for the CRM's acknowledgement, say what is known, and return the outcome."""
    probe, box = planned.probe, planned.expected.dead_letters
    say(f"case      waiting for mail to <{probe.sender}>")
    found = acknowledgement.wait(probe.sender, sources, probe.until_case, sent_at)
    say(printable(acknowledgement.shown(found, probe.sender, probe.until_case)))
    is_reported = found is None and box and acknowledgement.reported(box, sources)
    acknowledgement.advice(found, probe.sender, box if is_reported else "", say)
    if found is None:
        return Proof.NO_CASE
    return Proof.CASE_OPENED if found.sender else Proof.CASE_BOUNCED


def _watch(
    planned: Plan, reply: ServerReply, sources: list[Source], timeout: float
) -> tuple[Evidence, Result]:
    deadline = time.monotonic() + timeout
    doubted_until = 0.0
    while True:
        evidence = _evidence(planned, reply, sources)
        now = time.monotonic()
        result = evaluate(planned.expected, evidence, time_is_up=now >= deadline)
        if result and result.by_absence and now < deadline:
            doubted_until = doubted_until or now + _GRACE
            if now < doubted_until:
                result = None
        if result:
            return evidence, result
        if now >= deadline:  # cannot be, but must not last forever
            return evidence, Result(Proof.UNKNOWN, "the log does not show enough")
        time.sleep(min(_POLL_INTERVAL, max(0.0, deadline - now)))


def _evidence(planned: Plan, reply: ServerReply, sources: list[Source]) -> Evidence:
    queue_ids = {reply.queue_id} if reply.queue_id else set()
    complaints: list[str] = []
    for source in sources:
        for line in source.lines([planned.probe.token, *_COMPLAINTS]):
            if line.queue_id and planned.probe.token in line.text:
                queue_ids.add(line.queue_id)
            elif line.text.startswith(_COMPLAINTS) and _is_ours(line.text, planned.milter):
                complaints.append(line.text.removeprefix("warning: "))
    wanted = frozenset(queue_ids)
    lines = [
        line
        for source in sources
        if wanted
        for line in source.entries(wanted)
        if line.queue_id in wanted
    ]
    return Evidence(reply, tuple(group_by_message(lines)), tuple(complaints))


def _is_ours(complaint: str, name: str) -> bool:
    words = complaint.split()
    return any(word.rstrip(":,").endswith(name) for word in words)


def _shown(expected: Expected, evidence: Evidence) -> Iterator[str]:
    decided = evidence.decided(expected.address)
    if evidence.reply.accepted or decided:
        yield f"milter    {decided.text if decided else 'nothing logged'}"
    tried = evidence.deliveries
    if not tried:
        return
    yield f"queue     {', '.join(f'<{each.to}>' for each in tried)}{_instead(expected, evidence)}"
    for each in tried:
        yield f"delivery  {delivery_words(each)}"


def _instead(expected: Expected, evidence: Evidence) -> str:
    stays = any(
        expected.address in (addresses.normalise(each.to), addresses.normalise(each.original))
        for each in evidence.deliveries
    )
    return f" for <{expected.address}>" if stays else f" instead of <{expected.address}>"


def started() -> datetime:
    """Return now, in whole seconds: lines written in this second count."""
    return datetime.now().astimezone().replace(microsecond=0)
