"""Which program a milter or a content filter is, and whether it can write a verdict's fields.

Known by a word of its name or path, by what its own configuration says of its socket, or by the
port that it has by default. A program that none of these names is unknown: it may be anything.
"""

import re
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from crm_milter.spam.presets import PRESETS
from crm_milter.spam.verdict import SpamFilter


class Writes(Enum):
    """Whether a program writes one of the header fields that a filter is known by."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Program:
    """``fields`` are those that it can write, None for any; ``ports`` where it listens by itself.

    ``setting`` finds the socket in its configuration.
    """

    name: str
    words: str
    fields: frozenset[str] | None = frozenset()
    ports: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    setting: str = r"(?im)^\s*Socket\s+(.+)$"


def _of(*presets: str) -> frozenset[str]:
    return frozenset(test.name for each in presets for test in PRESETS[each].tests)


_ASSIGNED = (
    r"(?im)^\s*(?:export\s+)?[$]?(?:SOCKET|LISTENPORT|inet_socket_port|listen_sockets)\s*=(.+)$"
)

# The first that fits is meant: "spamassassin-dkim" is a spam filter.
_PROGRAMS = (
    Program(
        "rspamd",
        "rspamd|rmilter",
        _of("rspamd", "spamassassin"),
        ("11332",),
        (
            "etc/rspamd/local.d/worker-proxy.inc",
            "etc/rspamd/override.d/worker-proxy.inc",
            "etc/rspamd/worker-proxy.inc",
        ),
        r"(?im)^\s*bind_socket\s*=\s*(.+)$",
    ),
    Program(
        "amavis",
        "amavisd?|amavisd-new|amavis-milter",
        _of("amavis", "spamassassin"),
        ("10024", "10026"),
        ("etc/amavis/conf.d/*", "etc/amavisd/amavisd.conf", "etc/amavisd.conf"),
        _ASSIGNED,
    ),
    Program(
        "SpamAssassin",
        "spamass(?:assin|-milter)?|spamc|spamd|spampd|spamproxyd?|spmilter",
        _of("spamassassin"),
        (),
        ("etc/default/spamass-milter", "etc/default/spampd", "etc/sysconfig/spamass-milter"),
        _ASSIGNED,
    ),
    Program("bogofilter", "bogofilter|bogom", _of("bogofilter")),
    Program("DSPAM", "dspam", _of("dspam")),
    Program("MIMEDefang", "mimedefang|mailmunge", None),
    Program("MailScanner", "mailscanner|msmilter", None),
    Program(
        "OpenDKIM",
        "opendkim|dkimproxy|dkim-milter|dkimpy-milter|dkim|dk-milter|dkim-filter",
        frozenset(),
        ("8891", "12301"),
        ("etc/opendkim.conf", "etc/dkimpy-milter/dkimpy-milter.conf"),
    ),
    Program(
        "OpenDMARC", "opendmarc|dmarc", frozenset(), ("8893", "54321"), ("etc/opendmarc.conf",)
    ),
    Program("OpenARC", "openarc|arc-milter", frozenset(), (), ("etc/openarc.conf",)),
    Program(
        "clamav-milter",
        "clamav(?:-milter)?|clamsmtpd?|clmilter|clamd|clamfilter",
        frozenset(),
        ("7357",),
        ("etc/clamav/clamav-milter.conf", "etc/mail/clamav-milter.conf"),
        r"(?im)^\s*MilterSocket\s+(.+)$",
    ),
    Program(
        "milter-greylist", "milter-greylist|greylist|postgrey|sqlgrey|gld", frozenset(), ("10023",)
    ),
    Program(
        "pyspf-milter",
        "pyspf-milter|spf-milter|smf-spf|sid-milter|sid-filter|spfmilter|(?:policyd?-)?spf|spf-policyd?",
    ),
    Program("postsrsd", "postsrsd|srs(?:d|-milter)?|srsmilter"),
    Program("a mail archive", "mailpiler|piler|archive|archiver|always-bcc"),
    Program("a disclaimer", "altermime|disclaimer|footer"),
    Program("an encryption gateway", "zeyple|gpg-mailgate|ciphermail|djigzo|signmilter"),
    Program("mlmmj", "mlmmj|mailman|sympa"),
)


def program(text: str, root: Path = Path("/")) -> Program | None:
    """Return what a milter's address, or a filter's destination and command, stands for."""
    named = (
        each for each in _PROGRAMS if re.search(rf"(?i)(?<![a-z])(?:{each.words})(?![a-z])", text)
    )
    return next(named, None) or _by_configuration(text, root) or _by_port(text)


def _by_port(text: str) -> Program | None:
    ports = set(re.findall(r"(?<=:)\d+(?=\s|$)", text))
    return next((each for each in _PROGRAMS if ports.intersection(each.ports)), None)


def _by_configuration(text: str, root: Path) -> Program | None:
    """Return the program whose own configuration names this port or socket."""
    place = text.split()[0].rpartition(":")[2] if text.split() else ""
    if len(place) < 2:
        return None
    own = re.compile(rf"(?<![\w/.-]){re.escape(place)}(?![\w/-])|{_tail(place)}")
    return next((each for each in _PROGRAMS if _names(each, own, root)), None)


def _tail(place: str) -> str:
    """Return what ends a socket's path as seen from outside a chroot."""
    return rf"/{re.escape(place.lstrip('/'))}(?![\w/-])" if "/" in place else r"(?!)"


def _names(each: Program, own: re.Pattern[str], root: Path) -> bool:
    paths = (path for pattern in each.files for path in sorted(root.glob(pattern)))
    return any(own.search(found) for path in paths for found in _sockets(path, each.setting))


def _sockets(path: Path, setting: str) -> list[str]:
    try:
        return re.findall(setting, path.read_text("utf-8", "replace"))
    except OSError:
        return []


def writes(text: str, spam_filter: SpamFilter) -> Writes:
    """Tell whether what is named so can write the fields of a filter."""
    found = program(text)
    if found is None or found.fields is None:
        return Writes.UNKNOWN
    if not found.fields:
        return Writes.NO
    if spam_filter.name not in PRESETS:
        return Writes.UNKNOWN  # a field of one's own, which a spam filter may be told to write
    names = {test.name for test in spam_filter.tests}
    return Writes.YES if names & found.fields else Writes.NO
