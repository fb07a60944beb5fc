"""Header fields as a person reads them: RFC 2047, every charset, whatever a sender wrote."""

import base64
import codecs
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crm_milter.headertext import _CODECS, readable

READ = [
    ("Invoice 7", "Invoice 7"),
    ("  Invoice\r\n\t7 ", "Invoice 7"),
    ("=?utf-8?q?Caf=C3=A9_no=2E_1?= x", "Café no. 1 x"),
    ("=?UTF-8?B?SW52b2ljZQ==?=", "Invoice"),
    ("=?utf-8?B?SW52b2ljZQ?=", "Invoice"),  # without its padding
    ("=?utf-8?B?SW52b2ljZQ===?=", "Invoice"),
    ("=?utf-8?b?S W52b2ljZQ==?=", "Invoice"),
    ("=?utf-8?q?In_?=\r\n =?utf-8?q?voice?= 7", "In voice 7"),
    ("=?utf-8?q?In?= \t =?iso-8859-1?b?dm9pY2U=?=", "Invoice"),
    ("=?utf-8?q?In?= a =?utf-8?q?voice?=", "In a voice"),
    ("=?utf-8?q?=C3?= =?utf-8?q?=BC?=", "ü"),  # a character in two words
    ("=?utf-8?b?w7?= =?utf-8?q?=BC?=", "ü"),
    ("=?utf-8?q?=C3?= =?iso-8859-1?q?=FC?=", "\ufffdü"),
    # digits of base64 that were cut without regard for their groups of four
    ("=?utf-8?B?SW52b2l?=\r\n =?utf-8?B?jZQ==?=", "Invoice"),
    ("=?utf-8?B?S?= =?utf-8?B?W52b2ljZQ==?=", "Invoice"),
    ("=?utf-8?B?SW?= =?utf-8?B?52?= =?utf-8?B?b2ljZ?= =?utf-8?B?Q?= 7", "Invoice 7"),
    ("=?utf-8?B?w7w?=  =?utf-8?B?w7w=?=", "üü"),  # only its padding is missing
    ("=?utf-8?B?w7?= =?utf-8?B?w?=", "ü"),
    ("=?utf-8?B?w?= =?utf-8?q?a?= =?utf-8?B?7w=?=", "a\ufffd"),
    ("=?utf-8?B?77u/SW52b2ljZQ==?= 7", "Invoice 7"),  # with a mark of the byte order
    ("=?utf-8*de-CH?q?Gr=C3=BCezi?=", "Grüezi"),  # RFC 2231 section 5
    ("=?utf-8?Q?What's up??=", "What's up?"),
    ("=?utf-8?q?a=zz=4?=", "a=zz=4"),
    ("=?utf-8?q??= =?utf-8?b??=", ""),
    ("=?utf-8?q?a=0AB=00c=0D=0Ad?=", "a B c  d"),
    ("(=?utf-8?q?a?=)x=?utf-8?q?b?=y", "(a)xby"),
    ("=?utf-8?x?abc?= =?utf-8?q?a =?utf-8?q?b?=", "=?utf-8?x?abc?= =?utf-8?q?a b"),
    ("=?utf-8?q?open", "=?utf-8?q?open"),
    ("=?utf-8?b?A?=", ""),
    ("=??q?a?=", "=??q?a?="),
    ("=?no-such?q?=FC?=", "ü"),  # Latin-1 is as good a guess as any
    ("=?no-such?q?=C3=BC?=", "ü"),
    ("=?us-ascii?q?=FC?=", "ü"),
    ("=?punycode?q?mnchen-3ya?= =?rot13?q?abc?= =?zip?q?abc?=", "mnchen-3yaabcabc"),
    ("=?iso-8859-1?q?=80?=", "€"),  # what Windows calls by this name
    ("=?gb2312?B?1tDOxA==?=", "中文"),
    ("=?GBK?B?1tDOxA==?=", "中文"),
    ("=?big5?B?pKSk5Q==?=", "中文"),
    ("=?ISO-2022-JP?B?GyRCRnxLXBsoQg==?=", "日本"),
    ("=?Shift_JIS?B?k/qWew==?=", "日本"),
    ("=?euc-jp?B?xvzL3A==?=", "日本"),
    ("=?ks_c_5601-1987?B?x9GxuQ==?=", "한국"),
    ("=?euc-kr?B?x9GxuQ==?=", "한국"),
    ("=?koi8-r?B?89Te1A==?=", "Стчт"),
    ("=?koi8-u?q?=A4?=", "є"),
    ("=?windows-1251?B?0ffl8g==?=", "Счет"),
    ("=?windows-1252?q?=84a=93?=", "„a“"),
    ("=?iso-8859-2?q?faktur=EA?=", "fakturę"),
    ("=?iso-8859-7?q?=F4=E9=EC?=", "τιμ"),
    ("=?iso-8859-8-i?q?=F9=EC=E5=ED?=", "שלום"),
    ("=?windows-1256?q?=E3?=", "م"),
    ("=?tis-620?q?=A1?=", "ก"),
    ("=?windows-874?q?=A1?=", "ก"),
    ("=?macintosh?q?=9F?=", "ü"),
    ("=?cp850?q?=81?=", "ü"),
    # names of charsets as programs write them
    ("=?windows1252?q?=80?=", "€"),
    ("=?Cp-850?q?=81?=", "ü"),
    ("=?IBM-850?q?=81?=", "ü"),
    ("=?windows-31j?B?ir8=?=", "漢"),
    ("=?x-windows-949?B?vsiz5w==?=", "안녕"),
    ("=?x-mac-roman?q?=9F?=", "ü"),
    ("=?x-euc-jp?B?xvzL3A==?=", "日本"),
    ("=?X-Unicode-2-0-UTF-8?q?=C3=BC?=", "ü"),
    ("=?iso88592?q?faktur=EA?=", "fakturę"),
    ("=?utf-7?q?+ANw-?=", "Ü"),
    ("=?utf-7?q?+2AA-?=", "\ufffd"),  # half a character
    ("=?utf-16be?q?=00a?=", "a"),
    ("Rechnung \udcfc", "Rechnung ü"),  # octets that came without a charset
    ("Rechnung u\u0308", "Rechnung ü"),
    ("a\ud800b", "a\ufffdb"),
]


