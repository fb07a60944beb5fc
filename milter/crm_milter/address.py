"""Envelope addresses: parse, normalise, compare, write.

The *normal form* of an address is the key that everything else compares: the local part
unquoted, case-folded and composed (NFC), ``@``, the domain in lower case as A-labels without a
trailing dot. An address without a domain stays without one; the null sender is the empty string.
White space is what SMTP takes for it, SP and HTAB: any other blank is part of the address.
Nothing here raises on what a client may send; only ``mailbox``, which reads what a person
wrote in a file, does.
"""

import re
import unicodedata
from functools import lru_cache

import idna

# Mail to these must reach the people who run the host, whatever a wildcard says
# (RFC 5321 section 4.5.1, RFC 2142); the prefixes are bounces on their way back (SRS, BATV).
PROTECTED = frozenset({"postmaster", "abuse", "mailer-daemon", "double-bounce"})
PROTECTED_PREFIXES = ("srs0=", "srs0+", "srs0-", "srs1=", "srs1+", "srs1-", "prvs=")

_ATEXT = r"[^\x00-\x20\x7f()<>\[\]:;@\\,.\"]"
DOT_ATOM = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*")
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"(?=@|$)', re.DOTALL)
# Most addresses: nothing to unquote, to fold beyond ASCII or to check further.
PLAIN = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?![0-9.]+\Z)(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?\.)+"
    r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
)
BLANKS = " \t"  # RFC 5234: SP and HTAB
_OUTSIDE_COMMENTS = re.compile(r'(?:[^"\\(]|\\.|"(?:[^"\\]|\\.)*+")++', re.DOTALL)
_IN_COMMENT = re.compile(r"\\.|[()]", re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_NOTHING = re.compile(r'(?:[<>,; \t]|"")*+')
_SURROGATE = re.compile("[\ud800-\udfff]")
LONGEST_DOMAIN = 255
_PLAIN_XTEXT = re.compile(r"[!-*,-<>-~]*")


class AddressError(ValueError):
    """What a person wrote is not one deliverable address; the text says why."""


def strip_path(argument: str) -> str:
    """Return a MAIL or RCPT argument without ``<>`` and without a source route.

    This is the spelling that Postfix's delrcpt compares, letter by letter
    (RFC 5321 section 4.1.2 and appendix C; cleanup_milter.c).
    """
    address = argument
    if address.startswith("<") and address.endswith(">"):
        address = address[1:-1]
    if address.startswith("@") and ":" in address:
        address = address.partition(":")[2]
    return address.strip(BLANKS)


def normalise(address: str) -> str:
    """Return the normal form of an address without ``<>``: the key for comparisons."""
    if PLAIN.fullmatch(address):
        return address.lower()
    return _normal(_without_comments(address))


def _normal(address: str) -> str:
    local, domain = split(address)
    return join(folded(local), ascii_domain(domain))


def composed(text: str) -> str:
    """Return text with its letters composed: the form in which addresses are written (NFC)."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)


def folded(local: str) -> str:
    """Return a local part as it is compared: without case, composed (RFC 6532 section 3.1).

    This is the canonical caseless match of Unicode (section 3.13, D145), composed again.
    """
    if local.isascii():
        return local.lower()
    decomposed = unicodedata.normalize("NFD", unicodedata.normalize("NFD", local).casefold())
    return unicodedata.normalize("NFC", decomposed)


def sender(argument: str) -> str:
    """Return the normal form of a MAIL argument, "" for the null sender.

    Postfix takes for that whatever has nothing but comments and separators: <(x)>, <"">, <,>.
    """
    address = strip_path(argument)
    if PLAIN.fullmatch(address):
        return address.lower()
    address = _without_comments(address)
    if _NOTHING.fullmatch(address):
        return ""
    return _normal(address if '"' in address else _ESCAPED.sub(r"\1", address))


def _without_comments(address: str) -> str:
    """Return an address without its comments (RFC 5322), in time linear in its length."""
    if "(" not in address:
        return address
    kept = []
    at = 0
    while at < len(address):
        outside = _OUTSIDE_COMMENTS.match(address, at)
        if outside:
            kept.append(outside[0].strip(BLANKS))
            at = outside.end()
        elif address[at] == "(":
            at = _end_of_comment(address, at)
        else:  # quotes that nothing closes
            kept.append(address[at:])
            break
    return "".join(kept)


def _end_of_comment(address: str, start: int) -> int:
    """Return where a comment ends; one that is not closed takes all that follows."""
    depth = 0
    for token in _IN_COMMENT.finditer(address, start):
        depth += {"(": 1, ")": -1}.get(token[0], 0)
        if not depth:
            return token.end()
    return len(address)


def split(address: str) -> tuple[str, str]:
    """Return the unquoted local part, and the domain ("" where there is none)."""
    address = address.strip(BLANKS)
    quoted = QUOTED.match(address) if address.startswith('"') else None
    if quoted:
        return _ESCAPED.sub(r"\1", quoted[1]), address[quoted.end() + 1 :]
    local, at, domain = address.rpartition("@")
    return (local, domain) if at else (address, "")


def join(local: str, domain: str) -> str:
    """Return ``local@domain``, or the local part alone where there is no domain."""
    return f"{local}@{domain}" if domain else local


@lru_cache(maxsize=1024)
def ascii_domain(domain: str) -> str:
    """Return a domain in lower case as A-labels (RFC 5890), without its trailing dot.

    A domain that IDNA 2008 refuses comes back case-folded: it equals only itself.
    """
    domain = domain.strip(BLANKS).removesuffix(".")
    if domain.isascii():
        return domain.lower()
    if len(domain) > LONGEST_DOMAIN:  # its A-labels are no shorter, and take long to make
        return domain.casefold()
    try:
        return idna.encode(domain, uts46=True).decode("ascii").lower().removesuffix(".")
    except UnicodeError:  # idna.IDNAError is one
        return domain.casefold()


def domain_of(address: str) -> str:
    """Return the domain of an address in normal form."""
    return address.rpartition("@")[2] if "@" in address else ""


def with_parents(domain: str) -> list[str]:
    """Return a domain and those above it, the nearest first."""
    labels = domain.split(".")
    return [".".join(labels[at:]) for at in range(len(labels))]


def local_of(address: str) -> str:
    """Return the local part of an address in normal form."""
    return address.rpartition("@")[0] if "@" in address else address


def as_typed(argument: str, address: str) -> str:
    """Return an address in normal form with its local part as the client spelt it.

    The case of a local part is for its own host to judge (RFC 5321 section 2.4).
    """
    if argument == address:
        return address
    local = local_of(address)
    if argument.isascii() and argument.lower() == address:  # nothing else to resolve
        return argument[: len(local)] + address[len(local) :]
    typed = split(_without_comments(argument))[0]
    if folded(typed) != local:  # Postfix resolved a route, such as "Help%x.example@localhost"
        typed = _spelling(argument, local)
    return join(typed, domain_of(address))


def _spelling(argument: str, local: str) -> str:
    """Return the one way in which an argument spells a local part, or that itself."""
    if not argument.isascii():
        return local
    plain = re.sub(r'[\\"]', "", argument)  # what stands in quotes, or behind a backslash
    found = {
        plain[each.start() : each.end()] for each in re.finditer(re.escape(local), plain.lower())
    }
    return found.pop() if len(found) == 1 else local


def part(typed: str, address: str, start: int, end: int) -> str:
    """Return what in ``typed`` stands for ``address[start:end]``; both are one address.

    ``address`` is the normal form of ``typed``, whose length may differ: "ß" is folded to "ss". A
    part that begins or ends within such a letter comes from the normal form.
    """
    if typed.isascii():
        return typed[start:end]
    cuts = _cuts(typed, address)
    if start not in cuts or end not in cuts:
        return address[start:end]
    return typed[cuts[start] : cuts[end]]


def _cuts(typed: str, address: str) -> dict[int, int]:
    """Return the places between letters: in the normal form, and where each is in ``typed``."""
    cuts = {0: 0}
    at = before = 0
    made: list[str] = []
    for here in range(1, len(typed) + 1):
        if here < len(typed) and unicodedata.combining(typed[here]):
            continue
        letter = folded(typed[before:here])
        made.append(letter)
        before, at = here, at + len(letter)
        cuts[at] = here
    return cuts if "".join(made) == address else {}


def readable(text: str) -> str:
    """Return text with U+FFFD for each octet that is not UTF-8, in the same places."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def without_extension(address: str, delimiters: str) -> str:
    """Return an address in normal form without its extension.

    The first character of the local part that is in ``delimiters`` starts the extension, as
    with ``recipient_delimiter`` in postconf(5): not at the very start, and never in the names
    of the mail system itself.
    """
    local, at, domain = address.rpartition("@")
    if not at:
        local, domain = address, ""
    if local in PROTECTED or ("-" in delimiters and _is_list_owner(local)):
        return address
    ends = [at for at in (local.find(character) for character in delimiters) if at >= 0]
    end = min(ends, default=0)
    return join(local[:end], domain) if end > 0 else address


def _is_list_owner(local: str) -> bool:
    # Postfix's split_addr() spares these when "-" is a delimiter.
    return local.startswith("owner-") or local.endswith("-request")


def is_protected(address: str) -> bool:
    """Tell whether a wildcard must spare this address (in normal form)."""
    local = local_of(address)
    return local in PROTECTED or local.startswith(PROTECTED_PREFIXES)


def written(address: str) -> str:
    """Return an address (unquoted local part) as SMTP writes it: quoted where it has to be."""
    local, at, domain = address.rpartition("@")
    if not at or DOT_ATOM.fullmatch(local):
        return address
    escaped = local.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"@{domain}'


def xtext(text: str) -> str:
    """Return text as xtext (RFC 3461 section 4): what a value of ORCPT may hold."""
    if _PLAIN_XTEXT.fullmatch(text):
        return text
    return "".join(
        chr(byte) if 33 <= byte <= 126 and byte not in b"+=" else f"+{byte:02X}"
        for byte in text.encode("utf-8", "surrogateescape")
    )
