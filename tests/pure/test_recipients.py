"""What a session keeps of a message: bounded, whatever the client sends."""

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
        (b"<help@solarmora.com>", (b"ORCPT=rfc822;" + b"x" * 900,), False),
    ],
)
def test_long_recipients_are_not_kept(argument, parameters, kept):
    recipients = Recipients(RuleTable(), measures_size=False)
    for _ in range(3):
        recipients.find(Message(b"<joe@client.example>", ()), argument, parameters, None)
    assert bool(recipients._known._kept) is kept


@pytest.mark.parametrize("value", [b"", b"x" * 1000])
def test_fields_that_are_kept_are_few_and_short(value):
    """Also those that are empty: a message may have a million of them."""
    message = Message(b"<joe@client.example>", ())
    kept = [message.keep("from", value) for _ in range(1000)]
    assert kept[-1] > 1000 * (len(value) + 50)
