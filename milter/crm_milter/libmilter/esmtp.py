"""The arguments of MAIL and RCPT as a milter gets them: octets to text and ESMTP parameters."""

import re

# smtpd takes blanks in quotes: without a look, a client could write parameters of ours.
_UNSAFE_ORCPT = re.compile(r"[\x00-\x20\x7f\ud800-\udfff]")
_EMBEDDED = re.compile(r"\\x\{([0-9A-F]{2,6})\}")


def text(octets: bytes) -> str:
    """Return octets as text; those that are not UTF-8 become lone surrogates (PEP 383)."""
    return octets.decode("utf-8", "surrogateescape")


def parameters(arguments: tuple[bytes, ...]) -> dict[str, str]:
    """Return ESMTP parameters (RFC 5321 section 4.1.2), keywords in upper case."""
    parted = (argument.partition(b"=") for argument in arguments)
    return {text(keyword.upper()): text(value) for keyword, _, value in parted}


def upper(value: str) -> str:
    """Return ASCII in upper case: Unicode would make letters of SMTP of others, such as U+017F."""
    return value.upper() if value.isascii() else value


def orcpt_to_pass_on(orcpt: str) -> str:
    """Return the client's ORCPT as addrcpt takes it, "" where it cannot be one parameter.

    addrcpt knows xtext, but not the encoding of RFC 6533 section 3: that becomes UTF-8.
    """
    if orcpt[:6].lower() == "utf-8;":
        orcpt = _EMBEDDED.sub(lambda found: _decoded(int(found[1], 16)), orcpt)
    return "" if _UNSAFE_ORCPT.search(orcpt) else orcpt


def _decoded(code: int) -> str:
    if code < 0x80:
        return f"+{code:02X}"
    return chr(code) if code <= 0x10FFFF else " "  # no character: refused with the rest
