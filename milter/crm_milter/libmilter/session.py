"""The pymilter adapter: what Postfix tells in, a Decision carried out at end of message.

Callbacks are registered with the low-level ``milter`` module: ``Milter.Base`` would cost a
third of the throughput (tests/bench). libmilter calls those of one session in turn, but in
any of its threads, so all state hangs on the session's context. Recipients are matched as they
come; a message without a match is accepted at DATA and none of its header fields is fetched.
A fault never lets a message pass unrouted: it is logged and answered with 451. Only mail that did
not come by SMTP is left as it is then, for it would stay in maildrop forever.
"""

from __future__ import annotations

from time import perf_counter as clock

import milter

from crm_milter.libmilter.message import Message
from crm_milter.libmilter.replay import apply_decision
from crm_milter.libmilter.service import Service
from crm_milter.libmilter.threadstate import stack_protection
from crm_milter.log import error_line
from crm_milter.routing.decision import Decision, Envelope, Reason
from crm_milter.rules.rule import TableError

NEEDED_ACTIONS: int = (
    milter.ADDRCPT
    | milter.ADDRCPT_PAR
    | milter.DELRCPT
    | milter.ADDHDRS
    | milter.QUARANTINE
    | milter.CHGFROM
)
_MOST_KEPT = 8192  # bytes of header fields
_AROUND_A_FIELD = 4  # bytes: ": " and CRLF
INTERNAL_ERROR = ("451", "4.3.0", "internal error, try again later")


