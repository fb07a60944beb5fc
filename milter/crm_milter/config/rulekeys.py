"""The keys of a rule that have keys of their own."""

from crm_milter.config import build, values
from crm_milter.config.kinds import Key, ListOf, table
from crm_milter.config.scalars import Boolean, Choice, Text
from crm_milter.config.shapes import ADDRESS, SENDER
from crm_milter.rules.flood import OnFlood, Per
from crm_milter.rules.rule import AutomaticClass, OnAutomatic

COPY = table(
    'a mapping with "address"',
    build.copy,
    Key("address", ADDRESS, None, "address that gets the copy", required=True),
    Key(
        "deliver_spam",
        Boolean(),
        False,
        "send this copy even if the mail is spam (with bypass_spam_filter)",
    ),
    Key("suppress_bounces", Boolean(), True, "do not send the sender a bounce if this copy fails"),
)

AUTOMATIC = table(
    'a mapping with "reply", "bounce", "bulk" or "list"',
    build.automatic,
    *(
        Key(each.value, Choice(OnAutomatic), "route", f"what happens to mail of class {each.value}")
        for each in AutomaticClass
    ),
)

FLOOD = table(
    'a mapping with "limit"',
    build.flood,
    Key(
        "limit",
        Text(
            'a limit such as "10 in 60s", or "auto"',
            values.limit,
            "^(auto|[0-9]+ in [0-9]+ ?[smhd]?)$",
        ),
        "auto",
        "how many messages at once; after that, evenly spaced",
    ),
    Key("per", Choice(Per), "sender", "whose messages are counted together"),
    Key("then", Choice(OnFlood), "leave", "what happens to a message over the limit"),
    Key("except", ListOf(SENDER, least=1), (), "envelope senders that are not counted"),
)
