"""The arguments of MAIL and RCPT: what a client may send, and what of it is passed on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_milter.libmilter import esmtp as arguments


@pytest.mark.parametrize(
    ("orcpt", "passed_on"),
    [
        ("rfc822;help+2Bx@x.example", "rfc822;help+2Bx@x.example"),
        ("utf-8;jörg@x.example", "utf-8;jörg@x.example"),
        ("utf-8;j\\x{F6}rg@x.example", "utf-8;jörg@x.example"),
        ("UTF-8;a\\x{2B}b\\x{20}c@x.example", "UTF-8;a+2Bb+20c@x.example"),
        ("utf-8;\\x{FFFFFF}@x.example", ""),
        ("utf-8;\\x{D800}@x.example", ""),
        ('"rfc822;x NOTIFY=SUCCESS', ""),
        ("rfc822;a\tb", ""),
        ("rfc822;h\udce9lp@x.example", ""),
        ("", ""),
    ],
)
def test_orcpt(orcpt, passed_on):
    assert arguments.orcpt_to_pass_on(orcpt) == passed_on


@given(st.text())
def test_what_is_passed_on_is_one_parameter(orcpt):
    passed_on = arguments.orcpt_to_pass_on(orcpt)
    assert " " not in passed_on
    passed_on.encode()


def test_parameters():
    assert arguments.parameters((b"size=10", b"SMTPUTF8", b"ORCPT=rfc822;a=b")) == {
        "SIZE": "10",
        "SMTPUTF8": "",
        "ORCPT": "rfc822;a=b",
    }


def test_upper_case_is_that_of_ascii():
    """Python has "S" for U+017F and "I" for U+0131."""
    assert arguments.upper("success,Failure") == "SUCCESS,FAILURE"
    for value in ("\u017fucce\u017f\u017f", "fa\u0131lure", "delay\u00df", "\udcff"):
        assert arguments.upper(value) == value
    assert arguments.parameters(("\u017fize=1".encode(),)) == {"\u017fIZE": "1"}