class Session:
    """The state of one connection, with the callbacks as libmilter calls them."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._recipients = service.recipients
        self._log = service.log
        self._tally = service.tally
        self._spent = 0.0  # seconds in our callbacks, for this message
        self._message: Message | None = None
        self._has_port = True
        self._client = ""
        self._can_edit = True
        self._enough_answer = milter.CONTINUE

    def negotiate(self, ctx: milter.Context, offer: list[int]) -> int:
        """Ask for just the actions, steps and macros that are used (libmilter xxfi_negotiate)."""
        actions, steps = offer[0], offer[1]
        self._can_edit = actions & NEEDED_ACTIONS == NEEDED_ACTIONS
        self._tally.opened()
        if not self._can_edit:
            self._tally.error("negotiation")
            self._log(
                "error: the mail server does not support the milter actions needed to reroute mail"
            )
        offer[0] = actions & (NEEDED_ACTIONS | milter.SETSYMLIST)
        offer[1] = steps & (self._service.steps | milter.P_SKIP)
        self._enough_answer = milter.SKIP if steps & milter.P_SKIP else milter.CONTINUE
        if actions & milter.SETSYMLIST:
            ctx.setsymlist(milter.M_ENVRCPT, "{rcpt_addr}")
            user = " {auth_authen}" if self._service.asks_for_users else ""
            ctx.setsymlist(milter.M_ENVFROM, f"i{user}")
            for stage in (milter.M_CONNECT, milter.M_DATA, milter.M_EOM):
                ctx.setsymlist(stage, "i")
        return milter.CONTINUE

    def connect(self, peer: object) -> int:
        """Remember the client, and whether it has a port: sendmail(1) has none."""
        is_inet = isinstance(peer, tuple) and len(peer) > 1
        self._has_port = not (is_inet and peer[1] == 0)  # type: ignore[index]
        self._client = str(peer[0] if is_inet else peer or "")  # type: ignore[index]
        return milter.NOREPLY

    def mail(self, argument: bytes, parameters: tuple[bytes, ...]) -> int:
        """Begin a message (RFC 5321 section 4.1.1.2)."""
        self._message = Message(argument, parameters)
        self._spent = 0.0
        return milter.NOREPLY

    def rcpt(self, ctx: milter.Context, argument: bytes, parameters: tuple[bytes, ...]) -> int:
        """Match one recipient (RFC 5321 section 4.1.1.3). A fault is answered at DATA."""
        began = clock()
        message = self._message
        if message is not None:
            try:
                resolved = _macro(ctx, "{rcpt_addr}")
                message.add(*self._recipients.find(message, argument, parameters, resolved))
            except Exception as fault:  # no answer is read here: kept until DATA
                message.fault = True
                self._tell("RCPT", "recipient", fault)
        self._spent += clock() - began
        return milter.NOREPLY

    def data(self, ctx: milter.Context) -> int:
        """Let go of a message without a match."""
        began = clock()
        message = self._message
        if message is None or message.fault or (message.matched and not self._can_edit):
            return self._fail(ctx, message)
        if message.matched:
            self._spent += clock() - began
            return milter.CONTINUE
        self._message = None
        self._tally.passed(self._spent + clock() - began)
        return milter.ACCEPT

    def keep(self, name: str, value: bytes) -> None:
        """Keep a header field for its facts; the name is in lower case. No answer is read here.

        Several at once take less time than one at each callback, but few are kept.
        """
        message = self._message
        if message is None:
            return
        if message.keep(name, value) > _MOST_KEPT:
            self._gather(message)

    def _gather(self, message: Message) -> None:
        try:
            message.gather(self._service.policy)
        except Exception as fault:  # kept until the end of the message
            if not message.fault:
                self._tell("header", "end_of_message", fault)
            message.fault = True

    def count(self, octets: int) -> None:
        """Count bytes of the header."""
        if self._message is not None:
            self._message.seen += octets

    def body(self, chunk: bytes) -> int:
        """Count the body, until the message is known to be larger than every limit."""
        message = self._message
        if message is None:
            return self._enough_answer
        message.seen += len(chunk)
        return self._enough_answer if message.seen > message.largest_limit else milter.CONTINUE

    def eom(self, ctx: milter.Context) -> int:
        """Decide, then do what was decided."""
        began = clock()
        message, self._message = self._message, None
        if message is not None:
            self._gather(message)
        if message is None or message.gathering is None or message.fault:
            return self._fail(ctx, message)
        try:
            facts = message.gathering.facts()
            envelope = self._envelope(ctx, message)
            resolution, headers = self._service.memory.resolve(envelope, facts)
            answer = apply_decision(ctx, message, resolution, headers)
            queue_id = _macro(ctx, "i") or "NOQUEUE"
            if envelope.paused and resolution.decision.hold:
                self._note_held(queue_id, resolution.decision)
            for words in resolution.words:
                self._log(f"{queue_id}: {words}")
            if resolution.counts is None:
                resolution.counts = self._tally.counts(resolution.decision, self._service.judges)
            said = facts.dmarc if self._service.authenticates else None
            self._tally.add(resolution.counts, self._spent + clock() - began, said)
        except Exception as fault:  # whatever it is, the sender tries again
            self._tell("end of message", "end_of_message", fault)
            return self._fail(ctx, message)
        return answer

    def _envelope(self, ctx: milter.Context, message: Message) -> Envelope:
        return Envelope(
            message.sender,
            tuple(message.recipients),
            self._is_by_smtp(message),
            message.size if self._service.measures_size else 0,
            self._service.asks_for_users and bool(_macro(ctx, "{auth_authen}")),
            self._client,
            message.occasion.now if self._recipients.match_by_message else None,
            self._service.pauses.now(),
        )

    def _note_held(self, queue_id: str, decision: Decision) -> None:
        paused = [each for each in decision.outcomes if each.reason is Reason.PAUSED]
        self._service.pauses.note_held(queue_id, (each.rule.name for each in paused))

    def _is_by_smtp(self, message: Message | None) -> bool:
        return self._has_port or (message is not None and message.is_bracketed)

    def abort(self) -> int:
        """Forget a message that the client gave up; one that we answered is forgotten already."""
        if self._message is not None:
            self._message = None
            self._tally.aborted()
        return milter.CONTINUE

    def close(self) -> int:
        """End the session (libmilter xxfi_close), be it in the middle of a message."""
        self.abort()
        self._tally.closed()
        return milter.CONTINUE

    def _tell(self, place: str, stage: str, fault: Exception) -> None:
        is_table = isinstance(fault, TableError)
        self._log(f"error: {fault}" if is_table else error_line(place, fault))
        self._tally.error("table" if is_table else stage)

    def _fail(self, ctx: milter.Context, message: Message | None) -> int:
        """Have the sender try again; mail that did not come by SMTP cannot, and goes on.

        Edits that were sent double it at worst, for additions come first.
        """
        self._message = None
        by_smtp = self._is_by_smtp(message)
        self._tally.failed(self._spent, by_smtp)
        if not by_smtp:
            self._log("warning: the message did not come by SMTP and is left as it is")
            return milter.ACCEPT
        ctx.setreply(*INTERNAL_ERROR)
        return milter.TEMPFAIL


def _macro(ctx: milter.Context, name: str) -> str | None:
    try:
        value: str | None = ctx.getsymval(name)
    except UnicodeDecodeError:
        return None
    return value


def register(service: Service) -> None:
    """Register the callbacks of one service with libmilter; raises milter.error."""
    protect_stack = stack_protection()

    def negotiate(ctx: milter.Context, offer: list[int]) -> int:
        protect_stack()
        session = Session(service)
        ctx.setpriv(session)
        return session.negotiate(ctx, offer)

    wanted, measures_size = service.policy.wanted_fields, service.measures_size

    def header(ctx: milter.Context, name: str, value: bytes) -> int:
        if measures_size:
            ctx.getpriv().count(len(name) + len(value) + value.count(b"\n") + _AROUND_A_FIELD)
        name = name.lower()
        if name in wanted:  # most are not, and cost no more than this look
            ctx.getpriv().keep(name, value)
        return milter.NOREPLY

    milter.set_connect_callback(lambda ctx, _host, _family, peer: ctx.getpriv().connect(peer))
    milter.set_envfrom_callback(lambda ctx, sender, *rest: ctx.getpriv().mail(sender, rest))
    milter.set_envrcpt_callback(lambda ctx, rcpt, *rest: ctx.getpriv().rcpt(ctx, rcpt, rest))
    milter.set_header_callback(header)
    milter.set_eoh_callback(lambda _ctx: milter.NOREPLY)
    milter.set_body_callback(lambda ctx, chunk: ctx.getpriv().body(chunk))
    milter.set_eom_callback(lambda ctx: ctx.getpriv().eom(ctx))
    milter.set_abort_callback(lambda ctx: ctx.getpriv().abort())
    milter.set_close_callback(lambda ctx: ctx.getpriv().close())
    milter.register("crm-milter", data=lambda ctx: ctx.getpriv().data(ctx), negotiate=negotiate)
