"""A message without a header: libmilter forgets the end of one unless it is told of EOH.

Its table of states has no way from DATA to the end of the message when neither a header field
nor the end of the header comes, so that the milter must not decline both (engine.c, trans_ok).
"""

import pytest

CONFIG = """
unrouted_to: it@solarmora.com
spam: amavis
rules:
  - name: support
    match: help@solarmora.com
    replace_with: support@crm.example
"""


@pytest.mark.parametrize("message", [b"\r\nonly a body\r\n", b"", b"\r\n"])
def test_a_message_without_a_header_is_routed(make_lab, message):
    # A milter that never answers would cost 5 seconds here and end in 451.
    lab = make_lab(CONFIG, milter_settings={"content_timeout": "5s"})
    outcome = lab.send("<joe@customer.example>", ["<help@solarmora.com>"], message)
    assert outcome.sent.reply.code == 250
    assert outcome.recipients == ["support@crm.example"]
    assert outcome.received[0].delivery.message.endswith(message)
