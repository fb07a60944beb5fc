"""A header field as a person reads it: on one line, encoded words decoded (RFC 2047), composed.

Nothing here raises, and all takes time linear in the value, whatever a sender wrote: a word that
cannot be decoded stays as it is, an octet that no charset explains becomes U+FFFD.
"""

import binascii
import encodings
import pkgutil
import re
import string
import unicodedata
from encodings.aliases import aliases
from functools import lru_cache

# Only the start of white space is tried, and nothing of it twice. It is that of ASCII.
_FOLD = re.compile(r"(?<!\s)[^\S\r\n]*+[\r\n]\s*+", re.ASCII)
# What is between the last two question marks ends where another word may begin, so that no
# character is looked at by more than two words. A language may follow the charset (RFC 2231).
_WORD = re.compile(
    r"=\?([^\s?=*]{1,40})(?:\*[^\s?=]{0,40})?\?([bBqQ])\?"
    r"((?>(?:[^?=]+|=(?!\?(?!=))|\?(?!=))*))\?="
)
_ESCAPE = re.compile(rb"=([0-9A-Fa-f]{2})")
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/]+")
_DIGITS = (string.ascii_uppercase + string.ascii_lowercase + string.digits + "+/").encode()
_BREAK = re.compile(r"[\x00\r\n]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_OCTETS = {0xDC00 + octet: octet for octet in range(0x80, 0x100)}  # PEP 383
# A letter and its accents: unicodedata takes the square of the time for more accents on one.
_LETTERS = re.compile(r"[\x00-\x7f]?[^\x00-\x7f]{1,200}")


def unfolded(value: str) -> str:
    """Return a value as one line (RFC 5322 section 2.2.3)."""
    folded = "\n" in value or "\r" in value
    return (_FOLD.sub(" ", value) if folded else value).strip(" \t")  # not what Unicode calls blank


def readable(value: str) -> str:
    """Return a value as a mail program shows it; octets that are not UTF-8 are Latin-1."""
    text = unfolded(value)
    if "=?" in text:
        text = _BREAK.sub(" ", _decoded(text))
    return text if text.isascii() else composed(text.translate(_OCTETS))


def composed(text: str) -> str:
    """Return text with its letters composed (NFC), without what is not a character."""
    text = _SURROGATE.sub("\ufffd", text)
    return _LETTERS.sub(lambda found: unicodedata.normalize("NFC", found[0]), text)


def _decoded(text: str) -> str:
    """Return text with its encoded words decoded; blanks between two of them are dropped."""
    made: list[str] = []
    held: list[tuple[str, str]] = []
    codec, at = "", 0
    for word in _WORD.finditer(text):
        between = text[at : word.start()]
        is_next = at > 0 and not between.strip(" \t")
        its = _codec(word[1])
        if not (is_next and its == codec):
            made.append(_text(_joined(held), codec))
            held = []
        if not is_next:
            made.append(between)
        held.append((word[2].lower(), word[3]))
        codec, at = its, word.end()
    return "".join([*made, _text(_joined(held), codec), text[at:]])


def _joined(contents: list[tuple[str, str]]) -> bytes:
    """Return the octets of adjacent words: a character may begin in one and end in the next.

    So may a group of base64, where a program cut its digits without regard for groups of four.
    """
    octets: list[bytes] = []
    rest = b""
    for encoding, content in contents:
        written = content.encode("utf-8", "surrogatepass")
        digits = b"" if encoding == "q" else _NOT_BASE64.sub(b"", written)
        if rest and (encoding == "q" or not _goes_on(rest, digits)):
            octets.append(_base64(rest))
            rest = b""
        if encoding == "q":
            octets.append(_quoted(written))
            continue
        digits = rest + digits
        whole = len(digits) if b"=" in written else len(digits) // 4 * 4
        octets.append(_base64(digits[:whole]))
        rest = digits[whole:]
    return b"".join([*octets, _base64(rest)]) if rest else b"".join(octets)


def _goes_on(rest: bytes, digits: bytes) -> bool:
    """Tell whether a group of base64 that is not whole goes on: its padding may be missing."""
    if len(rest) == 1 or len(digits) % 4 == 1:  # less than an octet
        return True
    unused = {2: 0b1111, 3: 0b11}.get(len(rest), 0)  # bits, which are zero at the end
    return bool(unused & _DIGITS.index(rest[-1:]))


def _quoted(written: bytes) -> bytes:
    return _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), written.replace(b"_", b" "))


def _base64(digits: bytes) -> bytes:
    whole = len(digits) - (len(digits) % 4 == 1)  # one digit alone is less than an octet
    return binascii.a2b_base64(digits[:whole] + b"=" * (-whole % 4))


# No codec is looked for by a name that a sender chose: Python keeps each name that it did not
# find. Those that are not charsets are left out, and what mail calls a charset is often the larger
# one that the system of its sender has.
_NO_CHARSETS = frozenset(
    {
        *("aliases", "base64_codec", "bz2_codec", "charmap", "hex_codec", "idna", "mbcs", "oem"),
        *("punycode", "quopri_codec", "raw_unicode_escape", "rot_13", "undefined"),
        *("unicode_escape", "uu_codec", "zlib_codec"),
    }
)
_LARGER = {
    "ascii": "",
    "latin_1": "cp1252",
    "iso8859_9": "cp1254",
    "tis_620": "cp874",
    "shift_jis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
}
_OTHER_NAMES = {
    "iso88598i": "iso8859_8",
    "iso88598e": "iso8859_8",
    "iso88596i": "iso8859_6",
    "iso88596e": "iso8859_6",
    "sjis": "cp932",
    "windows31j": "cp932",
    "cswindows31j": "cp932",
    "utf8mb4": "utf_8",
    "unicode20utf8": "utf_8",
}
_CODE_PAGE = re.compile(r"(?:windows|win|ibm|dos|msdos|ms|oem|cp)(?=[0-9])")


def _name(charset: str) -> str:
    """Return the name of a charset without what programs write differently."""
    name = charset.lower()
    return re.sub(r"[^a-z0-9]+", "", name.removeprefix("x-").removeprefix("x_"))


def _codecs() -> dict[str, str]:
    """Return the codecs of Python that are charsets, by every name that it knows for them."""
    modules = {each.name: each.name for each in pkgutil.iter_modules(encodings.__path__)}
    known = {_name(name): codec for name, codec in {**modules, **aliases}.items()} | _OTHER_NAMES
    return {
        name: _LARGER.get(codec, codec)
        for name, codec in known.items()
        if codec not in _NO_CHARSETS
    }


_CODECS = _codecs()


@lru_cache(maxsize=256)
def _codec(charset: str) -> str:
    """Return the codec of a charset, "" for one that is not known."""
    name = _name(charset)
    return _CODECS.get(name) or _CODECS.get(_CODE_PAGE.sub("cp", name, count=1), "")


def _text(octets: bytes, codec: str) -> str:
    if codec:
        return octets.decode(codec, "replace").removeprefix("\ufeff")  # .NET begins with that
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return octets.decode("cp1252", "replace")
