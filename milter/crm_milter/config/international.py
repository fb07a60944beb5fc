"""Addresses in letters beyond ASCII that are allowed, but hardly meant or hardly delivered."""

import idna

from crm_milter import address as addresses
from crm_milter import precis


def risk(target: str) -> str:
    """Return what may keep the mail from an address that receives it, "" for nothing."""
    if not addresses.split(target)[0].isascii():
        return f'"{target}" can only be delivered to a server that supports SMTPUTF8'
    return lookalike(target)


def lookalike(address: str) -> str:
    """Return what is odd about the letters of an address or pattern, "" for nothing."""
    if address.isascii() and "xn--" not in address:
        return ""
    local, at, domain = address.rpartition("@")
    return precis.mixed(f"{local}{at}{_unicode(domain)}")


def _unicode(domain: str) -> str:
    try:
        return idna.decode(domain)
    except UnicodeError:
        return domain
