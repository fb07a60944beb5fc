"""The rows of decision tests: rules, envelopes and decisions in few words."""

from crm_milter.address import normalise, strip_path
from crm_milter.routing.decide import NoVerdict, Policy, decide
from crm_milter.routing.decision import Envelope, Recipient
from crm_milter.routing.marker import marker
from crm_milter.rules import conditions
from crm_milter.rules.conditions import Occasion
from crm_milter.rules.pattern import parse
from crm_milter.rules.rule import Copy, Rule
from crm_milter.rules.table import RuleTable
from crm_milter.rules.template import template
from crm_milter.spam.presets import PRESETS

CRM = "support@v1su.case.my-crm.com"
YES = ("x-spam-flag", "YES")
NO = ("x-spam-flag", "NO")
ID = ("message-id", "<1@customer.example>")


def rule(name, match="", target=None, **settings):
    for key in ("senders", "except_senders"):
        if key in settings:
            settings[key] = tuple(parse_sender(each) for each in settings[key].split())
    settings["conditions"] = (*settings.get("conditions", ()), *conditions.take(settings))
    settings["copies"] = tuple(
        Copy(each) if isinstance(each, str) else each for each in settings.get("copies", ())
    )
    patterns = tuple(parse(each) for each in match.split())
    return Rule(name, patterns, template(target) if target else None, **settings)


def mark(name, *fields, key=b""):
    """The marker of a rule, "" for several, on a message with these fields."""
    return marker(key, name, policy().facts(fields).identities[0])


def parse_sender(text):
    from crm_milter.rules.pattern import NullSender

    return NullSender() if text == "<>" else parse(text)


HELP = rule("support", "help@solarmora.com", CRM)


def policy(
    *rules,
    filters=("amavis",),
    no_verdict=NoVerdict.ROUTE,
    delimiter="",
    known=(),
    authserv_ids=frozenset(),
):
    presets = tuple(PRESETS[name] for name in filters)
    table = RuleTable(rules, delimiter, frozenset(known))
    return Policy(table, presets, no_verdict, authserv_ids=authserv_ids)


def recipient(rules, argument, notify="", orcpt="", sender="joe@customer.example"):
    raw = strip_path(argument)
    address = normalise(raw)
    match = rules.table.match(address, Occasion(sender))
    return Recipient(raw, address, match, notify, orcpt, argument.startswith("<"))


def run(rules, *arguments, fields=(NO,), sender="joe@customer.example", by_smtp=True, size=0):
    recipients = tuple(
        each if isinstance(each, Recipient) else recipient(rules, each, sender=sender)
        for each in arguments
    )
    return decide(rules, Envelope(sender, recipients, by_smtp, size), tuple(fields))


def added(decision):
    return [(each.address, each.parameters) for each in decision.add]


def targets(decision):
    return [each.address for each in decision.add]


def fates(decision):
    return [(each.action, each.reason) for each in decision.outcomes]


def applying(rules, address, sender="joe@customer.example"):
    """The name of the rule that applies, None where none does."""
    match = rules.table.match(address, Occasion(sender))
    return match.rule.name if match else None
