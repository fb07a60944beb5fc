"""Envelope addresses: parse, normalise, compare, write.

The *normal form* of an address is the key that everything else compares: the local part
unquoted and case-folded, ``@``, the domain in lower case as A-labels without a trailing dot.
An address without a domain stays without one; the null sender is the empty string.
Nothing here raises on what a client may send; only ``mailbox``, which reads what a person
wrote in a file, does.
"""

import re
from functools import lru_cache

import idna

# Mail to these must reach the people who run the host, whatever a wildcard says
# (RFC 5321 section 4.5.1, RFC 2142); the prefixes are bounces on their way back (SRS, BATV).
PROTECTED = frozenset({"postmaster", "abuse", "mailer-daemon", "double-bounce"})
PROTECTED_PREFIXES = ("srs0=", "srs0+", "srs0-", "srs1=", "srs1+", "srs1-", "prvs=")

_ATEXT = r"[^\x00-\x20\x7f()<>\[\]:;@\\,.\"]"
_DOT_ATOM = re.compile(rf"{_ATEXT}+(?:\.{_ATEXT}+)*")
_DOMAIN = re.compile(r"(?!-)[a-z0-9_-]+(?:\.[a-z0-9_-]+)*", re.ASCII)
_LITERAL = re.compile(r"\[[0-9a-z:.-]+\]", re.ASCII)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"(?=@|$)', re.DOTALL)
# Most addresses: nothing to unquote, to fold beyond ASCII or to check further.
_PLAIN = re.compile(
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?:[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,62})\.)+[A-Za-z0-9_][A-Za-z0-9_-]{0,62}"
)
_LONGEST_PLAIN = 255
_PLAIN_XTEXT = re.compile(r"[!-*,-<>-~]*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


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
    return address.strip()


def normalise(address: str) -> str:
    """Return the normal form of an address without ``<>``: the key for comparisons."""
    if _PLAIN.fullmatch(address):
        return address.lower()
    local, domain = split(_without_comment(address))
    return join(local.casefold(), ascii_domain(domain))


def _without_comment(address: str) -> str:
    """Return an address without the comment at its end, in time linear in its length."""
    end = address.rstrip()
    start = end.rfind("(")
    if start < 0 or not end.endswith(")") or ")" in end[start:-1]:
        return address
    return end[:start].rstrip()


def split(address: str) -> tuple[str, str]:
    """Return the unquoted local part, and the domain ("" where there is none)."""
    address = address.strip()
    quoted = _QUOTED.match(address) if address.startswith('"') else None
    if quoted:
        return re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL), address[quoted.end() + 1 :]
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
    domain = domain.strip().removesuffix(".")
    if domain.isascii():
        return domain.lower()
    try:
        return idna.encode(domain, uts46=True).decode("ascii").lower()
    except UnicodeError:  # idna.IDNAError is one
        return domain.casefold()


def domain_of(address: str) -> str:
    """Return the domain of an address in normal form."""
    return address.rpartition("@")[2] if "@" in address else ""


def local_of(address: str) -> str:
    """Return the local part of an address in normal form."""
    return address.rpartition("@")[0] if "@" in address else address


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
    if not at or _DOT_ATOM.fullmatch(local):
        return address
    escaped = local.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"@{domain}'


def mailbox(text: str) -> str:
    """Return one address that a person wrote, in SMTP's spelling with an ASCII domain.

    The case of the local part is kept. Raises AddressError, saying what is wrong, for the null
    sender, several addresses, a missing or malformed domain, and control characters.
    """
    if len(text) <= _LONGEST_PLAIN and _PLAIN.fullmatch(text):
        local, _, domain = text.rpartition("@")
        return f"{local}@{domain.lower()}"
    if text.strip() in ("", "<>"):
        raise AddressError('an empty address ("" or "<>") is not a recipient')
    if text.startswith("<") or text.endswith(">"):
        raise AddressError(f'remove the angle brackets from "{text}"')
    local, domain = split(text)
    if _has_several(text):
        raise AddressError(f'expected one address, but "{text}" looks like several')
    if not domain:
        raise AddressError(f'"{text}" has no domain')
    if not local:
        raise AddressError(f'"{text}" has no local part')
    domain = checked_domain(domain)
    if _CONTROL.search(text) or "\\\n" in text:
        raise AddressError(f"{text!r} contains a control character")
    if not text.startswith('"') and not _DOT_ATOM.fullmatch(local):
        raise AddressError(f'the local part of "{text}" is misspelt or must be quoted')
    return written(join(local, domain))


def _has_several(text: str) -> bool:
    unquoted = _QUOTED.sub("q", text)
    return "," in unquoted or ";" in unquoted or unquoted.count("@") > 1


def checked_domain(text: str) -> str:
    """Return a domain that a person wrote as A-labels; raises AddressError."""
    domain = ascii_domain(text)
    if not (_DOMAIN.fullmatch(domain) or _LITERAL.fullmatch(domain)) or len(domain) > 255:
        raise AddressError(f'"{text}" is not a valid domain')
    return domain


def is_deliverable(address: str) -> bool:
    """Tell whether an address built from a pattern's groups can be put into an envelope."""
    local, domain = local_of(address), domain_of(address)
    fits = 0 < len(local.encode("utf-8", "replace")) <= 255 and not _CONTROL.search(local)
    return fits and bool(_DOMAIN.fullmatch(domain) or _LITERAL.fullmatch(domain))


def xtext(text: str) -> str:
    """Return text as xtext (RFC 3461 section 4): what a value of ORCPT may hold."""
    if _PLAIN_XTEXT.fullmatch(text):
        return text
    return "".join(
        chr(byte) if 33 <= byte <= 126 and byte not in b"+=" else f"+{byte:02X}"
        for byte in text.encode("utf-8", "surrogateescape")
    )
