"""The meaning of single values of the configuration: each function takes a text, and raises
ValueError, saying what was expected, for one that it does not understand.
"""  # noqa: D205

import re

from crm_milter.config import files as tables
from crm_milter.config.files import Files
from crm_milter.mailbox import mailbox
from crm_milter.precis import named
from crm_milter.routing import authentication
from crm_milter.routing.marker import MARKER_FIELD
from crm_milter.rules import pattern as patterns
from crm_milter.rules.flood import Flood, Limit
from crm_milter.rules.rule import AddressMap, AutomaticClass
from crm_milter.spam import presets, verdict
from crm_milter.wording import suggestion

PLACEHOLDERS = ("recipient", "rule", "spam")  # what edits.py fills in
_FIELD_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322, section 2.2
_RULE_NAME = re.compile(r"[a-z0-9._-]+", re.ASCII)
_GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?", re.ASCII)
_MODE = re.compile(r"(0o?)?([0-7]{3})", re.ASCII)
_DECIMAL_MODE = re.compile(r"[1-9][0-9]{2}", re.ASCII)
_SIZE = re.compile(r"([0-9]{1,12}) ?(?:([kKmMgG])(?:i?[bB])?|[bB])?", re.ASCII)
_DURATION = re.compile(r"([0-9]{1,12}) ?([smhd]?)", re.ASCII)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_LIMIT = re.compile(r"([0-9]{1,9}) in ([0-9]{1,9}) ?([smhd]?)", re.ASCII)
MAX_MESSAGES = 1_000_000
LONGEST_LIMIT = 7 * 86400  # seconds
LONGEST_DRAIN = 86400  # seconds
_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30}
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
# RFC 5322, section 2.1.1, with room for a long recipient.
_LONGEST_VALUE = 500
# Fields that stand once, that authenticate or trace a message, or that keep it from looping.
_TAKEN_FIELDS = frozenset(
    {
        *("from", "sender", "reply-to", "to", "cc", "bcc", "message-id", "in-reply-to"),
        *("references", "subject", "date", "received", "return-path", "mime-version"),
        *("dkim-signature", "domainkey-signature", "authentication-results", "received-spf"),
        *("auto-submitted", "precedence", MARKER_FIELD.lower()),
    }
)
_TAKEN_PREFIXES = ("content-", "resent-", "arc-", "list-")
# What may stand in a local part without quotes, less letters and digits.
_DELIMITERS = frozenset("!#$%&'*+-./=?^_`{|}~")


def socket_mode(text: str) -> int:
    """Return the permissions of a socket: three octal digits.

    With a zero in front they are surely octal. Without one they may be what other tools make of
    0660, which is 432: only permissions for the owner, and none for others, are taken then.
    """
    found = _MODE.fullmatch(text)
    mode = int(found[2], 8) if found else 0
    if found and found[1] and not mode & 0o222:
        raise ValueError(f'no process could connect with "{text}"; write "0660"')
    if not found or (not found[1] and mode & 0o600 != 0o600):
        expected = f'expected permissions in octal, such as "0660", not "{text}"'
        raise ValueError(f"{expected}{_meant_as_octal(text)}{_foreign(text)}")
    if not found[1] and mode & 0o007:
        message = f'"{text}" lets every user of the host connect; write "{mode & 0o770:04o}"'
        raise ValueError(message)
    return mode


def _meant_as_octal(text: str) -> str:
    mode = int(text) if _DECIMAL_MODE.fullmatch(text) else 0
    if not 0o600 <= mode <= 0o777:
        return ""
    return f' ({text} is octal {mode:04o} in decimal: write "{mode & 0o770:04o}")'


def group(text: str) -> str:
    """Return the name of a group of the system."""
    if not _GROUP.fullmatch(text):
        raise ValueError(f'"{text}" is not a valid group name{_foreign(text)}')
    return text


def delimiters(text: str) -> str:
    """Return the characters that start an extension."""
    wrong = next((character for character in text if character not in _DELIMITERS), None)
    if wrong is not None:
        raise ValueError(f'"{wrong}" cannot start an extension; expected one or more of "+-_=."')
    return text


def is_rule_name(text: str) -> bool:
    """Tell whether a rule may have this name."""
    return bool(_RULE_NAME.fullmatch(text))


def rule_name(text: str) -> str:
    """Return the name of a rule: a label in logs and metrics."""
    if not is_rule_name(text):
        raise ValueError(
            f'"{text}" is not a valid name{_foreign(text)}; use only a-z, 0-9, ".", "_" and "-"'
        )
    return text


def _foreign(text: str) -> str:
    """Return which character is not ASCII, since many look as if they were."""
    found = next((each for each in text if not each.isascii()), "")
    return f" because of {named(found)}" if found else ""


def pattern(text: str, files: Files) -> patterns.Pattern:
    """Return what a rule matches."""
    if text.startswith("file:"):
        name = text.removeprefix("file:").strip()
        if not name:
            raise ValueError('"file:" requires a file name')
        return patterns.AddressList(text, files.read(name, tables.address_list))
    return patterns.parse(text)


def sender_pattern(text: str, files: Files) -> patterns.Pattern:
    """Return what a rule says of the envelope sender."""
    return patterns.NullSender() if text == "<>" else pattern(text, files)


def address_map(text: str, files: Files) -> AddressMap:
    """Return the table in a file; one in SQLite is asked when there is mail."""
    kind, colon, path = text.partition(":")
    if colon and kind == "sqlite":
        if not path.strip():
            raise ValueError('"sqlite:" requires a file name')
        return AddressMap(text, {}, files.live(path.strip()))
    return AddressMap(text, files.read(text, tables.address_map))


