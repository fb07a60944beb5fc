"""The two columns of a table of routes: the key and the targets, as a person writes them."""

import re

from crm_milter import address as addresses
from crm_milter import mailbox

# Postfix takes a thousand recipients of one message, and each costs a delivery.
MOSTTARGETS = 100

TARGET = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^\s,])+', re.ASCII)


def key(text: str) -> str:
    """Return an address in normal form, or ``@domain``; raises AddressError."""
    if text.startswith("@"):
        return f"@{mailbox.checked_domain(text[1:])}"
    if "*" in text:
        message = (
            f'the "*" in "{text}" is not supported in a table; use "@DOMAIN" for a whole domain'
        )
        raise addresses.AddressError(message)
    return addresses.normalise(mailbox.mailbox(text))


def targets(value: str) -> tuple[str, ...]:
    """Return the different targets, at least one; raises AddressError."""
    if "," not in value and " " not in value and "\t" not in value and value:
        return (_target(value),)
    found = tuple(map(_target, TARGET.findall(value)))
    if not found:
        raise addresses.AddressError('missing target: an entry is "ADDRESS TARGET"')
    if len(found) > MOSTTARGETS:
        raise addresses.AddressError(f"{len(found)} targets; the limit is {MOSTTARGETS}")
    different: dict[str, str] = {}
    for target in found:
        different.setdefault(addresses.normalise(target), target)
    return tuple(different.values())


def _target(text: str) -> str:
    if text.startswith("#"):
        raise addresses.AddressError("a comment must be on a line of its own")
    if text.startswith("@"):
        raise addresses.AddressError(f'a target must be a full address, not "{text}"')
    return mailbox.mailbox(text)
