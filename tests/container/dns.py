"""Runs in a container: dns.py ADDRESS PORT [NAME=TEXT...], a name server that knows TXT records.

Nothing else exists. It serves until it is killed.
"""

import socket
import struct
import sys

_TXT, _IN = 16, 1
_LONGEST = 255  # octets of a string in a record


def wire(name: str) -> bytes:
    """Return a name as a question has it (RFC 1035 section 4)."""
    labels = [label.encode() for label in name.lower().split(".")]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def strings(text: bytes) -> bytes:
    """Return the data of a record of this text."""
    parts = [text[at : at + _LONGEST] for at in range(0, len(text), _LONGEST)]
    return b"".join(bytes([len(part)]) + part for part in parts)


def answer(query: bytes, records: dict[bytes, bytes]) -> bytes:
    """Return the answer to a query with one question."""
    end = query.index(b"\0", 12) + 5
    question = query[12:end]
    kind = struct.unpack(">H", question[-4:-2])[0]
    text = records.get(question[:-4].lower())
    found = b""
    if text is not None and kind == _TXT:
        data = strings(text)
        found = struct.pack(">HHHIH", 0xC00C, _TXT, _IN, 60, len(data)) + data
    flags = 0x8183 if text is None else 0x8180
    return query[:2] + struct.pack(">HHHHH", flags, 1, bool(found), 0, 0) + question + found


def main(address: str, port: str, *texts: str) -> None:
    """Answer until killed."""
    pairs = (text.split("=", 1) for text in texts)
    records = {wire(name): text.encode() for name, text in pairs}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind((address, int(port)))
        while True:
            query, client = listener.recvfrom(4096)
            listener.sendto(answer(query, records), client)


if __name__ == "__main__":
    main(*sys.argv[1:])
