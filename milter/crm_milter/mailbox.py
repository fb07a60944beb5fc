"""Addresses as a person writes them in a file: read, checked, and put together."""

import re

from crm_milter.address import (
    BLANKS,
    DOT_ATOM,
    LONGEST_DOMAIN,
    PLAIN,
    QUOTED,
    AddressError,
    ascii_domain,
    composed,
    domain_of,
    join,
    local_of,
    split,
    written,
)
from crm_milter.precis import complaint, disallowed, invisible

# As Postfix has it (valid_hostname.c): no hyphen at the ends of a label, not digits alone.
_LABEL = "(?!-)[a-z0-9_-]{1,63}(?<!-)"
_DOMAIN = re.compile(rf"(?![0-9.]+\Z){_LABEL}(?:\.{_LABEL})*", re.ASCII)
_LITERAL = re.compile(r"\[[0-9a-z:.-]+\]", re.ASCII)
_LONGEST_PLAIN = 255
# RFC 5321 section 4.5.3.1, in octets.
_LONGEST_LOCAL = 64
_LONGEST_ADDRESS = 254
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def mailbox(text: str) -> str:
    """Return one address that a person wrote, in SMTP's spelling with an ASCII domain.

    The case of the local part is kept, its letters are composed (NFC). Raises AddressError, saying
    what is wrong, for the null sender, several addresses, a missing or malformed domain, and what
    no address may hold: control characters, and those that PRECIS keeps out.
    """
    if len(text) <= _LONGEST_PLAIN and PLAIN.fullmatch(text):
        local, _, domain = text.rpartition("@")
        return f"{local}@{domain.lower()}"
    if text.strip(BLANKS) in ("", "<>"):
        raise AddressError('an empty address ("" or "<>") is not a recipient')
    if text.startswith("<") or text.endswith(">"):
        raise AddressError(f'remove the angle brackets from "{text}"')
    local, domain = split(text)
    check_letters(text, local)
    if _has_several(text):
        raise AddressError(f'expected one address, but "{text}" looks like several')
    if not domain:
        raise AddressError(f'"{text}" has no domain')
    if not local:
        raise AddressError(f'"{text}" has no local part')
    domain = checked_domain(domain)
    if _CONTROL.search(text) or "\\\n" in text:
        raise AddressError(f"{text!r} contains a control character")
    if not text.startswith('"') and not DOT_ATOM.fullmatch(local):
        raise AddressError(f'the local part of "{text}" is misspelt or must be quoted')
    return written(join(composed(local), domain))


def check_letters(text: str, local: str = "") -> None:
    """Raise AddressError for a character that cannot be seen, or that no local part may hold."""
    wrong = invisible(text) or disallowed(local)
    if wrong:
        raise AddressError(complaint(text, wrong))


def _has_several(text: str) -> bool:
    unquoted = QUOTED.sub("q", text)
    return "," in unquoted or ";" in unquoted or unquoted.count("@") > 1


def checked_domain(text: str) -> str:
    """Return a domain that a person wrote as A-labels; raises AddressError."""
    check_letters(text)  # IDNA leaves some of them out without a word (UTS 46 section 4)
    domain = ascii_domain(text)
    if not _is_domain(domain):
        raise AddressError(f'"{text}" is not a valid domain')
    return domain


def is_deliverable(address: str, like: str = "") -> bool:
    """Tell whether a mailbox can have an address (unquoted) that was put together.

    ``like`` is the local part that a person wrote. Only if that needs quotes or UTF-8 may the
    address need them, since the address of a CRM has neither.
    """
    local, domain = local_of(address), domain_of(address)
    if not local.isascii() and (like.isascii() or disallowed(local)):
        return False
    if not DOT_ATOM.fullmatch(local) and (
        not like or DOT_ATOM.fullmatch(like) or _CONTROL.search(local)
    ):
        return False
    length = len(local.encode())
    fits = 0 < length <= _LONGEST_LOCAL and length + 1 + len(domain) <= _LONGEST_ADDRESS
    return fits and _is_domain(domain)


def _is_domain(domain: str) -> bool:
    known = _DOMAIN.fullmatch(domain) or _LITERAL.fullmatch(domain)
    return bool(known) and len(domain) <= LONGEST_DOMAIN
