"""An address as it is compared, and as the client spelt it: case, composition, blanks, octets."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crm_milter import address as addresses
from crm_milter import mailbox
from crm_milter.rules import regexes
from crm_milter.rules.conditions import Occasion, Senders
from crm_milter.rules.pattern import parse
from crm_milter.rules.rule import AddressMap, Rule
from crm_milter.rules.table import RuleTable
from crm_milter.rules.template import template

# Not blanks of SMTP, whatever Unicode or Python call them.
OTHER_BLANKS = (
    *("\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x1f", "\x85", "\u00a0", "\u1680", "\u2000"),
    *("\u2003", "\u200b", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\ufeff"),
)


@pytest.fixture(params=["with RE2", "without RE2"])
def re2(request, monkeypatch):
    if request.param == "without RE2":
        monkeypatch.setattr(regexes, "module", lambda: None)


def table(match, target, *others, **settings):
    """Return a table with one rule, and a rule each for other patterns."""
    extra = [Rule(f"other{n}", (parse(each),), template("x@o.example")) for n, each in others]
    patterns = tuple(parse(each) for each in match)
    delimiter = settings.pop("recipient_delimiter", "")
    return RuleTable((Rule("r", patterns, template(target), **settings), *extra), delimiter)


def targets(rules, typed):
    """Return the targets for what a client typed between "<" and ">"; "" if no rule matches."""
    found = rules.match(addresses.normalise(typed), Occasion(), typed)
    return found.targets() if found else ""


@pytest.mark.parametrize("blank", OTHER_BLANKS)
@pytest.mark.parametrize(
    "form", ["{}help@x.example", "help{}@x.example", '{}"help"@x.example', "<{}help@x.example>"]
)
def test_only_the_blanks_of_smtp_are_left_out(blank, form):
    typed = addresses.strip_path(form.format(blank))
    assert blank in typed
    assert addresses.normalise(typed) != "help@x.example"
    assert targets(table(["help@x.example"], "a@crm.example"), typed) == ""


@pytest.mark.parametrize("typed", [" help@x.example\t", "\thelp@x.example", "help@x.example \t"])
def test_space_and_tab_are_left_out(typed):
    assert addresses.strip_path(f"<{typed}>") == "help@x.example"
    assert addresses.normalise(typed) == "help@x.example"


@pytest.mark.parametrize(
    ("argument", "stripped"),
    [
        ("<@a.example:b:help@x.example>", "b:help@x.example"),
        ("<@[IPv6:::1]:help@x.example>", "::1]:help@x.example"),
        ('<@a.example:"b:c"@x.example>', '"b:c"@x.example'),
        ("<@a.example,@b.example:c:d@x.example>", "c:d@x.example"),
        ("@a.example:help:desk@x.example", "help:desk@x.example"),
    ],
)
def test_a_source_route_ends_at_its_first_colon(argument, stripped):
    assert addresses.strip_path(argument) == stripped


SAME = [
    ("gr\u00fc\u00dfe", "gru\u0308\u00dfe"),
    ("GR\u00dc\u00dfE", "gru\u0308sse"),
    ("\u00e9t\u00e9", "e\u0301te\u0301"),
    ("\u0130pek", "I\u0307pek"),
    ("\ufb01le", "file"),
    ("\u212bke", "\u00e5ke"),
    ("q\u0307\u0323", "Q\u0323\u0307"),
    ("\uac00", "\u1100\u1161"),
    ("\u1f80", "\u1f00\u03b9"),
    ("\u017fupport", "support"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_letters_compare_equal_however_they_are_composed(one, other):
    assert addresses.folded(one) == addresses.folded(other)
    rules = RuleTable((Rule("r", (parse("@x.example"),)),))
    for local in (one, other):
        normal = addresses.normalise(f"{local}@x.example")
        assert rules.match(normal, Occasion(), f"{local}@x.example").typed == f"{local}@x.example"


@given(st.text(alphabet=st.characters(exclude_categories=[]), max_size=12))
def test_the_normal_form_of_a_local_part_is_its_own(text):
    assert addresses.folded(addresses.folded(text)) == addresses.folded(text)
    assert addresses.folded(addresses.composed(text)) == addresses.folded(text)


@given(st.text(max_size=20), st.integers(0, 20), st.integers(0, 20))
def test_the_parts_of_a_spelling_make_the_whole(text, one, other):
    normal = addresses.folded(text)
    first, second = sorted(min(each, len(normal)) for each in (one, other))
    bounds = [(0, first), (first, second), (second, len(normal))]
    parts = [addresses.part(text, normal, *each) for each in bounds]
    assert addresses.folded("".join(parts)) == normal


@pytest.mark.parametrize(
    ("match", "target", "typed", "expected"),
    [
        ("case-*@x.example", r"\1@crm.example", "Case-AbC@x.example", "AbC@crm.example"),
        ("*-case@x.example", r"a.\1@crm.example", "AbC-CASE@X.example", "a.AbC@crm.example"),
        ("*=*@x.example", r"\2.\1@crm.example", "Aa=Bb@x.example", "Bb.Aa@crm.example"),
        ("@x.example", "@crm.example", "Anna.Smith@X.Example", "Anna.Smith@crm.example"),
        ("@x.example", "@crm.example", '"Anna.Smith"@x.example', "Anna.Smith@crm.example"),
        ("help@x.example", "@crm.example", "HeLp@x.example", "HeLp@crm.example"),
        ("/case-(.*)@x\\.example/", r"\1@crm.example", "CASE-AbC@x.example", "AbC@crm.example"),
        ("/(.*)@(.*)\\.example/", r"\1@\2.crm.example", "AbC@X.example", "AbC@x.crm.example"),
        ("/(A)?(b)@x\\.example/", r"z\1\2@crm.example", "B@x.example", "zB@crm.example"),
        ("stra*e@x.example", r"ü\1@crm.example", "STRAßE@x.example", "üß@crm.example"),
        ("stras*@x.example", r"ü\1@crm.example", "STRAßE@x.example", "üse@crm.example"),
        ("/straße-(.*)@x\\.example/", r"\1@crm.example", "Straße-Ab@x.example", "Ab@crm.example"),
        ("/e\u0301-(.*)@x\\.example/", r"\1@crm.example", "É-Ab@x.example", "Ab@crm.example"),
        ("e\u0301-*@x.example", r"\1@crm.example", "É-Ab@x.example", "Ab@crm.example"),
        ("e\u0301-*@x.example", r"\1@crm.example", "E\u0301-Ab@x.example", "Ab@crm.example"),
    ],
)
def test_what_a_pattern_takes_keeps_its_case(match, target, typed, expected):
    assert targets(table([match], target), typed) == (expected,)


@pytest.mark.parametrize(
    ("argument", "address", "spelt"),
    [
        ("Help@X.Example", "help@x.example", "Help@x.example"),
        ("Help%X.example@localhost", "help@x.example", "Help@x.example"),
        ("Anna\\.Smith@x.example", "anna.smith@x.example", "Anna.Smith@x.example"),
        ("\\Anna.Smi\\th@x.example", "anna.smith@x.example", "Anna.Smith@x.example"),
        ('"Anna".Smith@x.example', "anna.smith@x.example", "Anna.Smith@x.example"),
        ('Anna."Smith"@x.example', "anna.smith@x.example", "Anna.Smith@x.example"),
        ("A\\B%x.example@localhost", "ab@x.example", "AB@x.example"),
        ('"A\\\\b"%x.example@y.example', "a\\b@x.example", "a\\b@x.example"),
        ("x.example!Help", "help@x.example", "Help@x.example"),
        ("help.example!Help", "help@help.example", "help@help.example"),
        ("Help (the desk)", "help@x.example", "Help@x.example"),
        ("Help @ x.example", "help@x.example", "Help@x.example"),
        ("Help", "help@x.example", "Help@x.example"),
        ("other", "help@x.example", "help@x.example"),
        ('"He\\lp"@x.example', "help@x.example", "Help@x.example"),
        ("", "", ""),
    ],
)
def test_as_typed(argument, address, spelt):
    assert addresses.as_typed(argument, address) == spelt


@pytest.mark.parametrize(
    ("target", "typed", "expected"),
    [
        ("s@crm.example", "Help+ToKen@x.example", ("s+ToKen@crm.example",)),
        ("s@crm.example", "Help+" + "x" * 63 + "@x.example", None),
        ("s@crm.example", "help+x.@x.example", None),
        ("s@crm.example", "help+x..y@x.example", None),
        ("s@crm.example", '"help+a b"@x.example', None),
        ("s@crm.example", "help+é@x.example", None),
        ("sé@crm.example", "help+é@x.example", ("sé+é@crm.example",)),
        ('"s s"@crm.example', "help+Ab@x.example", ('"s s+Ab"@crm.example',)),
        ("@crm.example", "Help+Ab@x.example", ("Help+Ab@crm.example",)),
    ],
)
def test_an_extension_is_passed_on_as_it_came_if_it_can_be(target, typed, expected):
    settings = {"recipient_delimiter": "+", "propagate_extension": True}
    assert targets(table(["help@x.example"], target, **settings), typed) == expected


def test_one_target_of_a_table_that_cannot_exist_leaves_the_recipient():
    long = "x" * 60 + "@crm.example"
    addresses_of = AddressMap("map", {"help@x.example": ("s@crm.example", long)})
    rule = Rule("r", address_map=addresses_of, propagate_extension=True)
    rules = RuleTable((rule,), "+")
    assert targets(rules, "Help+Ab@x.example") == ("s+Ab@crm.example", "x" * 60 + "+Ab@crm.example")
    assert targets(rules, "Help+12345@x.example") is None


@pytest.mark.parametrize(
    ("target", "group", "possible"),
    [
        (r"case.\1", "7", True),
        (r"case.\1", "", False),
        (r"case-\1", "", False),
        *((rf"case{each}\1", "", False) for each in "/#~!$%&*?^`{|}'"),
        *((rf"\1{each}case", "", False) for each in "/#~"),
        (r"a/\1/b", "", False),
        (r"case\1", "", True),
        (r"a/\1/b", "7", True),
        (r"\1-case", "", False),
        (r"a-\1-b", "", False),
        (r"support\1", "", True),
        (r"support\1.x", "", True),
        (r"\1", "", False),
        (r"case.\1", ".7", False),
        (r"case.\1", "7.", False),
        (r"case-\1", "a b", False),
        (r"case-\1", 'a"b', False),
        (r"case-\1", "a@b", False),
        (r"case-\1", "a,b", False),
        (r"case-\1", "a\\b", False),
        (r"case-\1", "a\x01b", False),
        (r"case-\1", "a\x7fb", False),
        (r"case-\1", "ü", False),
        (r"cäse-\1", "ü", True),
        (r"cäse-\1", "\u200b", False),
        (r"cäse-\1", "\u00a0", False),
        (r"cäse-\1", "\x85", False),
        (r"cäse-\1", "\udcff", False),
        (r"case-\1", "x" * 59, True),
        (r"case-\1", "x" * 60, False),
        (r"cäse-\1", "ü" * 30, False),
        (r"\1", "x" * 64, True),
        (r"\1", "x" * 65, False),
    ],
)
def test_a_target_that_no_mailbox_can_have_is_none(target, group, possible):
    made = template(f"{target}@crm.example").fill("x@x.example", (group,))
    assert (made is not None) is possible


@pytest.mark.parametrize(
    ("target", "group", "possible"),
    [
        (r"x@\1.example", "a-b", True),
        (r"x@\1.example", "-a", False),
        (r"x@\1.example", "a-", False),
        (r"x@\1.example", "a..b", False),
        (r"x@\1.example", "x" * 63, True),
        (r"x@\1.example", "x" * 64, False),
        (r"x@\1.example", ".".join(["x" * 60] * 4), True),
        (r"x@\1.example", ".".join(["x" * 60] * 5), False),
        (r"x@\1", "1.2.3", False),
        (r"x@\1", "xn--a.example", True),
    ],
)
def test_nor_one_in_a_domain_that_cannot_exist(target, group, possible):
    assert (template(target).fill("x@x.example", (group,)) is not None) is possible


LABELS = ".".join(["x" * 62] * 3)  # 188 octets


@pytest.mark.parametrize(
    ("domain", "possible"), [(f"{LABELS}.d"[1:], True), (f"{LABELS}.d", False)]
)
def test_a_target_has_254_octets_at_most(domain, possible):
    made = template(r"\1@\2").fill("x@x.example", ("x" * 64, domain))
    assert len(domain) + 64 + 1 == (254 if possible else 255)
    assert (made is not None) is possible


@pytest.mark.parametrize("length", [255, 256])
def test_a_domain_has_255_octets_at_most(length):
    domain = f"{LABELS}.{'x' * 62}.{'x' * (length - 252)}"
    assert len(domain) == length
    if length == 255:
        assert mailbox.checked_domain(domain) == domain
        return
    with pytest.raises(addresses.AddressError):
        mailbox.checked_domain(domain)


@pytest.mark.parametrize("argument", ["<a@x.example", "a@x.example>", "<", ">"])
def test_one_bracket_alone_is_part_of_the_address(argument):
    assert addresses.strip_path(argument) == argument


def test_letters_that_are_composed_of_several_come_from_the_normal_form():
    """Jamo are no marks, so nothing tells where in the spelling a later letter is."""
    typed = "\u1100\u1161\u11a8-Ab@x.example"
    assert targets(table(["\uac01-*@x.example"], "\uac01\\1@crm.example"), typed) == (
        "\uac01ab@crm.example",
    )


def test_an_extension_that_is_not_passed_on_leaves_the_case_of_the_rest():
    rules = table(["help@x.example"], "@crm.example", recipient_delimiter="+")
    assert targets(rules, "Help+Ab@X.example") == ("Help@crm.example",)
    assert rules.match("help+ab@x.example", Occasion(), "Help+Ab@X.example").extension == "+Ab"


def test_a_later_rule_is_tried_if_the_first_has_conditions_that_fail():
    """The same address in rules with and without conditions, twice in one and in a list."""
    first = Rule(
        "first",
        (parse("a@x.example"), parse("a@x.example")),
        conditions=(Senders((parse("@s.example"),)),),
    )
    rules = RuleTable(
        (first, Rule("second", (parse("a@x.example"),)), Rule("third", (parse("a@x.example"),)))
    )
    assert rules.match("a@x.example", Occasion("b@s.example")).rule.name == "first"
    assert rules.match("a@x.example", Occasion("b@t.example")).rule.name == "second"
    assert [each.rule.name for each in rules.possible("a@x.example")] == ["first", "second"]
    found = [
        each.match.rule.name for each in rules.considered("a@x.example", Occasion("b@t.example"))
    ]
    assert found == ["first", "second"]


@pytest.mark.parametrize("target", ["@crm.example", "s@crm.example", "s@", r"\1@crm.example"])
@given(st.text(max_size=70))
def test_whatever_comes_a_target_is_an_address_or_none(target, local):
    made = template(target).fill(f"{local}@x.example", (local,))
    if made is not None:
        assert mailbox.mailbox(made) == made
        assert len(made.rpartition("@")[0]) <= 64
        assert made.isascii()


NO_TEXT = b"h\xe9lp-\xff\xc3@x.example".decode("utf-8", "surrogateescape")


@pytest.mark.usefixtures("re2")
@pytest.mark.parametrize("pattern", ["h*p-*@x.example", "@x.example", "*"])
def test_octets_that_are_no_text_are_no_burden(pattern):
    many = [(n, f"a{n}*@x.example") for n in range(9)]
    rules = table([pattern], "s@crm.example", *many)
    assert targets(rules, NO_TEXT) == ("s@crm.example",)
    assert targets(rules, NO_TEXT.replace("x.ex", "x.\udcff")) == (
        "" if "@" in pattern else ("s@crm.example",)
    )
    assert targets(table(["a@y.example"], "s@crm.example", *many), NO_TEXT) == ""


@pytest.mark.parametrize("number", [1, 9])
def test_expressions_see_octets_that_are_no_text(number):
    rules = table(
        [r"/h.lp-(.*)@x\.example/"],
        r"\1@crm.example",
        *[(n, rf"/a{n}.*@x\.example/") for n in range(number)],
    )
    found = rules.match(addresses.normalise(NO_TEXT), Occasion(), NO_TEXT)
    assert found.groups == ("\udcff\udcc3",)
    assert found.targets() is None


ORDERS = [
    (["case-*@x.example", "case-*-urgent@x.example"], "case-7-urgent@x.example", "7-urgent"),
    (["case-*-urgent@x.example", "case-*@x.example"], "case-7-urgent@x.example", "7"),
]
KINDS = ["c*@x.example", "@x.example", "cat@x.example", "*t@x.example", "*a*@x.example"]


@pytest.mark.usefixtures("re2")
@pytest.mark.parametrize("others", [0, 2, 9])
@pytest.mark.parametrize(("match", "typed", "group"), ORDERS)
def test_patterns_of_one_rule_are_tried_in_the_order_of_the_file(match, typed, group, others):
    """However many other rules there are: they decide whether an automaton is made."""
    many = [(n, f"z{n}*@x.example") for n in range(others)]
    rules = table(match, r"t.\1@crm.example", *many)
    assert targets(rules, typed) == (f"t.{group}@crm.example",)


@given(st.permutations([*KINDS, r"/c(.)t@x\.example/", r"/.*(t)@x\.example/"]), st.booleans())
def test_the_first_pattern_takes_the_address_whatever_its_kind(order, extended):
    patterns = tuple(map(parse, order))
    typed = "cat+c@x.example" if extended else "cat@x.example"
    found = RuleTable((Rule("r", patterns),), "+").match(typed)
    alone = (RuleTable((Rule("r", (each,)),), "+").match(typed) for each in patterns)
    first = next(each for each in alone if each is not None)
    assert (found.groups, found.address, found.extension) == (
        *(first.groups, first.address, first.extension),
    )


@given(st.permutations(KINDS))
def test_the_order_is_the_same_with_and_without_re2(order):
    rules = RuleTable((Rule("r", tuple(map(parse, order))),))
    before = rules.match("cat@x.example")
    wanted = regexes.module
    regexes.module = lambda: None
    try:
        assert RuleTable(rules.rules).match("cat@x.example") == before
    finally:
        regexes.module = wanted


@pytest.mark.parametrize(
    ("text", "typed", "taken"),
    [
        ('"john *"@x.example', '"John Doe"@x.example', ("Doe",)),
        ('"john *"@x.example', "john@x.example", None),
        ('"case-*"@x.example', "case-7@x.example", ("7",)),
        ('"*@*"@x.example', '"a@b"@x.example', ("a", "b")),
    ],
)
def test_a_glob_in_quotes_matches_what_is_in_them(text, typed, taken):
    assert (
        parse(text).groups(
            addresses.normalise(typed), addresses.as_typed(typed, addresses.normalise(typed))
        )
        == taken
    )


def test_a_table_of_plain_addresses_keeps_the_spelling_as_any_other_does():
    plain = Rule("r", (parse("help@a.example"),), template("x@b.example"))
    wild = Rule("w", (parse("x*@b.example"),), template("y@b.example"))
    for rules in ((plain,), (plain, wild)):
        found = RuleTable(rules).match("help@a.example", typed="HeLp@A.Example")
        assert found.typed == "HeLp@a.example"
    (found,) = RuleTable((plain,)).possible("help@a.example")
    assert found.typed in ("", "help@a.example")
    assert RuleTable((plain,)).match("help@a.example").typed in ("", "help@a.example")


@pytest.mark.parametrize("start", ["srs0=", "srs0+", "srs0-", "srs1=", "srs1+", "srs1-", "prvs="])
def test_wildcards_spare_rewritten_senders(start):
    assert addresses.is_protected(f"{start}x@a.example")
    assert RuleTable().is_protected(f"{start}x@a.example")
    assert not addresses.is_protected(f"x{start}@a.example")


@pytest.mark.parametrize(
    ("address", "spared"),
    [("abuse@a.example", True), ("abuse+x@a.example", True), ("help+abuse@a.example", False)],
)
def test_wildcards_spare_with_or_without_the_extension(address, spared):
    assert RuleTable((), "+").is_protected(address) is spared


@pytest.mark.parametrize("domain", ["Ü" * 300 + ".example", "Ü..Example"])
def test_a_domain_that_idna_refuses_equals_itself_without_case(domain):
    assert addresses.normalise(f"a@{domain}") == f"a@{domain.lower()}"
