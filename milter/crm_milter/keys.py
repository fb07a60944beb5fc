"""Every key of the configuration: name, kind, default and what it is for.

The one description of the configuration. The validator reads by it, suggestions come from it,
and the annotated example is tested against it.
"""

from crm_milter import build, values
from crm_milter.address import mailbox
from crm_milter.pattern import template
from crm_milter.routing import NoVerdict
from crm_milter.rules import Mode, OnSpam
from crm_milter.schema import (
    Choice,
    Decimal,
    Either,
    Flag,
    Key,
    Several,
    Text,
    Whole,
    table,
)

ADDRESS = Text("an address", mailbox)
PATTERN = Text("a pattern", values.pattern)
PRESET = Text("a preset", values.spam_filter)


def _later(name: str, doc: str) -> Key:
    return Key(name, Text("a text"), None, doc, supported=False)


MILTER = table(
    'a mapping with the keys of the milter ("listen", ...)',
    build.milter,
    Key(
        "listen",
        Text("a listener", values.listener),
        "unix:/var/spool/postfix/crm-milter/milter.sock",
        "where Postfix reaches the milter",
    ),
    Key(
        "socket_mode",
        Text("permissions", values.socket_mode),
        "0660",
        "permissions of a Unix socket, in octal",
    ),
    Key("socket_group", Text("a group", values.group), "postfix", "group of a Unix socket"),
    Key(
        "workers",
        Whole('a number from 1 to 64 or "auto"', 1, 64, word="auto"),
        "auto",
        "processes that answer; auto: one a usable processor, at most 4",
    ),
    Key(
        "drain_timeout",
        Whole("a number of seconds up to 86400", 0, 86400),
        60,
        "seconds that open sessions get when the milter is stopped",
    ),
)

METRICS = table(
    'a mapping with "listen"',
    lambda section: section["listen"],
    Key(
        "listen",
        Text('"HOST:PORT" or "none"', values.exporter_address),
        "127.0.0.1:9894",
        "where Prometheus reads the metrics; none: nowhere",
    ),
)

HEADER = table(
    'a header: "name", and "value" or "at_least"',
    build.header,
    Key("name", Text("a header name", values.field_name), None, "header field", required=True),
    Key("value", Text("a text", values.field_value), None, "spam where it matches; * and ?"),
    Key("at_least", Decimal(), None, "spam where the first number reaches this score"),
)

SPAM = table(
    'a mapping with "filter" or "headers"',
    build.spam,
    Key("filter", Several(PRESET), (), "presets of spam filters whose word counts"),
    Key("headers", Several(HEADER), (), "header fields of your own filter"),
    Key(
        "no_verdict",
        Choice(NoVerdict),
        "route",
        "mail without a word of filters that mark ham",
    ),
)

COPY = table(
    'a mapping with "address"',
    build.copy,
    Key("address", ADDRESS, None, "who gets the copy", required=True),
    Key("deliver_spam", Flag(), False, "copies of spam, too, where a rule lets spam pass"),
    Key("suppress_bounces", Flag(), True, "the sender hears nothing if the copy bounces"),
)

RULE = table(
    'a mapping with the keys of a rule ("name", "match", ...)',
    build.rule,
    Key("name", Text("a name", values.rule_name), None, "label in logs", required=True),
    Key("match", Several(PATTERN, least=1), (), "recipients it applies to", required=True),
    Key("replace_with", Text("an address", template), None, "where the mail goes instead"),
    Key(
        "also_deliver_to",
        Several(Either(Text("an address", build.plain_copy), COPY)),
        (),
        "who gets a copy",
    ),
    Key("bypass_spam_filter", Flag(), False, "spam is rerouted as well"),
    Key("on_spam", Choice(OnSpam), "leave", "what happens to spam"),
    Key("suppress_bounces", Flag(), True, "the sender hears nothing if the CRM refuses"),
    Key("unrouted_to", ADDRESS, None, "mailbox for what is left, in place of the global one"),
    Key("mode", Choice(Mode), "enforce", "test: only log what would be done"),
    _later("address_map", "table of addresses and their targets"),
    _later("senders", "envelope senders it applies to"),
    _later("except_senders", "envelope senders it does not apply to"),
    _later("apply_to", "known or unknown recipients"),
    _later("auto_submitted", "what happens to automatic mail"),
    _later("max_size", "largest message that is routed"),
    _later("on_oversize", "what happens to larger ones"),
    _later("envelope_sender", "address for bounces"),
    _later("propagate_extension", "keep the extension of the recipient"),
    _later("add_headers", "header fields to add"),
)

ROOT = table(
    'keys such as "rules:"',
    build.same,
    Key("milter", MILTER, {}, "how Postfix reaches the milter"),
    Key("metrics", METRICS, {}, "what Prometheus reads"),
    Key(
        "recipient_delimiter",
        Text("characters", values.delimiters),
        "",
        "as in main.cf: what starts an extension",
    ),
    Key("unrouted_to", ADDRESS, None, "mailbox for matched mail that is left"),
    Key(
        "spam",
        Either(Text("a preset", build.preset), SPAM),
        None,
        "whose word on spam counts",
    ),
    Key("rules", Several(RULE, one=False), (), "the first that matches a recipient applies"),
    _later("known_recipients", "files that list the addresses with an account"),
    _later("include", "files with more rules"),
)
