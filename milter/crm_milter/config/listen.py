"""Where the milter and the exporter listen: unix:, inet:, inet6:, HOST:PORT."""

import ipaddress
import re
from dataclasses import dataclass

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
        raise ValueError(f'"unix:{path}" is not the path of a socket')
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
        raise ValueError(f'"{text}" is not a valid port; expected 1 to 65535')
    return int(text)


def _host(text: str, family: str) -> str:
    try:
        version = {4: "inet", 6: "inet6"}[ipaddress.ip_address(text).version]
    except ValueError:
        if _HOST.fullmatch(text) and not text.rpartition(".")[2].isdigit():
            return text
        raise ValueError(f'"{text}" is not a valid host') from None
    if family not in ("", version):
        raise ValueError(f'"{text}" needs "{version}:", not "{family}:"')
    return text


def host_port(text: str, default_port: int = 0) -> tuple[str, int]:
    """Return host and port of ``HOST:PORT``, with brackets around an IPv6 address."""
    host, colon, port = text.rpartition(":")
    if default_port and (not colon or text.endswith("]")):
        host, port = text, str(default_port)
    if not host:
        example = f"127.0.0.1:{port}" if colon else "127.0.0.1:9894"
        raise ValueError(f'expected "HOST:PORT", such as "{example}"')
    if ":" in host and not (host.startswith("[") and host.endswith("]")):
        raise ValueError(f'write an IPv6 address in brackets: "[{host}]:{port}"')
    return _host(host.removeprefix("[").removesuffix("]"), ""), _port(port)


def exporter_address(text: str) -> tuple[str, int] | None:
    """Return host and port of ``metrics.listen``, None for ``none``."""
    if text == "none":
        return None
    try:
        return host_port(text)
    except ValueError as error:
        without_port = str(error).startswith("expected")
        raise ValueError(f'{error}, or "none"' if without_port else str(error)) from None


def delivery_log(text: str) -> str:
    """Return one of the words of ``metrics.deliveries``, or the path of a file."""
    if text in ("auto", "journal", "none") or text.startswith("/"):
        return text
    raise ValueError('expected "auto", "journal", "none" or the absolute path of a log file')
