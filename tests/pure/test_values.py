"""Numbers with units and permissions: what is taken for what, and what is refused with a reason."""

import contextlib
import re

import pytest

from crm_milter.config import values
from crm_milter.config.load import parse


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("0660", 0o660),
        ("660", 0o660),
        ("0o660", 0o660),
        ("0600", 0o600),
        ("0770", 0o770),
        ("0640", 0o640),
        ("0o700", 0o700),
        ("0620", 0o620),
        ("0666", 0o666),  # deliberate, with a warning
    ],
)
def test_permissions(text, mode):
    assert values.socket_mode(text) == mode


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("432", '432 is octal 0660 in decimal: write "0660"'),
        ("438", '438 is octal 0666 in decimal: write "0660"'),
        ("384", '384 is octal 0600 in decimal: write "0600"'),
        ("420", "expected permissions in octal"),
        ("436", "436 is octal 0664 in decimal"),
        ("448", '448 is octal 0700 in decimal: write "0700"'),
        ("511", '511 is octal 0777 in decimal: write "0770"'),
        ("666", 'write "0660"'),
        ("777", 'lets every user of the host connect; write "0770"'),
        ("0440", "no process could connect"),
        ("0o111", "no process could connect"),
        ("000", "expected permissions in octal"),
        ("060", "expected permissions in octal"),
        ("-1", "expected permissions in octal"),
        ("07777", "expected permissions in octal"),
        ("2660", "expected permissions in octal"),
        ("0x1B0", "expected permissions in octal"),
        ("0b110", "expected permissions in octal"),
        ("0660 ", "expected permissions in octal"),
        ("+660", "expected permissions in octal"),
        ("660.0", "expected permissions in octal"),
        ("6_60", "expected permissions in octal"),
        ("٠٦٦٠", "expected permissions in octal"),
        ("u=rw,g=rw", "expected permissions in octal"),
        ("rw-rw----", "expected permissions in octal"),
        ("", "expected permissions in octal"),
    ],
)
def test_permissions_that_others_would_have_or_that_are_not_octal(text, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        values.socket_mode(text)


def test_no_number_gives_others_anything():
    """Whatever a tool that reads 0660 as a number may write: no leading zero, or another base."""
    taken = {}
    for number in range(0o10000):
        for text in (str(number), f"{number:o}", hex(number), bin(number), str(-number)):
            with contextlib.suppress(ValueError):
                taken[text] = values.socket_mode(text)
    assert sorted(taken) == [f"{mode:o}" for mode in range(0o600, 0o1000, 8)]
    assert all(f"{mode:o}" == text for text, mode in taken.items())


def test_permissions_for_others_are_warned_of(tmp_path):
    text = "milter: {{socket_mode: {mode}, listen: '{listen}'}}\nrules: []\nspam: rspamd"
    for mode, listen, warned in (
        ("0666", "unix:/run/x", True),
        ("0o662", "unix:/run/x", True),
        ("0660", "unix:/run/x", False),
        ("0666", "inet:1@127.0.0.1", False),
    ):
        found = parse(text.format(mode=mode, listen=listen), tmp_path / "f").warnings
        assert any("lets every user" in str(each) for each in found) is warned


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("26214400", 25 << 20),
        ("25M", 25 << 20),
        ("25 M", 25 << 20),
        ("25m", 25 << 20),
        ("25MB", 25 << 20),
        ("25 MB", 25 << 20),
        ("25mb", 25 << 20),
        ("25MiB", 25 << 20),
        ("25 MiB", 25 << 20),
        ("500k", 500 << 10),
        ("500 kB", 500 << 10),
        ("500KiB", 500 << 10),
        ("1 GB", 1 << 30),
        ("1000 B", 1000),
        ("1", 1),
    ],
)
def test_sizes(text, size):
    assert values.size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        *(
            "1e6",
            "-1",
            "+25M",
            "25.5M",
            "25,000,000",
            "25_000_000",
            "0x19",
            "M",
            "",
            " 25M",
            "25M ",
        ),
        *(
            "25  MB",
            "25\tMB",
            "25\u00a0MB",
            "25 MBit",
            "25Mb/s",
            "25 TB",
            "25 megabytes",
            "\uff12\uff15M",
        ),
        *("25 iB", "unlimited", "25MiBB", "9" * 13),
    ],
)
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match='bytes, or a number with k, M or G, such as "25M"'):
        values.size(text)


@pytest.mark.parametrize(
    ("read", "text", "character"),
    [
        (values.size, "25\u00a0MB", "U+00A0 NO-BREAK SPACE"),
        (values.size, "\uff12\uff15M", "U+FF12 FULLWIDTH DIGIT TWO"),
        (values.size, "25\u200b", "U+200B ZERO WIDTH SPACE"),
        (values.size, "25\u041c", "U+041C CYRILLIC CAPITAL LETTER EM"),
        (values.drain_timeout, "5\u202fm", "U+202F NARROW NO-BREAK SPACE"),
        (values.drain_timeout, "\u0665", "U+0665 ARABIC-INDIC DIGIT FIVE"),
        (values.socket_mode, "\uff10660", "U+FF10 FULLWIDTH DIGIT ZERO"),
        (values.socket_mode, "0660\ufeff", "U+FEFF ZERO WIDTH NO-BREAK SPACE"),
    ],
)
def test_a_character_that_looks_like_another_is_named(read, text, character):
    with pytest.raises(ValueError, match=re.escape(character)):
        read(text)


@pytest.mark.parametrize("text", ["0", "0M", "0 kB", "000"])
def test_no_mail_is_that_small(text):
    with pytest.raises(ValueError, match="omit the key"):
        values.size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("0", 0), ("60", 60), ("60s", 60), ("60 s", 60), ("5m", 300), ("2h", 7200)),
        *(("1d", 86400), ("86400", 86400)),
    ],
)
def test_times(text, seconds):
    assert values.drain_timeout(text) == seconds


@pytest.mark.parametrize(
    "text",
    ["-1", "86401", "25h", "2d", "60ms", "1.5m", "1e1", "60S", "1h30m", "", "s", "٦٠", "60\u00a0s"],
)
def test_what_is_no_time(text):
    with pytest.raises(ValueError, match="seconds up to 86400"):
        values.drain_timeout(text)
