"""A name server on port 53 of a loopback address of its own, and a chroot that asks it."""

import os
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

_A, _MX = 1, 15
_NO_SUCH_NAME, _OK = 0x8183, 0x8180


def _wire(name: str) -> bytes:
    labels = [label.encode() for label in name.lower().split(".")]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _answer(query: bytes, mail_servers: Mapping[str, str]) -> bytes:
    """Domains have the MX given, and every mail server is 127.0.0.1 (RFC 1035 section 4)."""
    question = query[12 : query.index(b"\0", 12) + 5]
    name, kind = question[:-4].lower(), struct.unpack(">H", question[-4:-2])[0]
    servers = {_wire(domain): _wire(server) for domain, server in mail_servers.items()}
    data = b""
    if kind == _MX and name in servers:
        data = struct.pack(">H", 10) + servers[name]
    elif kind == _A and name in servers.values():
        data = bytes([127, 0, 0, 1])
    record = struct.pack(">HHHIH", 0xC00C, kind, 1, 60, len(data)) + data if data else b""
    flags = _OK if name in servers or name in servers.values() else _NO_SUCH_NAME
    return query[:2] + struct.pack(">HHHHH", flags, 1, bool(data), 0, 0) + question + record


@contextmanager
def name_server(queue: Path, mail_servers: Mapping[str, str]) -> Iterator[None]:
    """Serve to what runs in a chroot at this queue directory: it has a resolv.conf of its own."""
    address = f"127.53.{os.getpid() % 250 + 1}.{os.getpid() // 250 % 250 + 1}"
    (queue / "etc").mkdir()
    (queue / "etc" / "resolv.conf").write_text(f"nameserver {address}\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((address, 53))
        threading.Thread(target=_serve, args=(listener, mail_servers), daemon=True).start()
        yield


def _serve(listener: socket.socket, mail_servers: Mapping[str, str]) -> None:
    while True:
        try:
            query, client = listener.recvfrom(4096)
            listener.sendto(_answer(query, mail_servers), client)
        except OSError:
            return
