"""Letters in the file: what cannot be seen is refused by name, what is only odd is warned of."""

import pytest

from crm_milter.config.load import parse
from crm_milter.config.problems import ConfigError

INVISIBLE = {
    "\u200b": "U+200B ZERO WIDTH SPACE",
    "\u00ad": "U+00AD SOFT HYPHEN",
    "\u2060": "U+2060 WORD JOINER",
    "\u202e": "U+202E RIGHT-TO-LEFT OVERRIDE",
    "\u00a0": "U+00A0 NO-BREAK SPACE",
    "\u3000": "U+3000 IDEOGRAPHIC SPACE",
    "\u2003": "U+2003 EM SPACE",
    "\u1680": "U+1680 OGHAM SPACE MARK",
    "\u034f": "U+034F COMBINING GRAPHEME JOINER",
    "\ufe0f": "U+FE0F VARIATION SELECTOR-16",
    "\u3164": "U+3164 HANGUL FILLER",
    "\ue000": "U+E000 (a character for private use)",
    "\u0378": "U+0378 (not a character)",
    "\ufdd0": "U+FDD0 (not a character)",
    "\U000e0041": "U+E0041 TAG LATIN CAPITAL LETTER A",
}
HEAD = "unrouted_to: it@mailboxes.example\nspam: rspamd\n"
RULE = HEAD + "rules:\n  - {name: a, match: a@x.example, replace_with: a@crm.example"
PLACES = {
    "name": HEAD + "rules: [{name: a%s, match: a@x.example, replace_with: a@crm.example}]",
    "match": HEAD + "rules: [{name: a, match: a%s@x.example, replace_with: a@crm.example}]",
    "glob": HEAD + "rules: [{name: a, match: 'a%s*@x.example', replace_with: a@crm.example}]",
    "expression": HEAD
    + "rules: [{name: a, match: '/a%s@x[.]example/', replace_with: a@c.example}]",
    "domain": HEAD + "rules: [{name: a, match: '@x%sy.example', replace_with: a@crm.example}]",
    "target": HEAD + "rules: [{name: a, match: a@x.example, replace_with: a%s@crm.example}]",
    "target's domain": HEAD
    + "rules: [{name: a, match: a@x.example, replace_with: a@c%srm.example}]",
    "template": HEAD
    + "rules: [{name: a, match: 'a*@x.example', replace_with: 'a%s\\1@c.example'}]",
    "copy": RULE + ", also_deliver_to: [{address: b%s@z.example}]}",
    "plain copy": RULE + ", also_deliver_to: [b%s@z.example]}",
    "sender": RULE + ", senders: b%s@z.example}",
    "mailbox": RULE + ", unrouted_to: b%s@mailboxes.example}",
    "choice": RULE + ", on_spam: leave%s}",
    "header": RULE + ", add_headers: {X-A%s: b}}",
    "header's value": RULE + ", add_headers: {X-A: b%s}}",
    "size": RULE + ", max_size: 25%sM}",
}
FILES = {
    "list": HEAD + "rules: [{name: a, match: 'file:f', replace_with: a@crm.example}]",
    "map": HEAD + "rules: [{name: a, address_map: f}]",
    "accounts": HEAD
    + "known_recipients: f\nrules: [{name: a, match: a@x.example, apply_to: unknown,"
    + " replace_with: a@crm.example}]",
}


def problems(text, path):
    with pytest.raises(ConfigError) as caught:
        parse(text, path / "c.yaml")
    return [str(each).removeprefix(f"{path}/") for each in caught.value.problems]


@pytest.mark.parametrize("character", INVISIBLE)
@pytest.mark.parametrize("place", PLACES)
def test_a_character_that_cannot_be_seen_is_named(place, character, tmp_path):
    text = PLACES[place] % character
    line = 1 + text[: text.index(character)].count("\n")
    found = problems(text, tmp_path)
    assert any(f"contains {INVISIBLE[character]}" in each for each in found)
    assert all(each.startswith(f"c.yaml:{line}: ") for each in found if "contains" in each)


@pytest.mark.parametrize("character", INVISIBLE)
@pytest.mark.parametrize("form", ["{0}b@x.example", "b{0}@x.example", "b@x.example{0}"])
@pytest.mark.parametrize("kind", FILES)
def test_so_it_is_in_a_file_with_its_line(kind, form, character, tmp_path):
    value = " c@crm.example" if kind == "map" else ""
    line = form.format(character)
    (tmp_path / "f").write_text(f"# ours\na@x.example{value}\n\n{line}{value}\n", "utf-8")
    (found,) = [each for each in problems(FILES[kind], tmp_path) if each.startswith("f:")]
    assert found.startswith("f:4: ")
    assert f"contains {INVISIBLE[character]}" in found


