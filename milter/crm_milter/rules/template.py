"""The template of a target: an address, filled in with what a pattern took."""

import re
from dataclasses import dataclass

from crm_milter import address as addresses
from crm_milter import mailbox
from crm_milter.rules.pattern import Groups, PatternError

_REFERENCE = re.compile(r"\\([0-9])")


@dataclass(frozen=True, slots=True)
class Template:
    r"""What ``replace_with`` says: ``user@domain``, ``@domain`` or ``user@``, with ``\1`` in it.

    An absent local part or domain (None) is kept from the recipient. A constant has neither.
    """

    source: str
    local: str | None
    domain: str | None
    constant: str | None = None  # the target, where every recipient comes to the same

    @property
    def is_constant(self) -> bool:
        """Tell whether every recipient comes to the same target."""
        return self.constant is not None

    def references(self) -> frozenset[int]:
        """Return the numbers of the groups that the template uses."""
        text = f"{self.local or ''}@{self.domain or ''}"
        return frozenset(int(number) for number in _REFERENCE.findall(text))

    def fill(self, address: str, groups: Groups) -> str | None:
        """Return the target for a recipient, None if no mailbox can have that address.

        The domain of the recipient is in normal form, its local part as the client spelt it.
        """
        if self.constant is not None:
            return self.constant
        local = addresses.local_of(address)
        if self.local is not None:
            if _leaves_a_gap(self.local, groups):
                return None
            local = _fill(self.local, groups)
        domain = (
            addresses.domain_of(address)
            if self.domain is None
            else addresses.ascii_domain(_fill(self.domain, groups))
        )
        target = addresses.join(local, domain)
        like = _REFERENCE.sub("x", self.local or "")
        return target if mailbox.is_deliverable(target, like) else None


def _fill(text: str, groups: Groups) -> str:
    return _REFERENCE.sub(lambda found: groups[int(found[1]) - 1], text)


# An empty group between separators: "case-\1" would become "case-", which is not an address.
_GAP = re.compile(r"(?:\A|[\W_])\0+(?:[\W_]|\Z)")


def _leaves_a_gap(text: str, groups: Groups) -> bool:
    return bool(_GAP.search(_REFERENCE.sub(lambda found: groups[int(found[1]) - 1] or "\0", text)))


def template(text: str) -> Template:
    """Return the template that a person wrote; raises PatternError."""
    sample = _REFERENCE.sub("x", text)
    if text.startswith('"') and (sample != text or text.endswith("@")):
        raise PatternError(
            f'"{text}" is not supported: a local part in quotes has to be a whole address without'
            r' "\1"'
        )
    if "\\0" in text:
        raise PatternError(r'groups count from "\1"; there is no "\0"')
    try:
        if text.startswith("@"):
            mailbox.checked_domain(sample[1:])
            return Template(text, None, text[1:])
        if text.endswith("@"):
            _check_made(f"{sample}x.example", text)
            return Template(text, addresses.composed(text[:-1]), None)
        written = mailbox.mailbox(sample)
    except addresses.AddressError as error:
        raise PatternError(str(error)) from error
    if sample == text:
        # Often there are very many of them: nothing is kept twice.
        return Template(written if written == text else text, None, None, constant=written)
    _check_made(written, text)
    local, _, domain = addresses.composed(text).rpartition("@")
    return Template(text, local, domain)


def _check_made(sample: str, text: str) -> None:
    """Refuse a template that no group could make an address of."""
    local, domain = addresses.split(mailbox.mailbox(sample))
    if not mailbox.is_deliverable(addresses.join(local, domain), local):
        raise PatternError(f'no mailbox can have an address as long as "{text}"')
