"""What is remembered changes nothing: a milter that remembers does what one without memory does."""

import random
import sys

import pytest
from mta import Mta

RULES = r"""
unrouted_to: it@solarmora.com
recipient_delimiter: "+"
spam: amavis
rules:
  - {name: tried, match: help@solarmora.com, replace_with: new@crm.example, mode: test}
  - {name: help, match: help@solarmora.com, replace_with: case@crm.example,
     also_deliver_to: [team@solarmora.com], on_spam: discard}
  - {name: small, match: small@solarmora.com, replace_with: s@crm.example, max_size: 2k}
  - {name: names, match: '/(sales|press)-([a-z]+)@solarmora\.com/', replace_with: '\2@crm.example'}
  - {name: orders, match: "orders-*@solarmora.com", replace_with: orders@crm.example,
     propagate_extension: true}
"""
CONDITIONS = {
    "steady": "",
    "by sender": "  - {name: vip, match: '@vip.example', senders: ['@client.example'],"
    " replace_with: vip@crm.example}\n",
    "by header": "  - {name: vip, match: '@vip.example', headers: {Subject: '*order*'},"
    " replace_with: vip@crm.example}\n",
}
FORGETFUL = (
    "import sys; from crm_milter.routing import twice; from crm_milter.cli import main as cli;"
    "twice.Twice.came_before = lambda self, key: False; sys.exit(cli.main())"
)

RECIPIENTS = (
    *("help@solarmora.com", "HELP@SolarMora.com", "help+x@solarmora.com", "small@solarmora.com"),
    *("sales-emea@solarmora.com", "press-x@solarmora.com", "orders-1+Up@solarmora.com"),
    *("alice@solarmora.com", "a@vip.example", "straße@vip.example", '"he lp"@solarmora.com'),
)
PARAMETERS = ((), ("NOTIFY=SUCCESS,FAILURE",), ("NOTIFY=NEVER", "ORCPT=rfc822;x+40y@z.example"))
SENDERS = ("<joe@client.example>", "<eve@other.example>", "<>", "<case@crm.example>")
FIELDS = (
    [("X-Spam-Flag", "NO"), ("Subject", "my order")],
    [("X-Spam-Flag", "YES"), ("Subject", "my order")],
    [("Subject", "hello")],
)
MESSAGES = 300


def messages(seed: int):
    """Messages of few recipients, so that each comes again and again, in every mixture."""
    chance = random.Random(seed)
    for number in range(MESSAGES):
        recipients = [
            (chance.choice(RECIPIENTS), chance.choice(PARAMETERS), chance.random() < 0.9)
            for _ in range(chance.choice((1, 1, 1, 2, 3, 4)))
        ]
        fields = [*chance.choice(FIELDS), ("Message-ID", f"<{number}@client.example>")]
        body = (b"x" * chance.choice((10, 10, 3000)),)
        yield chance.choice(SENDERS), recipients, fields, body


def outcome(mta: Mta, sender, recipients, fields, body):
    mta.mail(sender)
    for address, parameters, is_resolved in recipients:
        mta.rcpt(f"<{address}>", *parameters, normal="" if is_resolved else None)
    result = mta.finish(fields, body)
    mta.abort()
    return result.answer, result.edits


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_memory_changes_nothing(shared, condition):
    text = RULES + CONDITIONS[condition]
    both = [shared(text), shared(text, command=(sys.executable, "-c", FORGETFUL))]
    routed = 0
    with Mta(both[0].address) as one, Mta(both[1].address) as other:
        one.connect()
        other.connect()
        for message in messages(seed=7):
            found, expected = outcome(one, *message), outcome(other, *message)
            assert found == expected, message
            routed += bool(found[1])
    assert routed > MESSAGES / 3
