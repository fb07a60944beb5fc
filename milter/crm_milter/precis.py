"""The characters that PRECIS keeps out of names (RFC 8264 section 4.2, RFC 8265 section 3.3).

Most of them cannot be seen, or look like another: a name with one is another name, and mail for it
is lost. ASCII is left to whatever reads the name. Only the classes of characters
are needed here, not the mappings of a profile, so the tables of Python and of idna will do.
"""

import re
import unicodedata

import idna

_LETTERS_AND_DIGITS = frozenset({"Ll", "Lu", "Lo", "Nd", "Lm", "Mn", "Mc"})
_BLANK = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp"})
# RFC 8264 section 9.6 (exceptions) and 9.8 (letters that are allowed next to certain others).
_VALID = frozenset("\u00df\u03c2\u06fd\u06fe\u0f0b\u3007")
_INVALID = re.compile("[\u0640\u07fa\u302e\u302f\u3031-\u3035\u303b]")
_JOINERS = frozenset("\u200c\u200d")
_BY_CONTEXT = re.compile("[\u00b7\u0375\u05f3\u05f4\u30fb\u0660-\u0669\u06f0-\u06f9]")
# Sections 9.9 (old Hangul jamo) and 9.13 (what is not shown): those that pass for letters.
_JAMO = re.compile("[\u1100-\u11ff\ua960-\ua97c\ud7b0-\ud7fb]")
_IGNORABLE = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)
_KINDS = {
    "Cc": "a control character",
    "Cf": "an invisible character",
    "Cs": "half of a character",
    "Co": "a character for private use",
    "Cn": "not a character",
}
# What editors and word processors make of plain characters.
_PLAIN = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u2032\u02bc", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u2033", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212", "-"),
}
# What a word processor puts around a value instead of the quotes of YAML.
_QUOTES = "\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u00ab\u00bb"


def disallowed(text: str) -> str:
    """Return the first character that a name may not hold, "" if there is none.

    Letters are looked at as they are composed (NFC).
    """
    if text.isascii():
        return ""
    composed = unicodedata.normalize("NFC", text)
    for at, character in enumerate(composed):
        if character > "~" and not _is_allowed(composed, at):
            return character
    return ""


def invisible(text: str) -> str:
    """Return the first character that cannot be seen, or a blank other than a space; "" if none.

    The joiners of ZWNJ and ZWJ are left out, since some languages need them.
    """
    if text.isascii():
        return ""
    return next((each for each in text if each > "~" and _is_invisible(each)), "")


def _is_invisible(character: str) -> bool:
    if character in _JOINERS:
        return False
    return unicodedata.category(character) in _BLANK or bool(_IGNORABLE.match(character))


def _is_allowed(text: str, at: int) -> bool:
    character = text[at]
    if character in _VALID:
        return True
    if character in _JOINERS:
        return idna.valid_contextj(text, at)
    if _BY_CONTEXT.match(character):
        return idna.valid_contexto(text, at)
    if _INVALID.match(character) or _IGNORABLE.match(character) or _JAMO.match(character):
        return False
    if unicodedata.category(character) not in _LETTERS_AND_DIGITS:
        return False
    return unicodedata.normalize("NFKC", character) == character


_WORD = re.compile(r"[^\W_]+")
# Scripts that are written together, also with Latin letters (UTS 39 section 5.2).
_EAST_ASIAN = frozenset({"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO"})


def mixed(text: str) -> str:
    """Return what is odd about a text with a word in letters of two scripts, "" if there is none.

    Such letters look alike: a Cyrillic one in a Latin word makes another address of it.
    """
    for word in () if text.isascii() else _WORD.findall(text):
        scripts = {_script(each): each for each in reversed(word) if each.isalpha()}
        if len(scripts) > 1 and not scripts.keys() <= {"EAST ASIAN", "LATIN"}:
            foreign = next(each for name, each in scripts.items() if name != "LATIN")
            return f'"{word}" mixes letters of different scripts: {named(foreign)}'
    return ""


def _script(letter: str) -> str:
    """Return the script of a letter, which its name begins with."""
    name = unicodedata.name(letter, "").replace("-", " ").partition(" ")[0]
    return "EAST ASIAN" if name in _EAST_ASIAN else name


def named(character: str) -> str:
    """Return a character for a message: ``U+200B ZERO WIDTH SPACE``."""
    name = unicodedata.name(character, "")
    kind = _KINDS.get(unicodedata.category(character), "")
    return f"U+{ord(character):04X} {name or f'({kind})'}"


def without(text: str) -> str:
    """Return what was probably meant by a text: plain characters, and none that is not allowed."""
    plain = "".join(
        _PLAIN.get(each) or ("" if _is_invisible(each) else unicodedata.normalize("NFKC", each))
        for each in text.strip(_QUOTES)
    )
    return "" if disallowed(plain) else plain


def complaint(text: str, character: str) -> str:
    """Return what is wrong with a text that holds a character, and what was probably meant."""
    meant = without(text)
    hint = f'; write "{meant}"' if meant else ", which is not allowed in a name (RFC 8265)"
    return f'"{text}" contains {named(character)}{hint}'
