"""The meaning of single values of the configuration: each function takes a text, and raises
ValueError, saying what was expected, for one that it does not understand.
"""  # noqa: D205

import ipaddress
import re
from dataclasses import dataclass

from crm_milter import pattern as patterns
from crm_milter import verdict
from crm_milter.problem import suggestion

# sockaddr_un(7): 108 bytes with the NUL at the end.
LONGEST_SOCKET_PATH = 107


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A listener in the file system."""

    path: str

    @property
    def libmilter(self) -> str:
        """Return the listener as smfi_setconn takes it."""
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class InetSocket:
    """A listener on TCP; ``family`` is "inet" or "inet6", the host a name or a number."""

    family: str
    port: int
    host: str

    @property
    def libmilter(self) -> str:
        """Return the listener as smfi_setconn takes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.family}:{self.port}@{host}"


Listener = UnixSocket | InetSocket

_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_HOST = re.compile(r"(?!-)[a-z0-9_-]+(?:\.[a-z0-9_-]+)*", re.ASCII | re.IGNORECASE)
_FIELD_NAME = re.compile(r"[!-9;-~]+")  # RFC 5322, section 2.2
_RULE_NAME = re.compile(r"[a-z0-9._-]+", re.ASCII)
_GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\$?", re.ASCII)
_MODE = re.compile(r"0?[0-7]{3}", re.ASCII)
# What may stand in a local part without quotes, less letters and digits.
_DELIMITERS = frozenset("!#$%&'*+-./=?^_`{|}~")


def listener(text: str) -> Listener:
    """Return the listener that ``milter.listen`` names."""
    family, colon, rest = text.partition(":")
    if family == "unix" and colon:
        return _unix(rest)
    if family in ("inet", "inet6") and colon:
        return _inet(family, rest)
    hint = f'; write "unix:{text}"' if text.startswith("/") else ""
    hint = f'; write "unix:{rest}"' if family == "local" else hint
    raise ValueError(f'expected "unix:PATH", "inet:PORT@HOST" or "inet6:PORT@HOST"{hint}')


def _unix(path: str) -> UnixSocket:
    if not path or path.endswith("/"):
        raise ValueError(f'"unix:{path}" names no socket')
    return UnixSocket(path)


def _inet(family: str, text: str) -> InetSocket:
    example = "127.0.0.1" if family == "inet" else "::1"
    port, _, host = text.partition("@")
    if not host:
        swapped, _, number = text.rpartition(":")
        meant = (number, swapped) if _PORT.fullmatch(number) and swapped else (port, example)
        raise ValueError(f'a host is required; write "{family}:{meant[0]}@{meant[1]}"')
    host = host.removeprefix("[").removesuffix("]")
    return InetSocket(family, _port(port), _host(host, family))


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or not 0 < int(text) < 65536:
        raise ValueError(f'"{text}" is no port; expected 1 to 65535')
    return int(text)


def _host(text: str, family: str) -> str:
    try:
        version = {4: "inet", 6: "inet6"}[ipaddress.ip_address(text).version]
    except ValueError:
        if _HOST.fullmatch(text) and not text.rpartition(".")[2].isdigit():
            return text
        raise ValueError(f'"{text}" is no host') from None
    if family not in ("", version):
        raise ValueError(f'"{text}" is an address for "{version}:", not for "{family}:"')
    return text


def exporter_address(text: str) -> tuple[str, int] | None:
    """Return host and port of ``metrics.listen``, None for ``none``."""
    if text == "none":
        return None
    host, colon, port = text.rpartition(":")
    if not host:
        example = f"127.0.0.1:{port}" if colon else "127.0.0.1:9894"
        raise ValueError(f'expected "HOST:PORT", such as "{example}", or "none"')
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f'write an IPv6 address in brackets: "[{host}]:{port}"')
    return _host(host.removeprefix("[").removesuffix("]"), ""), _port(port)


def socket_mode(text: str) -> int:
    """Return the permissions of a socket: three octal digits."""
    if not _MODE.fullmatch(text):
        raise ValueError(f'expected permissions in octal, such as "0660", not "{text}"')
    return int(text, 8)


def group(text: str) -> str:
    """Return the name of a group of the system."""
    if not _GROUP.fullmatch(text):
        raise ValueError(f'"{text}" is no name of a group')
    return text


def delimiters(text: str) -> str:
    """Return the characters that start an extension."""
    wrong = next((character for character in text if character not in _DELIMITERS), None)
    if wrong is not None:
        raise ValueError(f'"{wrong}" cannot start an extension; expected one or more of "+-_=."')
    return text


def rule_name(text: str) -> str:
    """Return the name of a rule: a label in logs and metrics."""
    if not _RULE_NAME.fullmatch(text):
        raise ValueError(f'"{text}" is no name: use a-z, 0-9, ".", "_" and "-"')
    return text


def pattern(text: str) -> patterns.Pattern:
    """Return what a rule matches."""
    if text.startswith("file:"):
        raise ValueError(f'"{text}": address lists are not yet supported')
    return patterns.parse(text)


def spam_filter(text: str) -> verdict.SpamFilter:
    """Return the preset of this name; MailScanner's carries the name of the site."""
    name, colon, organisation = text.partition(":")
    if name == "mailscanner":
        if not _FIELD_NAME.fullmatch(organisation):
            raise ValueError(
                'MailScanner writes the name of your site into its header: write "mailscanner:ORG"'
                ' for "X-ORG-MailScanner-SpamCheck"'
            )
        return verdict.mailscanner(organisation)
    if text not in verdict.PRESETS or colon:
        known = [*verdict.PRESETS, "mailscanner:ORG"]
        hint = suggestion(text, known) or f"; there are {', '.join(known)}"
        raise ValueError(f'"{text}" is no preset of a spam filter{hint}')
    return verdict.PRESETS[text]


def field_name(text: str) -> str:
    """Return the name of a header field."""
    if not _FIELD_NAME.fullmatch(text):
        raise ValueError(f'"{text}" is no name of a header field')
    return text


def field_value(text: str) -> str:
    """Return a pattern for the value of a header field."""
    if not text:
        raise ValueError("the value is empty")
    return text
