"""What is wrong with header fields: those that a rule adds, and those that it depends on."""

import re
from collections.abc import Iterator

from crm_milter.config.build import RuleEntry, SpamSettings
from crm_milter.config.crms import crm_of
from crm_milter.config.lint.crms import targets
from crm_milter.config.place import Section
from crm_milter.rules.rule import OnUnauthenticated
from crm_milter.spam.verdict import field_names

_ROUTE = OnUnauthenticated.ROUTE


def check(entries: tuple[RuleEntry, ...], root: Section) -> None:
    """Note what is wrong with the header fields of these rules."""
    _verdicts(entries, root["spam"] or SpamSettings())
    _authentication(entries, root)
    for entry in entries:
        _secrets(entry)


def _verdicts(entries: tuple[RuleEntry, ...], spam: SpamSettings) -> None:
    """Note header fields that would be taken for the word of the spam filter."""
    read = field_names(spam.filters)
    for entry in entries:
        for name, _ in entry.rule.add_headers:
            if name.lower() in read:
                message = "this field carries the spam filter's verdict; choose another name"
                entry.place.complain(("add_headers", name), message)


def _authentication(entries: tuple[RuleEntry, ...], root: Section) -> None:
    """Note that "authentication" is missing although a rule needs it, or is not used."""
    asking = [each for each in entries if each.rule.on_unauthenticated is not _ROUTE]
    if root["authentication"] and not asking:
        message = 'has no effect: no rule uses "on_unauthenticated"'
        root.place.warn(("authentication",), message)
    for entry in asking if not root["authentication"] else ():
        entry.place.complain(("on_unauthenticated",), 'requires "authentication"')


_LONG_ID = re.compile(r"(?=[A-Za-z_-]*[0-9])(?=[0-9_-]*[A-Za-z])[A-Za-z0-9_-]{15,}")


def _secrets(entry: RuleEntry) -> None:
    """Note added header fields that hold what a sender must not learn.

    Postfix sends the header after the milters' edits to a sender who asks for it by NOTIFY=SUCCESS
    and RET=HDRS (RFC 3461).
    """
    rule = entry.rule
    secret = {each.lower() for target, _ in targets(rule) for each in _telling(target)}
    secret |= {copy.address.lower() for copy in rule.copies}
    for name, value in rule.add_headers:
        held = re.sub(r"\{[^{}]*\}", " ", value).lower()
        if any(each in held for each in secret) or _LONG_ID.search(held):
            message = (
                "looks like a secret, and any sender can read it in a delivery report"
                ' (smtpd_discard_ehlo_keywords = "dsn" in main.cf prevents that)'
            )
            entry.place.warn(("add_headers", name), message)


def _telling(target: str) -> Iterator[str]:
    """Yield the target, and its domain if that is one of a CRM's."""
    domain = target.rpartition("@")[2]
    yield target
    if crm_of(domain) is not None:
        yield domain
