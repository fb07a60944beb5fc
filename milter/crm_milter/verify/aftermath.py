"""What follows from a test message beyond its outcome: for the spam, and for later bounces."""

import re
from collections.abc import Iterator

from crm_milter import address as addresses
from crm_milter.trace.lines import Delivery
from crm_milter.verify.outcome import Evidence, Expected
from crm_milter.verify.probe import Offer, offers_dsn
from crm_milter.wording import why

_SERVER = re.compile(r"(?P<name>[^\[\]]+)\[(?P<address>[0-9a-fA-F.:]+)\]:(?P<port>\d+)")


def consequences(expected: Expected, evidence: Evidence) -> Iterator[str]:
    """Yield what follows beyond the outcome: for the spam, and for later bounces."""
    got = [each for each in evidence.deliveries if each.to and _is_crm(expected, each)]
    sent = [each for each in got if each.status == "sent"]
    decided = evidence.decided(expected.address)
    if expected.spam:
        if sent:
            names = ", ".join(f"<{each.to}>" for each in sent)
            yield f"spam      it arrived at the CRM: {names}"
        elif got:
            yield "spam      it was sent to the CRM and has not arrived yet"
        elif decided and decided.reason != "spam" and decided.verdict != "spam":
            yield "spam      it did not arrive at the CRM"
        return
    if expected.dead_letters and any(each.status in ("bounced", "expired") for each in got):
        yield f"bounce    <{expected.dead_letters}> (dead_letters) gets the whole message"
    if expected.keeps_sender:
        for each in sent:
            yield from _dsn(each)


def _is_crm(expected: Expected, each: Delivery) -> bool:
    names = (addresses.normalise(each.to), addresses.normalise(each.original))
    return any(name in (expected.targets or expected.copies) for name in names if name)


def _dsn(each: Delivery) -> Iterator[str]:
    server = _SERVER.fullmatch(each.relay)
    if server is None:
        return
    try:
        offers = offers_dsn(server["address"], int(server["port"]))
    except OSError as error:
        yield f"dsn       unknown whether {server['name']} offers DSN: {why(error)}"
        return
    yield f"dsn       {server['name']} {_told(offers)}"


def _told(offers: Offer) -> str:
    ways = {offers.plain, offers.encrypted} - {None}
    if ways == {True}:
        return "offers DSN: it is told not to bounce to the sender"
    when = "" if ways == {False} else " without STARTTLS" if offers.encrypted else " with STARTTLS"
    return (
        f"offers no DSN{when}: if it accepts mail and bounces it later,"
        " the sender gets that bounce and sees the address of the CRM; set dead_letters"
    )