@pytest.mark.parametrize(
    "form", ["c{}@crm.example", "{}c@crm.example", "c@crm.example,{}d@y.example"]
)
def test_so_it_is_in_the_target_of_a_table(form, tmp_path):
    for character, name in INVISIBLE.items():
        (tmp_path / "f").write_text(f"a@x.example {form.format(character)}\n", "utf-8")
        assert f"contains {name}" in "".join(problems(FILES["map"], tmp_path))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("o\u2019neil@x.example", 'U+2019 RIGHT SINGLE QUOTATION MARK; write "o\'neil@x.example"'),
        ("\u201chelp@x.example\u201d", 'U+201C LEFT DOUBLE QUOTATION MARK; write "help@x.example"'),
        ("\u2018help@x.example\u2019", 'U+2018 LEFT SINGLE QUOTATION MARK; write "help@x.example"'),
        ("\u201ehelp@x.example\u201c", 'DOUBLE LOW-9 QUOTATION MARK; write "help@x.example"'),
        ("\u00abhelp@x.example\u00bb", 'LEFT-POINTING DOUBLE ANGLE QUOTATION MARK; write "help@'),
        ("case\u20137@x.example", 'U+2013 EN DASH; write "case-7@x.example"'),
        ("\uff48elp@x.example", 'U+FF48 FULLWIDTH LATIN SMALL LETTER H; write "help@x.example"'),
        ("he\u200blp@x.example", 'U+200B ZERO WIDTH SPACE; write "help@x.example"'),
        ("help\u00a0@x.example", 'U+00A0 NO-BREAK SPACE; write "help@x.example"'),
        ("\U0001f4e7@x.example", "U+1F4E7 E-MAIL SYMBOL, which is not allowed"),
        ("a\u200db@x.example", "U+200D ZERO WIDTH JOINER"),
        ("a\u0640b@x.example", "U+0640 ARABIC TATWEEL"),
    ],
)
def test_what_was_meant_is_said(address, said, tmp_path):
    found = problems(RULE.replace("a@crm.example", address) + "}", tmp_path)
    assert said in found[0]


@pytest.mark.parametrize(
    ("text", "warned"),
    [
        (RULE.replace("a@crm", "fälle@crm") + "}", 'replace_with: "fälle@crm.example" can only be'),
        (RULE.replace("a@crm", "a@bücher") + "}", ""),
        (RULE + ", also_deliver_to: [büro@z.example]}", 'also_deliver_to[0]: "büro@z.example" can'),
        (RULE + ", also_deliver_to: [b@z\u043e.example]}", "U+043E CYRILLIC SMALL LETTER O"),
        (RULE.replace("a@x", "a@xs\u0430") + "}", 'match: "xs\u0430" mixes letters'),
        (RULE.replace("a@x", "h\u0435lp-*@x") + "}", "U+0435 CYRILLIC SMALL LETTER IE"),
        (RULE.replace("a@x", "хелп@x") + "}", ""),
        (RULE + ", senders: ['@g\u043eod.example']}", 'senders[0]: "g\u043eod" mixes'),
        (RULE + ", unrouted_to: i\u0442@mailboxes.example}", 'unrouted_to: "i\u0442" mixes'),
        (HEAD.replace("it@", "i\u0442@") + "rules: []", 'unrouted_to: "i\u0442" mixes'),
    ],
)
def test_what_may_be_meant_is_warned_of(text, warned, tmp_path):
    found = [str(each) for each in parse(text, tmp_path / "c.yaml").warnings]
    about = [each for each in found if "mixes" in each or "SMTPUTF8" in each]
    assert bool(about) is bool(warned)
    assert warned in "".join(about)


@pytest.mark.parametrize("kind", FILES)
def test_letters_of_two_scripts_in_a_file_are_warned_of(kind, tmp_path):
    value = " fälle@crm.example" if kind == "map" else ""
    (tmp_path / "f").write_text(f"a@x.example{value}\nh\u0435lp@x.example{value}\n", "utf-8")
    found = [
        str(each).removeprefix(f"{tmp_path}/")
        for each in parse(FILES[kind], tmp_path / "c").warnings
    ]
    assert any(each.startswith('f:2: warning: "h\u0435lp" mixes') for each in found)
    assert any("SMTPUTF8" in each for each in found) is (kind == "map")


def test_a_byte_order_mark_is_only_left_out_at_the_start(tmp_path):
    (tmp_path / "f").write_text("\ufeffa@x.example\n", "utf-8")
    parse(FILES["list"], tmp_path / "c.yaml")
    (tmp_path / "f").write_text("a@x.example\n\ufeffb@x.example\n", "utf-8")
    assert "U+FEFF ZERO WIDTH NO-BREAK SPACE" in problems(FILES["list"], tmp_path)[0]


@pytest.mark.parametrize("composed", ["gr\u00fc\u00dfe", "gru\u0308\u00dfe"])
def test_composed_and_decomposed_letters_in_files_are_one_address(composed, tmp_path):
    (tmp_path / "f").write_text(f"{composed}@x.example a@crm.example\n", "utf-8")
    for text in (
        RULE.replace("a@x", f"{composed}@x") + "}",
        FILES["map"],
    ):
        rules = parse(text, tmp_path / "c.yaml").policy.table
        assert rules.match("gr\u00fcsse@x.example").targets() == ("a@crm.example",)


def test_a_target_is_written_with_composed_letters(tmp_path):
    text = RULE.replace("a@crm", "fa\u0308lle@crm") + "}"
    rules = parse(text, tmp_path / "c.yaml").policy.table
    assert rules.match("a@x.example").targets() == ("f\u00e4lle@crm.example",)
