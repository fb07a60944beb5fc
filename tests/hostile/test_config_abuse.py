"""The real command before a file that was made to hurt: refused soon, in little memory, clearly.

What is wrong in a file that a person wrote is in tests/pure/bad; the cases here are about what
reading costs. Each runs in a child that may take MEMORY and SECONDS, and must end with 78 and
lines that all say whose they are.
"""

import os
import resource
import signal
import socket
import subprocess

import pytest
from configs import config, routed
from mta import Mta

from lab.base import wait_for
from lab.milter import Milter, program

MEMORY = 768 << 20  # octets of address space, of which the program as such takes 150 MB
SECONDS = 20
OUTPUT = 64_000  # octets: nobody reads more
HEAD = b"unrouted_to: it@solarmora.com\nspam: rspamd\nrules:\n"
_STAYS = "reload failed, keeping the previous rules"
RULE = "  - {{name: r{0}, match: {1}, replace_with: a@crm.example}}\n"


def _laughs(levels, width):
    lines = [
        f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * width)}]"
        for level in range(1, levels)
    ]
    return "\n".join(["a0: &a0 [lol]", *lines]).encode()


def _match(pattern):
    return HEAD + RULE.format(1, pattern).encode()


TEXTS = {
    "billion laughs": _laughs(10, 10),
    "laughs under a known key": _laughs(10, 10).replace(b"a0: ", b"include: ", 1),
    "an alias of itself": b"rules: &a [*a]\n",
    "quadratic blow-up": b"a: &a " + b"x" * 100_000 + b"\nb: [" + b"*a," * 100_000 + b"]\n",
    "a hundred merges": b"<<: &a {x: 1}\n" + b"<<: *a\n" * 100,
    "100,000 brackets": b"[" * 100_000,
    "100,000 braces": b"rules: " + b"{a: " * 100_000,
    "100,000 dashes": b"- " * 100_000,
    "deep indentation": b"".join(b" " * n + b"a:\n" for n in range(2000)),
    "a scalar of 20 MB": b"unrouted_to: " + b"x" * (20 << 20),
    "a key of 20 MB": b"x" * (20 << 20) + b": 1\n",
    "a line of 20 MB of quotes": b"'" * (20 << 20),
    "300,000 rules that are text": HEAD + b"  - x\n" * 300_000,
    "30,000 rules without a match": HEAD + b"".join(b"  - name: r%d\n" % n for n in range(30_000)),
    "one name 1,000 times": HEAD + RULE.format(1, "a@b.example").encode() * 1000,
    "a tag that makes an object": b"rules: !!python/object/apply:os.system ['touch PWNED']\n",
    "a tag that makes a name": b"rules: !!python/name:os.system\n",
    "binary": b"rules: !!binary " + b"A" * 100_000 + b"\n",
    "a number of a million digits": b"milter:\n  workers: " + b"9" * 1_000_000 + b"\n",
    "a score without an end": HEAD.replace(b"rspamd", b"{headers: [{name: X, at_least: 1e9999}]}"),
    "nul": b"rules: []\n\0\n",
    "utf-16": "rules: []\n".encode("utf-16"),
    "utf-16 without a mark": "rules: []\n".encode("utf-16-le"),
    "utf-32": "rules: []\n".encode("utf-32"),
    "a mark, then utf-16": b"\xef\xbb\xbf" + "rules: []\n".encode("utf-16-le"),
    "a mark in the middle": b"rules: []\n\xef\xbb\xbfspam: rspamd\n",
    "random octets": bytes(range(256)) * 1000,
    "an ELF": b"\x7fELF\x02\x01\x01" + b"\0" * 1000,
    "tabs": b"rules:\n\t- name: a\n",
    "1,000 documents": b"--- {}\n" * 1000,
    "a pattern of a million repeats": _match("'/(((a{1000}){1000}){1000})@x\\.example/'"),
    "a pattern that is super-linear": _match("'/(a*)*(b|a)*\\1@x\\.example/'"),
    "the file of a rule is a device": _match("file:/dev/zero"),
    "the file of a rule is the memory": _match("file:/proc/self/mem"),
    "accounts on a device": HEAD + b"  []\nknown_recipients: [/dev/urandom]\n",
    "an include of everything": HEAD + b"  []\ninclude: [/proc/*/mem]\n",
    "an include of itself": HEAD + b"  []\ninclude: ['*.yaml']\n",
}  # fmt: skip


