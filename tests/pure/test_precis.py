"""Characters that PRECIS keeps out of names: the same as another implementation of it says."""

import unicodedata

import pytest
from precis_i18n.derived import derived_property
from precis_i18n.unicode import UnicodeData

from crm_milter import precis


def test_each_character_is_judged_as_rfc_8264_derives_it():
    tables = UnicodeData()
    wrong = []
    for code in range(0x80, 0x110000):
        character = chr(code)
        if unicodedata.normalize("NFC", character) != character:
            continue  # judged as what it is composed to
        derived, _ = derived_property(code, tables)
        allowed = not precis.disallowed(character)
        if not derived.startswith("CONTEXT") and allowed is not (derived == "PVALID"):
            wrong.append(precis.named(character))
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("help", ""),
        ("grüße", ""),
        ("gru\u0308ße", ""),
        ("поддержка", ""),
        ("サポート", ""),
        ("\u212bngstro\u0308m", ""),  # composed, it is another letter
        ("l\u00b7l", ""),
        ("a\u00b7b", "\u00b7"),
        ("\u0915\u094d\u200d\u0937", ""),
        ("he\u200dlp", "\u200d"),
        ("he\u200clp", "\u200c"),
        ("he\u200blp", "\u200b"),
        ("a\u200b\u00a0", "\u200b"),
        ("\U0001f4e7", "\U0001f4e7"),
    ],
)
def test_disallowed(text, wrong):
    assert precis.disallowed(text) == wrong


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("he lp", ""),
        ("o\u2019neil", ""),
        ("ق\u200cق", ""),
        ("a\u00a0b", "\u00a0"),
        ("a\u3000b", "\u3000"),
        ("a\u00adb", "\u00ad"),
        ("a\ufe0fb", "\ufe0f"),
        ("a\u3164b", "\u3164"),
        ("a\u202eb", "\u202e"),
        ("a\ue000b", "\ue000"),
        ("a\U000e0041b", "\U000e0041"),
        ("a\ufffeb", "\ufffe"),
        ("a\udc80b", "\udc80"),
    ],
)
def test_invisible(text, wrong):
    assert precis.invisible(text) == wrong


@pytest.mark.parametrize(
    ("character", "name"),
    [
        ("\u200b", "U+200B ZERO WIDTH SPACE"),
        ("\x85", "U+0085 (a control character)"),
        ("\ue000", "U+E000 (a character for private use)"),
        ("\u0378", "U+0378 (not a character)"),
        ("\ufdd0", "U+FDD0 (not a character)"),
        ("\U000e0001", "U+E0001 LANGUAGE TAG"),
    ],
)
def test_named(character, name):
    assert precis.named(character) == name


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("su\u200bpport", "support"),
        ("o\u2019neil", "o'neil"),
        ("case\u20137", "case-7"),
        ("\uff48\uff45\uff4c\uff50", "help"),
        ("help\u00a0", "help"),
        ("\ufb01le", "file"),
        ("\U0001f4e7", ""),
    ],
)
def test_what_was_meant(text, meant):
    assert precis.without(text) == meant


@pytest.mark.parametrize(
    ("text", "foreign"),
    [
        ("support@solarmora.com", ""),
        ("grüße-привет@solarmora.com", ""),
        ("поддержка@пример.example", ""),
        ("サポートchat支援@例え.example", ""),
        ("s\u043elarmora", "U+043E CYRILLIC SMALL LETTER O"),
        ("suppor\u03c4@x.example", "U+03C4 GREEK SMALL LETTER TAU"),
        ("\u0430ll@x.example", "U+0430 CYRILLIC SMALL LETTER A"),
        ("\u043f\u0261\u0438\u0432\u0435\u0442", "U+043F CYRILLIC SMALL LETTER PE"),
        ("例\u0430", "U+0430"),
        ("help\u0663", ""),
    ],
)
def test_letters_of_two_scripts_in_a_word(text, foreign):
    message = precis.mixed(text)
    assert bool(message) is bool(foreign)
    assert foreign in message
