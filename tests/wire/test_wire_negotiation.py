"""What the milter asks for, and how it serves a peer that offers less than Postfix does."""

import pytest
from miltertest import constants as c
from mta import ALL_ACTIONS, ALL_STEPS, NO_REPLIES, Mta
from serving import CONFIG

HAM = [("X-Spam-Flag", "NO")]
HELP = "<help@solarmora.com>"
REROUTED = (
    ("add", "<support@crm.example>", "NOTIFY=NEVER ORCPT=rfc822;help@solarmora.com"),
    ("add", "<team@solarmora.com>", "NOTIFY=NEVER"),
    ("delete", "help@solarmora.com"),
)
INTERNAL_ERROR = "451 4.3.0"


def test_asks_for_just_what_it_uses(milter):
    with Mta(milter.address) as mta:
        needed = c.SMFIF_ADDRCPT_PAR | c.SMFIF_DELRCPT | c.SMFIF_ADDHDRS | c.SMFIF_QUARANTINE
        assert mta.actions & needed == needed
        assert mta.actions & (c.SMFIF_CHGBODY | c.SMFIF_CHGHDRS) == 0
        unwanted = c.SMFIP_NOHELO | c.SMFIP_NOBODY | c.SMFIP_NOUNKNOWN
        silent = c.SMFIP_NR_CONN | c.SMFIP_NR_MAIL | c.SMFIP_NR_RCPT | c.SMFIP_NR_HDR
        assert mta.steps & (unwanted | silent) == unwanted | silent
        # Needed: MAIL, RCPT, DATA with its answer, header fields with their names and values.
        needed = c.SMFIP_NOMAIL | c.SMFIP_NORCPT | c.SMFIP_NODATA | c.SMFIP_NR_DATA | c.SMFIP_NOHDRS
        assert mta.steps & (needed | c.SMFIP_RCPT_REJ) == 0
        assert mta.macro_lists[c.SMFIM_ENVRCPT] == ["{rcpt_addr}"]
        assert "i" in mta.macro_lists[c.SMFIM_DATA] + mta.macro_lists[c.SMFIM_EOM]
        names = {name for names in mta.macro_lists.values() for name in names}
        assert names == {"i", "{rcpt_addr}"}


def test_asks_for_the_user_only_where_silence_of_the_spam_filter_matters(shared):
    for policy, asked in (("route", False), ("leave", True), ("tempfail", True)):
        config = SIZED.replace("spam: amavis", f"spam: {{filter: amavis, no_verdict: {policy}}}")
        with Mta(shared(config).address) as mta:
            assert ("{auth_authen}" in mta.macro_lists[c.SMFIM_ENVFROM]) is asked


SIZED = """
unrouted_to: it@solarmora.com
spam: amavis
rules:
  - {name: a, match: help@solarmora.com, replace_with: a@crm.example, max_size: 1M}
"""


@pytest.mark.parametrize("steps", [ALL_STEPS, ALL_STEPS & ~NO_REPLIES, c.SMFIP_NOMAIL])
@pytest.mark.parametrize("config", [CONFIG, SIZED], ids=["no body", "with body"])
def test_a_message_without_header_fields_is_answered(shared, config, steps):
    """libmilter gives no answer at all to an end of message that it does not expect after DATA."""
    with Mta(shared(config).address, steps=steps) as mta:
        mta.connect()
        assert mta.message([HELP]).of("delete") == [("help@solarmora.com",)]
        assert mta.message([HELP], HAM).of("delete") == [("help@solarmora.com",)]


@pytest.mark.parametrize("size", ["9" * 5000, "-1", "1e9", ""])
def test_a_size_that_rfc_1870_does_not_know_is_none(shared, size):
    """int() itself refuses more than 4,300 digits."""
    with Mta(shared(SIZED).address) as mta:
        mta.connect()
        mta.mail("<joe@client.example>", f"SIZE={size}")
        mta.rcpt(HELP)
        assert mta.finish(HAM).of("delete") == [("help@solarmora.com",)]


