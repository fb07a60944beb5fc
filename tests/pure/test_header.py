"""The header of a message, split as Postfix does (tests/postfix/test_odd_headers.py compares)."""

from time import process_time

import pytest

from crm_milter.libmilter.header import fields


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"Subject : x\nX-A\t:  1 \n\nX-B: 2\n", [("subject", "x"), ("x-a", " 1 ")]),
        (b"A: 1\r\n 2\r\n\t3\r\n\r\n", [("a", "1\n 2\n\t3")]),
        (b"A:\r\nB: \xc3\xa9\xff", [("a", ""), ("b", "\u00e9\udcff")]),
        (b"From joe\r\nA: 1\r\n", [("x-mailbox-line", "From joe"), ("a", "1")]),
        (b">From joe\r\n", [("x-mailbox-line", ">From joe")]),
        (b"A: 1\r\nFrom joe\r\nB: 2\r\n", [("a", "1")]),
        (b"From: joe\r\n", [("from", "joe")]),
        (b"A: 1\rB: 2\r\r\nC: 3", [("a", "1\rB: 2"), ("c", "3")]),
        (b"A: 1\0002\r\nB: 3", [("a", "1"), ("b", "3")]),
        (b"Bcc: x\r\n y\r\nRETURN-PATH: <>\r\nContent-Length: 1\r\nB: 3", [("b", "3")]),
        (b"", []),
        (b"\n", []),
        (b"\r\n\r\nA: 1", []),
        (b" A: 1\r\nB: 2", []),
        (b": 1\r\nB: 2", []),
        (b"A: 1\r\n\r\r\nB: 2", [("a", "1")]),
        (b"A" * 2048 + b": 1", []),
        (b"A" * 2047 + b": 1", [("a" * 2047, "1")]),
        (b"Resent-Bcc: x\r\nA: 0X\r\n", [("a", "0X")]),
        # 60,000 bytes to the end of a line; nine tenths are enough to cut there.
        (b"A: " + b"b" * 57_997 + b"\n " + b"c" * 1998, [("a", "b" * 57_997 + "\n " + "c" * 1998)]),
        (b"A: " + b"b" * 57_997 + b"\n " + b"c" * 1999, [("a", "b" * 57_997)]),
        (b"A: " + b"b" * 53_997 + b"\n " + b"c" * 9000, [("a", "b" * 53_997)]),
        (
            b"A: " + b"b" * 53_996 + b"\n " + b"c" * 9000,
            [("a", "b" * 53_996 + "\n " + "c" * 5999)],
        ),
        (b"A: " + b"b" * 70_000, [("a", "b" * 59_997)]),
        (b"A: " + b"b" * 55_000 + b"\n " + b"c" * 9_000, [("a", "b" * 55_000)]),
        (b"A: b\n " + b"c" * 70_000, [("a", "b\n " + "c" * 59_994)]),
    ],
)
def test_fields(message, expected):
    assert list(fields(message)) == expected


@pytest.mark.parametrize(
    "message",
    [
        b"A: b\n " * 200_000,
        b"A" * 2_000_000,
        b"A: " + b"\n b" * 600_000,
        b"From x\n" * 200_000,
        b"A: " + b"\r" * 2_000_000,
        b"A: 1\n" * 200_000,
        b"A: " + b"\0" * 2_000_000,
    ],
)
def test_time_is_linear(message):
    began = process_time()
    for _ in fields(message):
        pass
    assert process_time() - began < 3
