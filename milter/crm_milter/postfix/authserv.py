"""Under which authserv-ids the filters of this host write Authentication-Results."""

import re
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from crm_milter.postfix.placement import placement
from crm_milter.postfix.site import Site
from crm_milter.routing.authentication import identity

_OPENDMARC = ("etc/opendmarc.conf", "etc/opendmarc/opendmarc.conf")
_ID = re.compile(r"(?im)^\s*AuthservID\s+(\S+)")


def ids(site: Site, root: Path = Path("/")) -> set[str]:
    """Return them: the name of the host, and what OpenDMARC's configuration says."""
    services = placement(site).wanted
    written = {identity(site.postconf.value("myhostname", each)) for each in services}
    return written | {*map(identity, _opendmarc(root))}


def _opendmarc(root: Path) -> Iterator[str]:
    for text in texts(root, _OPENDMARC):
        for each in _ID.findall(text):
            yield socket.gethostname() if each == "HOSTNAME" else each


def texts(root: Path, names: tuple[str, ...]) -> Iterator[str]:
    """Yield what is in those of these files that can be read."""
    for name in names:
        with suppress(OSError):
            yield (root / name).read_text("utf-8", "replace")
