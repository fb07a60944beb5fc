"""Every key of the configuration: name, kind, default and what it is for.

The one description of the configuration. The validator reads by it, suggestions come from it,
and the annotated example is tested against it.
"""

from dataclasses import replace

from crm_milter.config import build, values
from crm_milter.config.includes import INCLUDE
from crm_milter.config.keys_of_service import METRICS, MILTER
from crm_milter.config.kinds import Key, ListOf, OneOf, StringMap, table
from crm_milter.config.rulekeys import AUTOMATIC, COPY, FLOOD
from crm_milter.config.scalars import Boolean, Choice, FileText, Number, Text
from crm_milter.config.shapes import (
    ADDRESS,
    DEAD_LETTERS,
    FIELD_NAME,
    HEADERS,
    MOMENT,
    PATTERN,
    PRESET,
    SENDER,
    TEMPLATE,
)
from crm_milter.routing import clients
from crm_milter.routing.decide import NoVerdict
from crm_milter.rules.conditions import Addressed, ApplyTo
from crm_milter.rules.rule import (
    Mode,
    OnOversize,
    OnSpam,
    OnUnauthenticated,
)

NOT_SENDER = 'replaced by "dead_letters", the mailbox for mail that the CRM rejects'

HEADER = table(
    'a header: "name", and "value" or "at_least"',
    build.header,
    Key("name", FIELD_NAME, None, "header field", required=True),
    Key(
        "value",
        Text("a string", values.field_value, "."),
        None,
        "spam if the value matches; * and ? are wildcards",
    ),
    Key("at_least", Number(), None, "spam if the score in the value is at least this"),
    any_of=(("value", "at_least"),),
    exclusive=(("value", "at_least"),),
)

SPAM = table(
    'a mapping with "filter" or "headers"',
    build.spam,
    Key("filter", ListOf(PRESET), (), "presets of the spam filters to trust"),
    Key("headers", ListOf(HEADER), (), "header fields of your own filter"),
    Key(
        "no_verdict",
        Choice(NoVerdict),
        "route",
        "what to do with mail that has no verdict, if the filter marks ham",
    ),
    Key(
        "unfiltered",
        ListOf(Text("a network", clients.network, "^[0-9a-fA-F:.]+(/[0-9]+)?$")),
        (),
        "clients whose mail the filter does not look at",
    ),
    any_of=(("filter", "headers"),),
)

