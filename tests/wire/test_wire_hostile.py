"""What no mail server should send and somebody will: odd spellings, bytes, sizes, no macros."""

import pytest
from miltertest import constants as c
from mta import Mta

HAM = [("X-Spam-Flag", "NO")]
HELP = "<help@solarmora.com>"
ALICE = "<alice@solarmora.com>"
DELETED = [("help@solarmora.com",)]

# RCPT as it comes and what delrcpt has to name: smtpd's spelling less brackets and source route
# (smtpd.c, extract_addr). Without {rcpt_addr} the milter has to understand them by itself.
SPELLINGS = {
    "<Help@SolarMora.COM>": "Help@SolarMora.COM",
    "help@solarmora.com.": "help@solarmora.com.",
    '<"help"@solarmora.com>': '"help"@solarmora.com',
    '<"h\\elp"@solarmora.com>': '"h\\elp"@solarmora.com',
    "<@relay.example:help@solarmora.com>": "help@solarmora.com",
    "<@a.example,@b.example:help@solarmora.com>": "help@solarmora.com",
    '<@relay.example:"help"@solarmora.com>': '"help"@solarmora.com',
    "<@a@b:help@solarmora.com>": "help@solarmora.com",
    "<@a b:help@solarmora.com>": "help@solarmora.com",
    "@relay.example:help@solarmora.com": "help@solarmora.com",
    "<help@solarmora.com(comment)>": "help@solarmora.com(comment)",
    "<hilfe@xn--gre-6ka8l.example>": "hilfe@xn--gre-6ka8l.example",
    "<Hilfe@GRÜßE.example>": "Hilfe@GRÜßE.example",
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_spelling_without_the_macro(milter, spelling):
    with Mta(milter.address, macros=False) as mta:
        mta.connect()
        result = mta.message([ALICE, spelling], HAM)
    # Without brackets it may come from sendmail(1), which deletes by the bare name:
    # doc/postfix-milter.md 1.7.
    bare = [] if spelling.startswith("<") else [("help",)]
    assert sorted(result.of("delete")) == sorted([*bare, (SPELLINGS[spelling],)])
    assert [rcpt for rcpt, _ in result.of("add")] == [
        "<support@crm.example>",
        "<team@solarmora.com>",
    ]
    assert milter.lines("NOQUEUE: rerouted: to=<")


# Only the macro tells what these are.
@pytest.mark.parametrize(
    "spelling", ["help%solarmora.com@localhost", "solarmora.com!help", "help", "x(help)"]
)
def test_a_spelling_with_the_macro(mta, spelling):
    mta.mail()
    mta.rcpt(f"<{spelling}>", normal="help@solarmora.com")
    assert mta.finish(HAM).of("delete") == [(spelling,)]
    mta.abort()
    mta.mail()
    mta.rcpt(HELP, normal="alice@solarmora.com")
    assert mta.finish(HAM).answer == "accept"


def test_without_a_queue_id(milter, mta):
    mta.mail()
    mta.rcpt(HELP)
    mta.rcpt(ALICE)
    assert mta.finish(HAM, queue_id=None).of("delete") == DELETED
    assert milter.lines("NOQUEUE: rerouted: ")


ODD = b"\xff\xfe\xe9"


def _say(sender=b"<joe@a.example>", rcpt=b"<alice@a.example>", normal="", host=b"[192.0.2.1]",
         fields=(), queue_id=""):  # fmt: skip
    """A message to help@ with one thing that is odd about it."""

    def say(mta):
        mta.connect(host)
        mta.mail(sender)
        mta.rcpt(HELP, normal=normal)
        mta.rcpt(rcpt)
        return mta.finish([*fields, *HAM], queue_id=queue_id)

    return say


BYTES = {
    "sender": _say(sender=b"<" + ODD + b"@a.example>"),
    "sender's domain": _say(sender=b"<a@" + ODD + b">"),
    "another recipient": _say(rcpt=b"<" + ODD + b"@a.example>"),
    "another recipient's domain": _say(rcpt=b"<alice@" + ODD + b".example>"),
    "macro of the recipient": _say(normal=ODD),
    "queue id": _say(queue_id=ODD),
    "host name": _say(host=ODD),
    "header field": _say(fields=[(b"Subject", ODD)]),
    "From": _say(fields=[(b"From", ODD + b" <support@crm.example.evil>")]),
    "field that is read": _say(fields=[(b"X-Spam-Flag", ODD)]),
}


@pytest.mark.parametrize("where", BYTES)
def test_bytes_that_are_no_text(milter, where):
    for _ in range(2):
        with Mta(milter.address) as mta:
            result = BYTES[where](mta)
        assert result.of("delete") == DELETED
        assert result.of("add")[0][0] == "<support@crm.example>"


def test_bytes_in_a_spelling_that_matches_cannot_be_deleted(milter, mta):
    """libmilter takes UTF-8 only: left, and said so, rather than delivered twice or lost."""
    mta.mail()
    mta.rcpt(b"<help@solarmora.com (" + ODD + b")>", normal="help@solarmora.com")
    result = mta.finish(HAM)
    assert (result.answer, result.edits) == ("continue", ())
    assert milter.lines("left: to=<help@solarmora.com> rule=support reason=undecodable")


def test_bytes_in_unmatched_mail(mta):
    mta.mail(b"<" + ODD + b">")
    mta.rcpt(b"<" + ODD + b">", normal=ODD)
    assert mta.finish().answer == "accept"


@pytest.mark.parametrize("sender", ["<>", "", "<help@solarmora.com>"])
def test_senders(mta, sender):
    assert mta.message([HELP, ALICE], HAM, sender).of("delete") == DELETED


# No single packet above 64 kB: that is the limit of libmilter, and Postfix cuts header fields.
HEADERS = {
    "a thousand fields": [(f"X-{number}", "y" * 90) for number in range(1000)],
    "a thousand fields that are read": [("From", f"a{number}@x.example") for number in range(1000)],
    "100 kB in two fields": [("X-Long", "y " * 25_000)] * 2,
    "60 kB of From": [("From", "support@crm.example.evil, " * 2400)],
    "a thousand lines in one": [("To", ",\n\t".join(["alice@solarmora.com"] * 1000))],
}


@pytest.mark.parametrize("header", HEADERS)
def test_large_headers(mta, header):
    assert mta.message([HELP, ALICE], [*HEADERS[header], *HAM]).of("delete") == DELETED
    result = mta.message([HELP, ALICE], [*HEADERS[header], ("X-Spam-Flag", "YES")])
    assert (result.answer, result.edits) == ("continue", ())
    result = mta.message([ALICE], HEADERS[header])
    assert (result.answer, result.step) == ("accept", c.SMFIC_DATA)


def test_a_thousand_recipients_without_a_match(mta):
    result = mta.message([f"<a{number}@a.example>" for number in range(1000)], HAM)
    assert (result.answer, result.step) == ("accept", c.SMFIC_DATA)


def test_one_match_among_a_thousand(mta):
    recipients = [f"<a{number}@a.example>" for number in range(1000)]
    assert mta.message([*recipients[:500], HELP, *recipients[500:]], HAM).of("delete") == DELETED


def test_a_thousand_matches(milter, mta):
    result = mta.message([f"<box-{number}@solarmora.com>" for number in range(1000)], HAM)
    assert {rcpt for rcpt, _ in result.of("add")} == {f"<{n}@crm.example>" for n in range(1000)}
    assert len(result.of("add")) == len(result.of("delete")) == 1000
    assert len(milter.lines("rerouted: ")) == 1000


def test_a_thousand_spellings_of_one_address(mta):
    names = ["".join(x.upper() if n >> i & 1 else x for i, x in enumerate("helpsolarmora"))
             for n in range(1000)]  # fmt: skip
    spellings = [f"{name[:4]}@{name[4:]}.com" for name in names]
    result = mta.message([f"<{spelling}>" for spelling in spellings], HAM)
    assert len(result.of("add")) == 2
    assert sorted(result.of("delete")) == sorted((spelling,) for spelling in spellings)