@pytest.mark.parametrize(("value", "text"), READ)
def test_a_value_is_read_as_a_mail_program_shows_it(value, text):
    assert readable(value) == text


@pytest.mark.parametrize("charset", sorted({each for each in _CODECS.values() if each}))
def test_every_charset_is_read(charset):
    try:
        octets = codecs.encode("Invoice", charset)
    except UnicodeEncodeError:  # has no Latin letters
        pytest.skip("no Latin letters")
    word = base64.b64encode(octets).decode()
    assert readable(f"=?{charset}?b?{word}?=").strip("\ufeff") == "Invoice"


def test_no_charset_is_a_file_or_a_transformation():
    assert {"base64_codec", "zlib_codec", "rot_13", "idna", "punycode"}.isdisjoint(_CODECS.values())


pieces = st.sampled_from(
    [*"=?_ \t\r\nabQqBb*-", "=?", "?=", "utf-8", "=?utf-8?q?", "=?utf-8?b?", "=?iso-2022-jp?b?",
     "=?utf-7?q?", "=?hz?q?", "GyRC", "=1B$B", "+2AA-", "=C3", "=BC", "==", "\udcfc", "\u0301", "ß"]
)  # fmt: skip
charsets = st.sampled_from(sorted(_CODECS)) | st.text(max_size=45)
words = st.builds(
    "=?{}?{}?{}?=".format, charsets, st.sampled_from("qQbB"), st.text(max_size=20) | st.binary(
        max_size=20
    ).map(lambda octets: base64.b64encode(octets).decode()),
)  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.lists(pieces | words | st.text(max_size=5), max_size=30).map("".join))
def test_nothing_that_a_sender_writes_raises(value):
    text = readable(value)
    text.encode()  # RE2 takes UTF-8
    assert "\n" not in text
    assert len(text) <= 4 * len(value) + 4


LONG = [
    "=?", "=?a?q?x", "=?=?=", "=?utf-8?q?=?=", "=?utf-8?q?a?= ", "=?a*", "?=", "=", "\r\n ", " ",
    "a\u0301\u0323", "\u0323\u0301", "=?utf-8?q?=CC=A3?=", "=?x?b?", "\udcfc", "=?a?q??",
]  # fmt: skip


@pytest.mark.parametrize("piece", LONG)
@pytest.mark.parametrize("head", ["", "=?utf-8?q?", "=?utf-8?b?"])
def test_time_is_linear(head, piece):
    def spent(count):
        began = time.process_time()
        readable(head + piece * count + "?=")
        return time.process_time() - began

    count = 20_000 // len(piece)
    few = min(spent(count) for _ in range(3))
    many = min(spent(8 * count) for _ in range(2))
    assert many < 24 * few + 0.05  # 64 times, if it were the square