RULE = table(
    'a mapping with the keys of a rule ("name", "match", ...)',
    build.rule,
    Key(
        "name",
        Text("a name", values.rule_name, "^[a-z0-9._-]+$", number=True),
        None,
        "label in logs and metrics",
        required=True,
    ),
    Key("match", ListOf(PATTERN, least=1), (), "recipients it applies to"),
    Key(
        "address_map",
        FileText("a file", values.address_map),
        None,
        "table of recipients and targets, instead of match and replace_with",
    ),
    Key("senders", ListOf(SENDER, least=1), (), "envelope senders it applies to"),
    Key("except_senders", ListOf(SENDER, least=1), (), "envelope senders it does not apply to"),
    Key(
        "apply_to",
        Choice(ApplyTo),
        "all",
        "all recipients, or only those with (known) or without (unknown) an account",
    ),
    Key(
        "addressed",
        Choice(Addressed),
        "any",
        "only if the address is in the To field (to), or in To or Cc (to_or_cc)",
    ),
    Key("headers", HEADERS, {}, "header fields it applies to, each with patterns"),
    Key("except_headers", HEADERS, {}, "header fields it does not apply to"),
    Key("from", MOMENT, None, "time from which it applies"),
    Key("until", MOMENT, None, "time at which it ends"),
    Key("replace_with", TEMPLATE, None, "address that replaces the recipient"),
    Key(
        "also_deliver_to",
        ListOf(OneOf(Text("an address", build.plain_copy, ADDRESS.shape), COPY)),
        (),
        "addresses that get a copy",
    ),
    Key(
        "case_group",
        Text("a name", values.rule_name, "^[a-z0-9._-]+$", number=True),
        None,
        "of a message's recipients whose rules share a group only the first rule's is rerouted",
    ),
    Key("propagate_extension", Boolean(), False, "keep the extension of the recipient"),
    Key("bypass_spam_filter", Boolean(), False, "reroute spam as well"),
    Key("on_spam", Choice(OnSpam), "leave", "what happens to spam"),
    Key(
        "automatic",
        OneOf(
            Text('"route", "leave" or a mapping', values.automatic, "^(route|leave)$"), AUTOMATIC
        ),
        "route",
        "what happens to automatic mail",
    ),
    Key(
        "on_unauthenticated",
        Choice(OnUnauthenticated),
        "route",
        "what happens to mail that DMARC says is forged",
    ),
    Key(
        "max_size",
        Text("a size", values.size, "^[0-9]+ ?([kKmMgG](i?[bB])?|[bB])?$", number=True),
        None,
        "largest message that is routed",
    ),
    Key("on_oversize", Choice(OnOversize), "leave", "what happens to larger ones"),
    Key(
        "suppress_bounces",
        Boolean(),
        True,
        "do not send the sender a bounce if the CRM rejects the mail",
    ),
    Key(
        "dead_letters",
        DEAD_LETTERS,
        None,
        "mailbox for mail that the target rejects; overrides the global one",
    ),
    Key(
        "flood",
        OneOf(Text('"auto" or a mapping', values.flood, "^auto$"), FLOOD),
        None,
        "how much mail of one sender is routed",
    ),
    Key(
        "add_headers",
        StringMap(
            "a mapping of header names to values",
            Text("a header name", values.new_field_name, FIELD_NAME.shape),
            Text("a string", values.new_field_value, "^[ -~]+$"),
        ),
        {},
        "header fields to add; {recipient}, {rule} and {spam} are filled in",
    ),
    Key(
        "unrouted_to",
        ADDRESS,
        None,
        "mailbox for mail this rule does not reroute; overrides the global one",
    ),
    Key("mode", Choice(Mode), "enforce", "test: log what would be done, change nothing"),
    any_of=(("match", "address_map"),),
    exclusive=(("match", "address_map"), ("replace_with", "address_map")),
    former={
        "auto_submitted": 'replaced by "automatic"; write "automatic: {reply: leave}"',
        "envelope_sender": NOT_SENDER,
    },
)

ROOT = table(
    'keys such as "rules:"',
    build.same,
    Key("milter", MILTER, {}, "how Postfix reaches the milter"),
    Key("metrics", METRICS, {}, "metrics for Prometheus"),
    Key("reload", Choice(build.Reload), "signal", "signal, or watch: read files that have changed"),
    Key(
        "recipient_delimiter",
        Text("characters", values.delimiters, "^[!#$%&'*+./=?^_`{|}~-]*$"),
        "",
        "characters that start an address extension, as in main.cf",
    ),
    Key(
        "known_recipients",
        ListOf(FileText("a file", values.accounts)),
        (),
        "tables whose first column lists the addresses with an account",
    ),
    Key("unrouted_to", ADDRESS, None, "mailbox for matched mail that is not rerouted"),
    Key("dead_letters", DEAD_LETTERS, None, "mailbox for mail that the CRM rejects"),
    Key(
        "spam",
        OneOf(Text("a preset", build.preset, PRESET.shape), SPAM),
        None,
        "which spam filters to trust",
    ),
    Key(
        "authentication",
        ListOf(Text("an authserv-id", values.authserv_id, r"^[^\s;()\"=/,<>]+$")),
        (),
        "authserv-ids whose Authentication-Results count",
    ),
    Key(
        "marker_key",
        Text("a file"),
        "marker.key",
        "file with the secret key of the marker, the same on all hosts",
    ),
    Key("include", INCLUDE, (), "files with more rules, such as rules.d/*.yaml"),
    Key("rules", ListOf(RULE, one=False), (), "the first rule that matches a recipient applies"),
    former={"envelope_sender": NOT_SENDER},
)

# What an included file may hold.
INCLUDED = table(
    '"rules:"',
    build.same,
    *(
        key
        if key.name == "rules"
        else replace(key, refusal='only "rules" is allowed in an included file')
        for key in ROOT.keys.values()
    ),
)
