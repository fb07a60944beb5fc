"""Recipients that are remembered: few, and none that is long."""

import pytest

from crm_milter.libmilter.message import Message
from crm_milter.libmilter.recipients import Recipients
from crm_milter.rules.table import RuleTable


@pytest.mark.parametrize(
    ("argument", "parameters", "kept"),
    [
        (b"<help@solarmora.com>", (), True),
        (b"<" + b"x" * 64 + b"@" + b"d" * 255 + b">", (b"NOTIFY=NEVER",), True),
        (b"<" + b"x" * 1900 + b"@solarmora.com>", (), False),
        (b"<help@solarmora.com>", (b"ORCPT=rfc822;" + b"x" * 500,), False),
    ],
)
def test_long_recipients_are_not_kept(argument, parameters, kept):
    recipients = Recipients(RuleTable(), measures_size=False)
    for _ in range(3):
        recipients.find(Message(b"<joe@client.example>", ()), argument, parameters, None)
    assert bool(recipients._known._kept) is kept
