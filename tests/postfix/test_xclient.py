"""Clients that a proxy names with XCLIENT (Postfix's XCLIENT_README).

doc/postfix-milter.md: 5.13.
"""

import pytest
from letter import HAM, JOE, letter

from lab.smtp import Session

CONFIG = """
unrouted_to: it@solarmora.com
rules:
  - {name: help, match: help@solarmora.com, replace_with: help@crm.example}
"""
OURS = (250, ["help@crm.example"])


@pytest.fixture(scope="module")
def lab(make_module_lab):
    return make_module_lab(
        CONFIG,
        virtual_alias_maps={"help@solarmora.com": "it@solarmora.com"},
        main={
            "smtpd_authorized_xclient_hosts": "127.0.0.1",
            "smtpd_relay_restrictions": "",
            "smtpd_recipient_restrictions": (
                "check_recipient_access inline:{{solarmora.com=OK}}, reject"
            ),
        },
    )


def _try(lab, named, sender=JOE):
    """Send a message whose client a proxy has named; the code of the reply and who got it."""
    lab.fresh()
    with Session(lab.postfix.port) as session:
        assert session.cmd(f"XCLIENT {named}").code == 220
        session.cmd("EHLO client.example")
        sent = session.transaction(sender, ["<help@solarmora.com>"], letter(HAM))
    lab.postfix.wait_empty_queue()
    return sent.reply.code, lab.sink.recipients


@pytest.mark.parametrize(
    "named",
    [
        "ADDR=192.0.2.1",
        "NAME=[UNAVAILABLE] ADDR=192.0.2.1 PORT=[UNAVAILABLE]",
        "NAME=[TEMPUNAVAIL] ADDR=192.0.2.1 PORT=0",
        "NAME=x.example ADDR=198.51.100.7 PORT=99",
        "ADDR=127.0.0.1 PORT=[UNAVAILABLE] LOGIN=anna",
    ],
)
def test_a_client_with_an_address_is_a_client_like_any_other(lab, named):
    assert _try(lab, named) == OURS


def test_mail_that_looks_like_that_of_sendmail_is_rerouted_as_well(lab):
    assert _try(lab, "ADDR=192.0.2.1 PORT=[UNAVAILABLE]", JOE.strip("<>")) == OURS


@pytest.mark.parametrize(
    "named", ["ADDR=[UNAVAILABLE]", "NAME=x.example ADDR=[UNAVAILABLE] PORT=99"]
)
def test_libmilter_ends_the_session_of_a_client_without_an_address(lab, named):
    assert _try(lab, named) == (451, [])
    assert "Connection reset by peer" in lab.postfix.log()