def test_nothing_is_fetched_of_a_message_without_a_match(mta):
    result = mta.message(["<alice@solarmora.com>", "<bob@other.example>"], HAM)
    assert (result.answer, result.step) == ("accept", c.SMFIC_DATA)


# What a peer offers. libmilter takes an offer of nothing at all for one of protocol version 1.
OFFERS = {
    "no silence": {"steps": ALL_STEPS & ~NO_REPLIES},
    "no silence at RCPT": {"steps": ALL_STEPS & ~c.SMFIP_NR_RCPT},
    "no silence at HEADER and MAIL": {"steps": ALL_STEPS & ~c.SMFIP_NR_HDR & ~c.SMFIP_NR_MAIL},
    "no step can be left out": {"steps": NO_REPLIES},
    "no step that we ask for": {"steps": c.SMFIP_NOMAIL},
    "no macro lists": {"actions": ALL_ACTIONS & ~c.SMFIF_SETSYMLIST},
    "neither": {"steps": c.SMFIP_NOMAIL, "actions": ALL_ACTIONS & ~c.SMFIF_SETSYMLIST},
    "no action that we do not use": {"actions": ALL_ACTIONS & ~c.SMFIF_CHGBODY & ~c.SMFIF_CHGHDRS},
}


@pytest.mark.parametrize("offer", OFFERS)
def test_serves_a_peer_that_offers_less(milter, offer):
    with Mta(milter.address, **OFFERS[offer]) as mta:
        # That each step which wants an answer gets one is seen by the client (mta.py).
        silent = bool(mta.steps & c.SMFIP_NR_CONN)
        assert mta.connect() == (None if silent else "continue")
        for _ in range(2):
            assert mta.message([HELP, "<alice@a.example>"], HAM).edits == REROUTED
            assert mta.message(["<alice@a.example>"], HAM).answer == "accept"
    assert "error" not in milter.log()


LACKING = {
    "ADDRCPT_PAR": {"actions": ALL_ACTIONS & ~c.SMFIF_ADDRCPT_PAR},
    "DELRCPT": {"actions": ALL_ACTIONS & ~c.SMFIF_DELRCPT},
    "ADDRCPT and QUARANTINE": {"actions": ALL_ACTIONS & ~c.SMFIF_ADDRCPT & ~c.SMFIF_QUARANTINE},
    "everything": {"actions": c.SMFIF_CHGHDRS},
    "everything, and silence": {"actions": c.SMFIF_CHGHDRS, "steps": c.SMFIP_NOMAIL},
}


@pytest.mark.parametrize("lacking", LACKING)
def test_a_peer_without_the_actions_gets_451_for_matched_mail_only(milter, lacking):
    with Mta(milter.address, **LACKING[lacking]) as mta:
        mta.connect()
        for _ in range(2):
            assert mta.message(["<alice@a.example>"], HAM).answer == "accept"
            result = mta.message(["<alice@a.example>", HELP], HAM)
            assert result.answer.startswith(INTERNAL_ERROR)
            assert result.edits == ()
    milter.wait_log("^error: .*actions")
    assert len(milter.lines("error")) == 1


def test_the_protocol_of_sendmail_8_13_is_served_as_far_as_it_goes(milter):
    """milter_protocol = 2 in main.cf: there is no DATA step, and no ADDRCPT_PAR."""
    with Mta(milter.address, version=2, actions=c.SMFI_V2_ACTS, steps=c.SMFI_V2_PROT) as mta:
        mta.connect()
        mta.steps |= c.SMFIP_NODATA
        assert mta.message(["<alice@a.example>"], HAM).answer in ("accept", "continue")
        result = mta.message([HELP], HAM)
        assert (result.answer[:9], result.edits) == (INTERNAL_ERROR, ())


def test_several_versions_at_once(milter):
    with Mta(milter.address) as new, Mta(milter.address, actions=c.SMFIF_CHGHDRS) as old:
        for mta in (new, old):
            mta.connect()
            mta.mail()
            mta.rcpt(HELP)
            mta.rcpt("<alice@a.example>")
        assert old.finish(HAM).answer.startswith(INTERNAL_ERROR)
        assert new.finish(HAM).edits == REROUTED
