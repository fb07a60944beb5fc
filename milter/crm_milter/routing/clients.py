"""Who hands a message in: from this host itself, or from a network that a person named."""

import ipaddress
from collections.abc import Iterable
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_MAPPED = "::ffff:"


def is_local(client: str) -> bool:
    """Tell whether a client's address is one of this host's loopback, or a Unix socket."""
    if client.startswith("/"):
        return True
    address = _parsed(client)
    return address is not None and address.is_loopback


def is_within(client: str, networks: Iterable[Network]) -> bool:
    """Tell whether a client's address is in one of these networks."""
    address = _parsed(client)
    return address is not None and any(address in network for network in networks)


@lru_cache(maxsize=1024)
def _parsed(client: str) -> _Address | None:
    text = client.lower().removeprefix("ipv6:").partition("%")[0]
    try:
        return ipaddress.ip_address(text.removeprefix(_MAPPED) if "." in text else text)
    except ValueError:
        return None


def network(text: str) -> Network:
    """Return an address or a network that a person wrote; raises ValueError."""
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        if "/" in text and _parsed(text.partition("/")[0]):
            try:
                meant = ipaddress.ip_network(text, strict=False)
            except ValueError:
                pass
            else:
                raise ValueError(f'"{text}" has host bits set; write "{meant}"') from None
        raise ValueError(
            f'"{text}" is not a network, such as 192.0.2.0/24 or 2001:db8::/32'
        ) from None
