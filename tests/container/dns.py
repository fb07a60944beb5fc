"""A name server at 127.0.0.1:1053: customer.example has a DMARC policy, nothing else exists."""

import socket
import struct

NAME = b"\x06_dmarc\x08customer\x07example\x00"
RECORD = b"v=DMARC1; p=none"
_TXT, _IN = 16, 1


def answer(query: bytes) -> bytes:
    """Return the answer to a query with one question (RFC 1035 section 4)."""
    end = query.index(b"\0", 12) + 5
    question = query[12:end]
    kind = struct.unpack(">H", question[-4:-2])[0]
    is_known = question[:-4].lower() == NAME
    found = b""
    if is_known and kind == _TXT:
        data = bytes([len(RECORD)]) + RECORD
        found = struct.pack(">HHHIH", 0xC00C, _TXT, _IN, 60, len(data)) + data
    flags = 0x8180 if is_known else 0x8183
    return query[:2] + struct.pack(">HHHHH", flags, 1, bool(found), 0, 0) + question + found


def main() -> None:
    """Answer until killed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 1053))
        while True:
            query, client = listener.recvfrom(4096)
            listener.sendto(answer(query), client)


if __name__ == "__main__":
    main()