def _limited():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.alarm(SECONDS)


def refused(path, cwd):
    """What the command says of the file; it must be a refusal."""
    done = subprocess.run(
        [*program(), "check", "--config", path],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS + 5,
        preexec_fn=_limited,
    )
    said = done.stderr.decode("utf-8")
    assert done.returncode == 78, (done.returncode, said[-2000:])
    assert "Traceback" not in said
    assert len(said) < OUTPUT
    assert said
    assert all(line.startswith(f"crm-milter: {cwd}/") for line in said.splitlines()), said[:3000]
    return said


@pytest.mark.parametrize("case", TEXTS)
def test_a_text(case, tmp_path):
    path = tmp_path / "crm-milter.yaml"
    path.write_bytes(TEXTS[case])
    refused(path, tmp_path)
    assert [*tmp_path.iterdir()] == [path]


def _fifo(path):
    os.mkfifo(path)


def _socket(path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def _sparse(path):
    path.touch()
    os.truncate(path, 8 << 30)


THINGS = {
    "a fifo that nobody writes to": _fifo,
    "a socket": _socket,
    "a folder": lambda path: path.mkdir(),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to its own folder": lambda path: path.symlink_to(path.parent),
    "a file of 8 GB of nothing": _sparse,
    "nothing": lambda path: None,
}


PLACES = [
    (where, thing)
    for where in ("the file itself", "an included one", "the file of a rule")
    for thing in THINGS
    # A pattern without files is no mistake.
    if where != "an included one" or thing not in ("nothing", "a link to nothing")
]


@pytest.mark.parametrize(("where", "thing"), PLACES)
def test_what_is_no_file(where, thing, tmp_path):
    path = tmp_path / "crm-milter.yaml"
    odd = path if where == "the file itself" else tmp_path / "odd"
    THINGS[thing](odd)
    if where == "an included one":
        path.write_bytes(HEAD + b"  []\ninclude: [odd*]\n")
    elif where == "the file of a rule":
        path.write_bytes(_match("file:odd"))
    try:
        refused(path, tmp_path)
    finally:
        if odd.is_file() and odd.stat().st_size > MEMORY:
            odd.unlink()


def test_a_bad_file_never_becomes_half_a_configuration():
    """Each bad text in turn under a milter that serves: it goes on with the previous rules."""
    with Milter(config()) as milter:
        milter.wait_log("serving")
        small = {name: text for name, text in TEXTS.items() if len(text) < 100_000}
        for number, (name, text) in enumerate(small.items(), 1):
            milter.config.write_bytes(text)
            milter.signal(signal.SIGHUP)
            wait_for(name, lambda n=number: len(milter.lines(_STAYS)) >= n, SECONDS)
            with Mta(milter.address) as mta:
                mta.connect()
                added = mta.message(["<help@solarmora.com>"], [("X-Spam-Flag", "NO")]).of("add")
                assert [address.strip("<>") for address, _ in added] == routed(), name
        assert milter.lines("reloaded") == []


def test_a_pattern_of_10000_groups(tmp_path):
    path = tmp_path / "crm-milter.yaml"
    path.write_bytes(_match("'/" + "(" * 10_000 + ")" * 10_000 + "@x\\.example/'"))
    refused(path, tmp_path)


def test_an_emptied_file_never_takes_the_rules_away():
    """Such as by an editor that truncates before it writes, or a disk that is full."""
    with Milter(config()) as milter:
        milter.wait_log("serving")
        milter.config.write_text("")
        milter.signal(signal.SIGHUP)
        milter.wait_log(f"{_STAYS}|reloaded")
        assert milter.lines(_STAYS)
