"""Addresses: every spelling that a client may send comes to one normal form."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_milter import address, mailbox


@pytest.mark.parametrize(
    ("argument", "stripped"),
    [
        ("<Help@SolarMora.COM>", "Help@SolarMora.COM"),
        ("help@x.example", "help@x.example"),
        ("< help@x.example >", "help@x.example"),
        ("<@relay:help@x.example>", "help@x.example"),
        ("<@a.example,@b.example:help@x.example>", "help@x.example"),
        ('<"help"@x.example>', '"help"@x.example'),
        ("<>", ""),
        ("", ""),
        ("<@x.example>", "@x.example"),
        ("<help@x.example", "<help@x.example"),
        ("help@x.example>", "help@x.example>"),
        ("help:x@x.example", "help:x@x.example"),
        ("<@a.example:help:x@x.example>", "help:x@x.example"),
    ],
)
def test_strip_path_keeps_the_spelling_that_delrcpt_compares(argument, stripped):
    assert address.strip_path(argument) == stripped


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("Help@SolarMora.COM", "help@solarmora.com"),
        ("help@solarmora.com.", "help@solarmora.com"),
        ('"help"@solarmora.com', "help@solarmora.com"),
        ('"he\\"lp"@x.example', 'he"lp@x.example'),
        ('"a@b"@x.example', "a@b@x.example"),
        ("help@x.example (comment)", "help@x.example"),
        ("postmaster", "postmaster"),
        ("help@münchen.example", "help@xn--mnchen-3ya.example"),
        ("help@MÜNCHEN.example", "help@xn--mnchen-3ya.example"),
        ("help@münchen.example.", "help@xn--mnchen-3ya.example"),
        ("help@münchen.example\u3002", "help@xn--mnchen-3ya.example"),  # IDNA's full stop
        (f"help@{'É' * 256}", f"help@{'é' * 256}"),  # too long
        ("help@É..example", "help@é..example"),  # IDNA refuses it
        ('"Help"', "help"),
        ('"a"b@x.example', '"a"b@x.example'),
        ("\u0130@x.example", "i\u0307@x.example"),
        ("help@XN--MNCHEN-3YA.example", "help@xn--mnchen-3ya.example"),
        ("help@straße.example", "help@xn--strae-oqa.example"),  # IDNA 2003 would say strasse
        ("GRÜSSE@x.example", "grüsse@x.example"),
        ("help@[192.0.2.1]", "help@[192.0.2.1]"),
        ("a=b+c@x_y.example", "a=b+c@x_y.example"),
        ("", ""),
    ],
)
def test_normal_form(text, normal):
    assert address.normalise(text) == normal


@given(st.text())
def test_anything_has_a_normal_form_that_is_its_own(text):
    normal = address.normalise(address.strip_path(text))
    assert isinstance(normal, str)
    address.is_protected(normal)
    mailbox.is_deliverable(normal)
    address.without_extension(normal, "+-")


@given(st.binary())
def test_octets_that_are_no_text_have_a_normal_form(octets):
    assert isinstance(address.normalise(octets.decode("utf-8", "surrogateescape")), str)


@pytest.mark.parametrize(
    ("delimiters", "text", "base"),
    [
        ("+", "help+x@a.example", "help@a.example"),
        ("+", "help@a.example", "help@a.example"),
        ("", "help+x@a.example", "help+x@a.example"),
        ("+-", "help-x+y@a.example", "help@a.example"),
        ("+-", "help+x-y@a.example", "help@a.example"),
        ("+", "+x@a.example", "+x@a.example"),
        ("-", "owner-list@a.example", "owner-list@a.example"),
        ("-", "list-request@a.example", "list-request@a.example"),
        ("-", "mailer-daemon@a.example", "mailer-daemon@a.example"),
        ("+", "help+x", "help"),
        ("+", "a+x@a.example", "a@a.example"),
        ("+", "+@a.example", "+@a.example"),
        ("+-", "+a-b@a.example", "+a-b@a.example"),
        ("+", "postmaster", "postmaster"),
        ("+-", "owner-list+x@a.example", "owner-list+x@a.example"),
        ("+", "owner-list+x@a.example", "owner-list@a.example"),
        ("-", "list-owner@a.example", "list@a.example"),
        ("-", "request-list@a.example", "request@a.example"),
    ],
)
def test_extension(delimiters, text, base):
    assert address.without_extension(text, delimiters) == base


@pytest.mark.parametrize(
    ("text", "spared"),
    [
        ("postmaster@a.example", True),
        ("postmaster", True),
        ("abuse@a.example", True),
        ("mailer-daemon@a.example", True),
        ("double-bounce@a.example", True),
        ("srs0=hash=tt=b.example=user@a.example", True),
        ("srs1=hash=c.example==user@a.example", True),
        ("srs0+hash=tt=b.example=user@a.example", True),
        ("srs0-hash=tt=b.example=user@a.example", True),
        ("srs1+hash=c.example==user@a.example", True),
        ("srs1-hash=c.example==user@a.example", True),
        ("prvs=1234567890=user@a.example", True),
        ("help@a.example", False),
        ("srs@a.example", False),
    ],
)
def test_protected(text, spared):
    assert address.is_protected(text) is spared


@pytest.mark.parametrize(
    ("text", "encoded"),
    [
        ("help@x.example", "help@x.example"),
        ("a+b=c@x.example", "a+2Bb+3Dc@x.example"),
        ("a b@x.example", "a+20b@x.example"),
        ("grüße@x.example", "gr+C3+BC+C3+9Fe@x.example"),
        ("a\x7fb", "a+7Fb"),
        ("! ", "!+20"),
        ("~ ", "~+20"),
        ("<> ", "<>+20"),
        ("\udcff", "+FF"),
    ],
)
def test_xtext(text, encoded):
    assert address.xtext(text) == encoded


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("Support@CRM.Example", "Support@crm.example"),
        ("support@crm.example.", "support@crm.example"),
        ('"a b"@crm.example', '"a b"@crm.example'),
        ('"help"@crm.example', "help@crm.example"),
        ("help@münchen.example", "help@xn--mnchen-3ya.example"),
    ],
)
def test_mailbox(text, written):
    assert mailbox.mailbox(text) == written


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "empty address"),
        ("<>", "empty address"),
        ("<a@b.example>", "angle brackets"),
        ("a@b.example, c@d.example", "several"),
        ("a@b@c.example", "several"),
        ("help", "no domain"),
        ("help@", "no domain"),
        ("@x.example", "no local part"),
        ("help@-x.example", "not a valid domain"),
        ("help@x..example", "not a valid domain"),
        ("he lp@x.example", "quoted"),
        (".help@x.example", "quoted"),
        ("help\n@x.example", "control"),
        ('"a\r\nb"@x.example', "control"),
    ],
)
def test_mailbox_says_what_is_wrong(text, wrong):
    with pytest.raises(address.AddressError, match=wrong):
        mailbox.mailbox(text)


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("help@x.example", "help@x.example"),
        ("a b@x.example", '"a b"@x.example'),
        ('a"b@x.example', '"a\\"b"@x.example'),
        ("a..b@x.example", '"a..b"@x.example'),
        ("a@b@x.example", '"a@b"@x.example'),
    ],
)
def test_written_form_has_the_same_normal_form(key, text):
    assert address.written(key) == text
    assert address.normalise(text) == key


@pytest.mark.parametrize("end", ["", ")", "(", "(x", " (x) y"])
def test_a_run_of_blanks_is_no_burden(end):
    """A client may send one with every message; time that grew with its square ends this test."""
    blanks = " " * 500_000
    assert blanks in address.normalise(f'"{blanks}x"@x.example{end}')


@pytest.mark.parametrize("run", ["(", "()", "(x) ", '"', '""', '"(', "\\", "\\(", ")", "(\\"])
def test_no_run_of_comments_and_quotes_is_a_burden(run):
    for text in (run * 300_000, f"a{run * 300_000}@x.example", f"a@x.example {run * 300_000}"):
        assert isinstance(address.sender(text), str)


# As smtpd reads them; an address that is not closed in its comment ends there.
@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("a@b.example (x)", "a@b.example"),
        ("a@b.example(x) ", "a@b.example"),
        ("a@b.example (x) (y)", "a@b.example"),
        ("a@b.example (x(y)z)", "a@b.example"),
        ("a@b.example (x", "a@b.example"),
        (r"a@b.example (\))", "a@b.example"),
        (r"(\x)a@b.example", "a@b.example"),
        ('a@b.example (")', "a@b.example"),
        ("a@b.example x)", "a@b.example x)"),
        ("(x)a@b.example", "a@b.example"),
        ("a (x) @ (y) b.example", "a@b.example"),
        ('"a(x)"@b.example', "a(x)@b.example"),
        ('"a(x"@b.example (y)', "a(x@b.example"),
        (r"a\(x\)@b.example", r"a\(x\)@b.example"),
        ("(x)@b.example", "@b.example"),
        ('(x"', ""),
        ('"(x', '"(x'),
        ("(x)\\", "\\"),
    ],
)
def test_comments_are_left_out(typed, meant):
    assert address.normalise(typed) == meant


@pytest.mark.parametrize(
    "argument", ["<>", "", "<(x)>", '<"">', '<"" (x)>', "<,>", "<;,>", "<<>>", "<@a:>", "<((x)>"]
)
def test_what_postfix_takes_for_the_null_sender(argument):
    assert address.sender(argument) == ""


@pytest.mark.parametrize("argument", ["<.>", "<:>", '<" ">', '<""@d.example>', "<(x)@d>", "<x)>"])
def test_what_postfix_takes_for_a_sender(argument):
    assert address.sender(argument) != ""


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        ("help@a.example", "help", "a.example"),
        ("x@y@a.example", "x@y", "a.example"),
        ("help", "help", ""),
        ("@a.example", "", "a.example"),
        ("", "", ""),
    ],
)
def test_the_halves_of_an_address(text, local, domain):
    assert (address.local_of(text), address.domain_of(text)) == (local, domain)


@pytest.mark.parametrize(
    ("typed", "normal", "shown"),
    [
        ("Help@A.Example", "help@a.example", "Help@a.example"),
        ("help@a.example", "help@a.example", "help@a.example"),
        ("Help", "help@a.example", "Help@a.example"),  # $myorigin
        ("Help%x.example@localhost", "help@x.example", "Help@x.example"),
        ('"He"lp%x.example@localhost', "help@x.example", "Help@x.example"),
        (r"He\lp%x.example@localhost", "help@x.example", "Help@x.example"),
        ("x.example!Help", "help@x.example", "Help@x.example"),
        ("HELP%help@localhost", "help@x.example", "help@x.example"),  # which of the two?
        ("Grüße%x.example@localhost", "grüße@x.example", "grüße@x.example"),
        ("Straße@a.example", "strasse@a.example", "Straße@a.example"),
        ("other@a.example", "help@a.example", "help@a.example"),
        ("Help@a.example (He said help)", "help@a.example", "Help@a.example"),
    ],
)
def test_a_local_part_keeps_the_spelling_that_was_typed(typed, normal, shown):
    assert address.as_typed(typed, normal) == shown


@pytest.mark.parametrize(
    ("typed", "normal", "start", "end", "taken"),
    [
        ("Case-AbC@d", "case-abc@d", 5, 8, "AbC"),
        ("Straße@d", "strasse@d", 4, 6, "ß"),
        ("Straße@d", "strasse@d", 5, 6, "s"),
        ("Straße@d", "strasse@d", 4, 5, "s"),
        ("Straße@d", "strasse@d", 0, 4, "Stra"),
        ("Ne\u0301e@d", "n\u00e9e@d", 1, 2, "e\u0301"),
        ("Ne\u0301e@d", "n\u00e9e@d", 2, 3, "e"),
        ("Née@d", "other@d", 0, 1, "o"),
        ("É@d", "é@d", 0, 3, "É@d"),
    ],
)
def test_the_part_of_a_spelling(typed, normal, start, end, taken):
    assert address.part(typed, normal, start, end) == taken


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a b@x.example", '"a b"@x.example'),
        ('a"b@x.example', r'"a\"b"@x.example'),
        (r"a\b@x.example", r'"a\\b"@x.example'),
        ("a b", "a b"),
        ("a.b@x.example", "a.b@x.example"),
        ("a..b@x.example", '"a..b"@x.example'),
    ],
)
def test_an_address_is_quoted_where_smtp_wants_it(text, written):
    assert address.written(text) == written


def test_octets_that_are_no_text_are_shown_in_their_places():
    assert address.readable("é\udcff\ud800x") == "é\ufffd\ufffdx"


def test_a_sender_is_read_as_postfix_reads_it():
    assert address.sender("<Joe@X.Example>") == "joe@x.example"
    assert address.sender(r"<J\oe@x.example>") == "joe@x.example"
    assert address.sender(r'<"j\"oe"@x.example>') == 'j"oe@x.example'
    assert address.sender("<Joe@X.Example (x)>") == "joe@x.example"


def test_letters_are_composed():
    assert address.composed("Ne\u0301e") == "N\u00e9e"
    assert address.composed("\ufb01x") == "\ufb01x"  # a ligature is another letter
