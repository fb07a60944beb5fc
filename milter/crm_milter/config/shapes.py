"""Texts that several keys take, each with its shape.

Shapes are for editors: every valid text has its shape, but not everything of a shape is valid.
"""

from crm_milter.config import values
from crm_milter.config.kinds import ListOf, StringMap
from crm_milter.config.scalars import FileText, Text
from crm_milter.mailbox import mailbox
from crm_milter.rules import fieldpattern
from crm_milter.rules.moment import moment
from crm_milter.rules.template import template
from crm_milter.spam.presets import PRESETS

ADDRESS = Text("an address", mailbox, r"^[^<].*@[^@<>,; ]+$")
TEMPLATE = Text("an address", template, r"^[^<]*@[^@<>,; ]*$")
PATTERN = FileText("a pattern", values.pattern, r"^(\*|/.+/|file:.+|[^<]*@[^@<>,; ]+)$")
SENDER = FileText("a pattern", values.sender_pattern, r"^(\*|<>|/.+/|file:.+|[^<]*@[^@<>,; ]+)$")
PRESET = Text("a preset", values.spam_filter, f"^({'|'.join(PRESETS)}|mailscanner:[!-9;-~]+)$")
DEAD_LETTERS = Text("an address", values.dead_letters, r"^[^<]+@[^@<>,; ]+$")
FIELD_NAME = Text("a header name", values.field_name, "^[!-9;-~]+$")
HEADERS = StringMap(
    "a mapping of header names to patterns",
    FIELD_NAME,
    ListOf(Text("a pattern", fieldpattern.parse, "."), least=1),
)
MOMENT = Text("a date and time with a time zone", moment, "^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ].+$")
