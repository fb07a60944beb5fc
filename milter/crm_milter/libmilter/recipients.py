"""What RCPT names: matched with the rules, and remembered where nothing else counts."""

from __future__ import annotations

from crm_milter import address as addresses
from crm_milter.libmilter.esmtp import orcpt_to_pass_on, text, upper
from crm_milter.libmilter.esmtp import parameters as esmtp
from crm_milter.libmilter.message import Message
from crm_milter.routing.decision import Recipient
from crm_milter.routing.twice import Twice
from crm_milter.rules.conditions import Occasion
from crm_milter.rules.rule import Match
from crm_milter.rules.table import RuleTable

_MOST = 4000  # remembered, some hundred bytes each
# What is: an address has 320 bytes at most (RFC 5321 section 4.5.3.1), and is there twice.
_LONGEST = 800
_ANY = Occasion()  # no condition asks for the message

Found = tuple[Recipient, int]  # and the largest limit of the rules that may apply to it, in bytes


class Recipients:
    """Finds recipients, for all sessions of a worker.

    ``match_by_message`` tells whether the match depends on more than the recipient.
    """

    def __init__(self, table: RuleTable, *, measures_size: bool) -> None:
        self._table = table
        self._measures_size = measures_size
        self.match_by_message = table.depends_on_message
        self._is_steady = not (table.depends_on_message or table.live())
        self._known: Twice[Found] = Twice(_MOST)

    def find(
        self,
        message: Message,
        argument: bytes,
        parameters: tuple[bytes, ...],
        resolved: str | None,
    ) -> Found:
        """Return what RCPT names; ``resolved`` is the address as Postfix resolved it.

        Raises TableError if the table of a rule cannot be read.
        """
        key = (argument, parameters, resolved)
        known = self._known.get(key)
        if known is None:
            known = self._look_up(message, argument, parameters, resolved)
            size = len(argument) + sum(map(len, parameters)) + len(resolved or "")
            if self._is_steady and size <= _LONGEST and self._known.came_before(key):
                self._known.keep(key, known)
        return known

    def _look_up(
        self,
        message: Message,
        argument: bytes,
        parameters: tuple[bytes, ...],
        resolved: str | None,
    ) -> Found:
        typed = text(argument)
        raw = addresses.strip_path(typed)
        address = addresses.normalise(_chosen(raw, resolved))
        occasion = message.occasion if self.match_by_message else _ANY
        match = self._table.match(address, occasion, raw)
        if match is None:
            return Recipient(raw, address), 0
        limit = self._limit(match)
        notify = orcpt = ""
        if parameters:
            values = esmtp(parameters)
            notify = upper(values.get("NOTIFY", ""))
            orcpt = orcpt_to_pass_on(values.get("ORCPT", ""))
        bracketed = typed.lstrip(" \t").startswith("<")
        waits = self._table.is_waiting(match)
        if waits:  # the candidates are looked up again: there may be many
            match = match._replace(behind=None)
        return Recipient(raw, address, match, notify, orcpt, bracketed, waits), limit

    def _limit(self, match: Match) -> int:
        return max(each.rule.max_size or 0 for each in match.chain()) if self._measures_size else 0


def _chosen(raw: str, resolved: str | None) -> str:
    """Return the address as Postfix resolved it; not where folding made another domain of it.

    Postfix folds "straße" to "strasse", which IDNA 2008 has as two domains.
    """
    if not raw.isascii() and "@" in raw:
        return raw
    return resolved or raw
