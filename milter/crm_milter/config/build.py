"""Tables of the configuration to the objects that the rest of the program works with.

Here is checked what concerns several keys of one table; what concerns several rules is in
``lint``.
"""

from dataclasses import dataclass
from enum import Enum

from crm_milter.config.listen import Listener, UnixSocket
from crm_milter.config.place import Place, Section
from crm_milter.config.values import spam_filter
from crm_milter.mailbox import mailbox
from crm_milter.routing.clients import Network
from crm_milter.routing.decide import NoVerdict
from crm_milter.rules import conditions
from crm_milter.rules.flood import Flood
from crm_milter.rules.pattern import Pattern, group_count, has_literal_domain
from crm_milter.rules.rule import AutomaticClass, Copy, OnAutomatic, Rule
from crm_milter.rules.strangers import free_reference
from crm_milter.rules.template import Template
from crm_milter.spam import own_filter, verdict
from crm_milter.wording import counted


class Reload(Enum):
    """When the files are read again."""

    SIGNAL = "signal"
    WATCH = "watch"


@dataclass(frozen=True, slots=True)
class MilterSettings:
    """How Postfix reaches the milter, and how many processes answer.

    ``socket_mode`` and ``socket_group`` concern Unix sockets, ``workers`` is None for one per
    usable CPU (at most 4), ``drain_timeout`` is in seconds.
    """

    listen: Listener
    socket_mode: int
    socket_group: str
    workers: int | None
    drain_timeout: int


@dataclass(frozen=True, slots=True)
class SpamSettings:
    """Which marks of spam to trust."""

    filters: tuple[verdict.SpamFilter, ...] = ()
    no_verdict: NoVerdict = NoVerdict.ROUTE
    unfiltered: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleEntry:
    """A rule, and where it stands."""

    rule: Rule
    place: Place


def same(section: Section) -> Section:
    """Return the section itself."""
    return section


def milter(section: Section) -> MilterSettings:
    """Return the settings under ``milter``."""
    mode = section["socket_mode"]
    if mode & 0o007 and isinstance(section["listen"], UnixSocket):
        message = f'"{mode:04o}" lets every user of the host connect; use "{mode & 0o770:04o}"'
        section.place.warn(("socket_mode",), message)
    return MilterSettings(**section.values)


def metrics(section: Section) -> Section:
    """Return the settings under ``metrics``, of the logs none for ``none``."""
    logs: tuple[str, ...] = section["deliveries"]
    alone = next((each for each in ("auto", "none") if each in logs and len(logs) > 1), "")
    if alone:
        section.place.complain(("deliveries",), f'"{alone}" cannot be combined with other logs')
    if "none" in logs:
        section.values["deliveries"] = ()
    return section


def preset(text: str) -> SpamSettings:
    """Return the settings for ``spam: PRESET``."""
    return SpamSettings((spam_filter(text),))


def spam(section: Section) -> SpamSettings:
    """Return the settings under ``spam``."""
    filters = (*section["filter"], *section["headers"])
    if not filters:
        section.place.complain((), '"filter" and "headers" are both empty')
    if filters and section.is_set("no_verdict") and not any(each.marks_ham for each in filters):
        names = ", ".join(f'"{each.name}"' for each in filters)
        message = f"has no effect: with {names}, mail without a mark counts as ham"
        section.place.warn(("no_verdict",), message)
    return SpamSettings(filters, section["no_verdict"], section["unfiltered"])


def header(section: Section) -> verdict.SpamFilter:
    """Return the filter for one of ``spam.headers``."""
    name = section["name"]
    if section["value"] is not None:
        return own_filter.by_value(name, section["value"])
    return own_filter.by_score(name, section["at_least"])


def plain_copy(text: str) -> Copy:
    """Return one of ``also_deliver_to`` that is only an address."""
    return Copy(mailbox(text))


def automatic(section: Section) -> frozenset[AutomaticClass]:
    """Return the classes of automatic mail that are left."""
    return frozenset(each for each in AutomaticClass if section[each.value] is OnAutomatic.LEAVE)


def flood(section: Section) -> Flood:
    """Return the flood guard of a rule."""
    per = section["per"] if section.is_set("per") else None
    return Flood(section["limit"], per, section["then"], section["except"])


def copy(section: Section) -> Copy:
    """Return one of ``also_deliver_to``."""
    values = section.values
    return Copy(values["address"], values["deliver_spam"], values["suppress_bounces"])


def rule(section: Section) -> RuleEntry:
    values = section.values
    built = Rule(copies=values.pop("also_deliver_to"), conditions=conditions.take(values), **values)
    place = section.place
    if built.bypass_spam_filter and section.is_set("on_spam"):
        message = 'cannot be combined with "bypass_spam_filter: true"'
        place.complain(("on_spam",), message)
    _unsaid(built, section)
    if built.replace_with is not None:
        _fill(built.replace_with, built.match, place)
    if not built.replaces and not built.copies:
        message = (
            'has neither "replace_with" nor "also_deliver_to": it does nothing except hide'
            " its addresses from later rules"
        )
        place.warn((), message)
    return RuleEntry(built, place)


def _unsaid(rule: Rule, section: Section) -> None:
    """Note what has no effect because another key or content is missing."""
    place = section.place
    if section.is_set("on_oversize") and rule.max_size is None:
        place.warn(("on_oversize",), 'has no effect without "max_size"')
    if rule.propagate_extension and not rule.replaces:
        place.warn(
            ("propagate_extension",), "has no effect: the rule does not replace the recipient"
        )
    patterns = {condition.key: condition.patterns for condition in rule.conditions}
    for number, pattern in enumerate(patterns.get("senders", ())):
        if pattern in patterns.get("except_senders", ()):
            message = f'"{pattern}" is also in "except_senders" and therefore never matches'
            place.warn(("senders", number), message)


def _fill(template: Template, match: tuple[Pattern, ...], place: Place) -> None:
    """Note where a template does not fit the patterns of its rule."""
    most = 0 if template.is_constant else max(template.references(), default=0)
    for pattern in match:
        if not has_literal_domain(pattern):
            message = (
                f'cannot be used with "{pattern}", which does not end in a domain:'
                " outgoing mail would also be rerouted"
            )
        elif most > group_count(pattern):
            groups = counted(group_count(pattern), "group") if group_count(pattern) else "no groups"
            message = f'"\\{most}" does not exist: "{pattern}" has {groups}'
        elif (free := free_reference(template, pattern)) is not None:
            message = (
                f'"\\{free}" in the domain lets any sender choose where the mail goes (an open'
                r" relay); write the domain, or list its values in a group such as (shop|help\.eu)"
            )
        else:
            continue
        place.complain(("replace_with",), message)
