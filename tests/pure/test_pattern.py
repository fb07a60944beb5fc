"""Patterns and templates: what they take, what they give, what they refuse."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_milter.rules import pattern
from crm_milter.rules.pattern import Exact, Glob, InDomain, PatternError, Regex, parse
from crm_milter.rules.rule import Rule
from crm_milter.rules.table import RuleTable
from crm_milter.rules.template import template


def groups(text, address):
    return parse(text).groups(address)


def test_kinds():
    assert parse("Help@SolarMora.COM") == Exact("help@solarmora.com")
    assert parse("@MÜNCHEN.example") == InDomain("xn--mnchen-3ya.example")
    assert parse("*") == pattern.Everyone()
    assert isinstance(parse("case-*@a.example"), Glob)
    assert isinstance(parse("/case-[0-9]+@a[.]example/"), Regex)


@pytest.mark.parametrize(
    ("text", "address", "taken"),
    [
        ("case-*@a.example", "case-17@a.example", ("17",)),
        ("case-*@a.example", "case-@a.example", ("",)),
        ("case-*@a.example", "xcase-17@a.example", None),
        ("Case-*@a.example", "case-17@a.example", ("17",)),
        ("*-case@a.example", "17-case@a.example", ("17",)),
        ("a*b*c@a.example", "a1b2c@a.example", ("1", "2")),
        ("a*b*c@a.example", "abbc@a.example", ("", "b")),
        ("a*b*c@a.example", "ac@a.example", None),
        ("ab*ba@a.example", "aba@a.example", None),
        ("a**c@a.example", "abc@a.example", ("b",)),
        ("*b*@a.example", "b1@a.example", ("", "1")),
        ("/case-([0-9]+)(x)?@a\\.example/", "case-17@a.example", ("17", "")),
        ("/^CASE-(.*)@a\\.example$/", "case-17@a.example", ("17",)),
        ("/case-([0-9]+)@a\\.example/", "my-case-17@a.example", None),
    ],
)
def test_groups(text, address, taken):
    assert groups(text, address) == taken


def test_a_group_is_the_letters_that_were_typed_even_if_folding_makes_two_of_one():
    folded = parse(r"/stra(ss)e@a\.example/")
    assert folded.groups("strasse@a.example", "straße@a.example") == ("ß",)


@pytest.mark.parametrize(
    ("text", "shown", "number"),
    [
        ("Help@a.example", "help@a.example", 0),
        ("@A.example", "@a.example", 0),
        ("*", "*", 0),
        ("Case-*@a.example", "Case-*@a.example", 1),
        ("a*b**c*@a.example", "a*b**c*@a.example", 3),
        ("/a(b)(c)?@a.example/", "/a(b)(c)?@a.example/", 2),
        ("/a/", "/a/", 0),
    ],
)
def test_a_pattern_is_shown_as_written_and_knows_its_groups(text, shown, number):
    assert str(parse(text)) == shown
    assert pattern.group_count(parse(text)) == number


def test_what_else_may_stand_for_senders_is_shown_as_written():
    assert str(pattern.NullSender()) == "<>"
    assert str(pattern.AddressList("file:/etc/vips", frozenset())) == "file:/etc/vips"


def test_a_pattern_may_be_as_long_as_an_address_or_the_limit_of_an_expression():
    assert groups("x" * 63 + "*@a.example", "x" * 63 + "y@a.example") == ("y",)
    expression = "/" + "a" * 998 + "/"
    assert str(parse(expression)) == expression


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "empty address"),
        ("help", "no domain"),
        ("case-*", "no domain"),
        ("help@*.example", "local part only"),
        ("*@a.example", "@a.example"),
        ("@", "not a valid domain"),
        ("@a b.example", "not a valid domain"),
        ("//", "enclosed in slashes"),
        ("/a@b.example", "enclosed in slashes"),
        ("/a(@b.example/", 'expression "/a[(]@b.example/": missing'),
        ("/a\u200b@b.example/", r"U\+200B"),
        ("a\u200b*@b.example", r"U\+200B"),
        ("a b*@b.example", "quoted"),
        ("/(?=a)a@b.example/", "invalid RE2 regular expression"),
        ("/(a)\\1@b.example/", "invalid RE2 regular expression"),
        (f"/{'(a)' * 10_000}@b.example/", "the limit is 1000; .* of addresses$"),
        ('"a\\*b*"@a.example', "not supported"),
        ("@a-.example", "not a valid domain"),
        (f"@{'a' * 64}.example", "not a valid domain"),
        ("@1.2.3.4", "not a valid domain"),
    ],
)
def test_what_is_no_pattern(text, wrong):
    with pytest.raises(PatternError, match=wrong):
        parse(text)


def test_without_re2_a_regular_expression_is_a_clear_error_and_globs_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "re2", None)
    with pytest.raises(PatternError, match="need RE2, which is not installed"):
        parse("/a@b.example/")
    assert groups("case-*@a.example", "case-1@a.example") == ("1",)


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("help@a.example", True),
        ("@a.example", True),
        ("case-*@a.example", True),
        ("*", False),
        (r"/.*@a\.example/", True),
        (r"/(x|y)@a\.example$/", True),
        (r"/[|(]@a\.example/", True),
        (r"/help.*/", False),
        (r"/.*@.*/", False),
        (r"/.*@[ab]\.example/", False),
        (r"/.*|help@a\.example/", False),
        (r"/(.*|help@a\.example)/", False),
        (r"/help@(a|b)\.example/", False),
    ],
)
def test_literal_domain(text, literal):
    assert pattern.has_literal_domain(parse(text)) is literal


@pytest.mark.parametrize(
    ("text", "address", "taken", "target"),
    [
        ("support@crm.example", "help@a.example", (), "support@crm.example"),
        ("@crm.example", "help@a.example", (), "help@crm.example"),
        ("support@", "help@a.example", (), "support@a.example"),
        (r"case-\1@crm.example", "x@a.example", ("17",), "case-17@crm.example"),
        (r"\2-\1@crm.example", "x@a.example", ("a", "b"), "b-a@crm.example"),
        (r"x@\1.example", "x@a.example", ("crm",), "x@crm.example"),
        (r"x@\1.example", "x@a.example", ("münchen",), "x@xn--mnchen-3ya.example"),
        (r"\1@crm.example", "x@a.example", ("a b",), None),
        (r"\1@crm.example", "x@a.example", ("a@b",), None),
        (r"\1@crm.example", "x@a.example", ("",), None),
        (r"\1@crm.example", "x@a.example", ("a\nb",), None),
        (r"x@\1.example", "x@a.example", ("",), None),
        (r"x@\1.example", "x@a.example", ("a>b",), None),
    ],
)
def test_template(text, address, taken, target):
    assert template(text).fill(address, taken) == target


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", "empty address"),
        ("<>", "empty address"),
        ("support", "no domain"),
        ("a@b.example,c@d.example", "several"),
        ("@", "not a valid domain"),
        (r"\0@crm.example", "count from"),
        ("a b@", "quoted"),
        (r'"case \1"@crm.example', "has to be a whole address"),
        (r'"case \1"@', "has to be a whole address"),
        ('"a b"@', "has to be a whole address"),
        (rf"{'x' * 64}\1@crm.example", "as long as"),
        (f"{'x' * 65}@", "as long as"),
    ],
)
def test_what_is_no_template(text, wrong):
    with pytest.raises(PatternError, match=wrong):
        template(text)


@given(st.text(alphabet="ab*", min_size=1, max_size=8), st.text(alphabet="ab", max_size=12))
def test_a_glob_and_its_groups_rebuild_the_address(glob, local):
    if "*" not in glob or glob.strip("*") == "":
        return
    parsed = parse(f"{glob}@a.example")
    taken = parsed.groups(f"{local}@a.example")
    if taken is not None:
        pieces = [piece + group for piece, group in zip(parsed.pieces, (*taken, ""), strict=True)]
        assert "".join(pieces) == local


def table(*patterns, delimiter=""):
    rules = [
        Rule(f"r{number}", tuple(parse(each) for each in texts.split()))
        for number, texts in enumerate(patterns)
    ]
    return RuleTable(tuple(rules), delimiter)


@pytest.mark.parametrize(
    ("patterns", "address", "rule"),
    [
        (["help@a.example", "@a.example"], "help@a.example", "r0"),
        (["@a.example", "help@a.example"], "help@a.example", "r0"),
        (["case-*@a.example", "case-1@a.example"], "case-1@a.example", "r0"),
        (["/x.*@a\\.example/", "x*@a.example", "@a.example"], "xy@a.example", "r0"),
        (["x*@a.example", "/x.*@a\\.example/", "@a.example"], "xy@a.example", "r0"),
        (["b@a.example", "@a.example", "*"], "x@b.example", "r2"),
        (["help@a.example info@b.example"], "info@b.example", "r0"),
        (["help@a.example"], "other@a.example", None),
        (["@a.example"], "postmaster@a.example", None),
        (["*"], "srs0=a=b=c=d@a.example", None),
        (["/.*@a\\.example/"], "abuse@a.example", None),
        (["p*@a.example"], "postmaster@a.example", None),
        (["@a.example", "postmaster@a.example"], "postmaster@a.example", "r1"),
        (["*"], "postmaster", None),
    ],
)
def test_the_first_rule_that_takes_the_address_applies(patterns, address, rule):
    match = table(*patterns).match(address)
    assert (match.rule.name if match else None) == rule


@pytest.mark.parametrize(
    ("patterns", "address", "rule", "taken"),
    [
        (["help@a.example"], "help+x@a.example", "r0", "help@a.example"),
        (["help@a.example", "help+x@a.example"], "help+x@a.example", "r0", "help@a.example"),
        (["help+x@a.example", "help@a.example"], "help+x@a.example", "r0", "help+x@a.example"),
        (["case-*@a.example"], "case-1+x@a.example", "r0", "case-1+x@a.example"),
        (["@a.example"], "postmaster+x@a.example", None, None),
    ],
)
def test_extensions(patterns, address, rule, taken):
    match = table(*patterns, delimiter="+").match(address)
    assert (match and (match.rule.name, match.address)) == (rule and (rule, taken))