def accounts(text: str, files: Files) -> frozenset[str]:
    """Return the addresses that have an account."""
    return files.read(text, tables.accounts)


def dead_letters(text: str) -> str:
    """Return the mailbox for what a target refuses: the envelope sender of what is rerouted."""
    address = mailbox(text)
    if not address.isascii():
        raise ValueError(
            f'"{text}" needs SMTPUTF8, which few CRMs offer: they would reject all mail from it;'
            " use an address in ASCII"
        )
    return address


def automatic(text: str) -> frozenset[AutomaticClass]:
    """Return the classes of automatic mail that are left, all or none."""
    if text not in ("route", "leave"):
        hint = suggestion(text, ["route", "leave"])
        raise ValueError(
            f'expected "route", "leave" or a mapping such as {{reply: leave}}, not "{text}"{hint}'
        )
    return frozenset(AutomaticClass) if text == "leave" else frozenset()


def authserv_id(text: str) -> str:
    """Return the name that a filter writes first into Authentication-Results (RFC 8601)."""
    if not text or set(text) & set(' \t;()"=/,<>') or not text.isprintable():
        raise ValueError(
            f'"{text}" is not a valid authserv-id; expected the word before the first ";" of'
            " Authentication-Results, such as mail.solarmora.com"
        )
    return authentication.identity(text)


def flood(text: str) -> Flood:
    """Return the flood guard by what is known of the CRM."""
    if text != "auto":
        raise ValueError(f'expected "auto" or a mapping such as {{limit: 10 in 60s}}, not "{text}"')
    return Flood()


def limit(text: str) -> Limit | None:
    """Return a limit, None for that of the CRM."""
    if text == "auto":
        return None
    found = _LIMIT.fullmatch(text)
    if not found:
        raise ValueError(
            'expected a number of messages in a time, such as "10 in 60s", or "auto",'
            f' not "{text}"{_foreign(text)}'
        )
    count, seconds = int(found[1]), int(found[2]) * _SECONDS[found[3]]
    if not 1 <= count <= MAX_MESSAGES or not 1 <= seconds <= LONGEST_LIMIT:
        raise ValueError(
            f'"{text}" is out of range: 1 to {MAX_MESSAGES} messages in 1 second to 7 days'
        )
    return Limit(count, seconds)


def size(text: str) -> int:
    """Return a size in bytes; k, M and G are powers of 1024, whatever follows them."""
    found = _SIZE.fullmatch(text)
    if not found:
        raise ValueError(
            f'expected bytes, or a number with k, M or G, such as "25M" or "500 kB", not "{text}"'
            f"{_foreign(text)}"
        )
    if not int(found[1]):
        raise ValueError("a limit of 0 would exclude all mail; omit the key for no limit")
    return int(found[1]) << _SHIFTS[(found[2] or "").upper()]


def span(text: str, most: int, words: str) -> int:
    """Return a time in seconds, at least one and up to ``most``, which is written in ``words``."""
    found = _DURATION.fullmatch(text)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < seconds <= most:
        raise ValueError(
            f'expected a number of seconds, or one with s, m, h or d, such as "90m" or "2h", up to'
            f' {words}, not "{text}"{_foreign(text)}'
        )
    return seconds


def drain_timeout(text: str) -> int:
    """Return a time in seconds, up to a day."""
    found = _DURATION.fullmatch(text)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else -1
    if not 0 <= seconds <= LONGEST_DRAIN:
        raise ValueError(
            "expected a number of seconds up to 86400, or one with s, m or h, such as"
            f' "90s" or "5m", not "{text}"{_foreign(text)}'
        )
    return seconds


def spam_filter(text: str) -> verdict.SpamFilter:
    """Return the preset of this name; MailScanner's carries the name of the site."""
    name, colon, organisation = text.partition(":")
    if name == "mailscanner":
        if not _FIELD_NAME.fullmatch(organisation):
            raise ValueError(
                "MailScanner puts the name of your site in its header field: write"
                ' "mailscanner:ORG" for "X-ORG-MailScanner-SpamCheck"'
            )
        return presets.mailscanner(organisation)
    if text not in presets.PRESETS or colon:
        known = [*presets.PRESETS, "mailscanner:ORG"]
        hint = suggestion(text, known) or f"; known presets are {', '.join(known)}"
        raise ValueError(f'unknown spam filter preset "{text}"{hint}')
    return presets.PRESETS[text]


def field_name(text: str) -> str:
    if not _FIELD_NAME.fullmatch(text):
        raise ValueError(f'"{text}" is not a valid header field name{_foreign(text)}')
    return text


def new_field_name(text: str) -> str:
    """Return the name of a header field that may be added without changing what mail means."""
    name = field_name(text).lower()
    if name in _TAKEN_FIELDS or name.startswith(_TAKEN_PREFIXES):
        raise ValueError(
            "adding this field would change the meaning of the message; use a field of your own"
        )
    return text


def new_field_value(text: str) -> str:
    """Return the value of a header field to add, with placeholders."""
    if not text.strip():
        raise ValueError("the value is empty")
    if not (text.isascii() and text.isprintable()):
        raise ValueError(f'"{text}" contains characters other than printable ASCII')
    if len(text) > _LONGEST_VALUE:
        raise ValueError(f"{len(text)} characters; the limit is {_LONGEST_VALUE}")
    for placeholder in _PLACEHOLDER.findall(text):
        if placeholder not in PLACEHOLDERS:
            known = ", ".join(f'"{{{each}}}"' for each in PLACEHOLDERS)
            raise ValueError(
                f'unknown placeholder "{{{placeholder}}}"; known placeholders are {known}'
            )
    return text


def field_value(text: str) -> str:
    """Return a pattern for the value of a header field."""
    if not text.strip():
        raise ValueError("the value is empty")
    return text
