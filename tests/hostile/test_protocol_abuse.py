"""Whoever reaches the milter's socket may send anything: others are served, memory is bounded.

libmilter reads the packets; what it makes of nonsense is not our code, but our process. No peer
here speaks the protocol as it should, and after each of them a real message is served.
"""

import socket
import struct
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from random import Random

import pytest
from configs import LONG, PATIENT
from mta import ALL_ACTIONS, ALL_STEPS, Mta
from procs import descriptors, memory, wait_for_workers, workers
from serving import CONFIG

from lab.base import wait_for
from lab.milter import Milter

HELP = "<help@solarmora.com>"
HAM = [("X-Spam-Flag", "NO")]
TEXT = 'milter:\n  listen: LISTEN\n  socket_mode: "0666"\n  workers: 2\n' + CONFIG
CONNECTS = 10_000
FUZZ = 60.0 if LONG else 5.0  # seconds
GROWTH = 24_000  # kB that a worker may grow by, whatever it is sent


@pytest.fixture(scope="module")
def milter():
    """A milter of two workers that all tests here torment, and nobody else."""
    with Milter(TEXT) as milter:
        milter.wait_log("serving")
        yield milter


@pytest.fixture(autouse=True)
def survives(milter):
    """After each test: the same workers, not much larger, without its sessions, and serving."""
    _serve(milter)
    before = {pid: memory(pid) for pid in wait_for_workers(milter)}
    # libmilter may tell syslog(3) of an error, which opens a socket once in each worker.
    connections = _connections(milter) + len(before) * Path("/dev/log").exists()
    milter.logfile.mark()
    yield
    assert [*before] == wait_for_workers(milter)
    wait_for("the end of its sessions", lambda: _connections(milter) <= connections)
    for pid, size in before.items():
        assert memory(pid) < size + GROWTH
    assert not _errors(milter)
    _serve(milter)


def _errors(milter, *theirs):
    """Faults of ours: not that a peer lacks something, nor what else is said to be theirs."""
    theirs = ("does not support", *theirs)
    return [line for line in milter.lines("error") if not any(each in line for each in theirs)]


def _serve(milter):
    for _ in range(4):
        with Mta(milter.address) as mta:
            mta.connect()
            assert mta.message([HELP], HAM).of("delete") == [("help@solarmora.com",)]


def _connections(milter):
    return sum(
        each.startswith("socket:") for pid in workers(milter.pid) for each in descriptors(pid)
    )


def _dial(milter, timeout=3.0):
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    try:
        connection.connect(str(milter.socket))
    except OSError:
        connection.close()
        raise
    return connection


def _packet(command, data=b"", length=None):
    return struct.pack("!L", len(data) + 1 if length is None else length) + command.encode() + data


OFFER = _packet("O", struct.pack("!LLL", 6, ALL_ACTIONS, ALL_STEPS))
CONNECT = _packet("C", b"host\x004\x10\xe1192.0.2.1\0")
MAIL, RCPT = _packet("M", b"<a@b.example>\0"), _packet("R", HELP.encode() + b"\0")
DATA, EOH, EOM = _packet("T"), _packet("N"), _packet("E")
ABUSES = {
    "nothing": b"",
    "half a length": b"\0\0",
    "a length and no more": struct.pack("!L", 13),
    "half an offer": OFFER[:9],
    "an offer of 3 octets": _packet("O", b"abc"),
    "an offer of version 0": _packet("O", struct.pack("!LLL", 0, 0, 0)),
    "an offer of version 99": _packet("O", struct.pack("!LLL", 99, 2**32 - 1, 2**32 - 1)),
    "no offer": CONNECT + MAIL + RCPT + DATA + EOM,
    "two offers": OFFER + OFFER + CONNECT,
    "an empty packet": OFFER + struct.pack("!L", 0) + EOM,
    "4 GB announced": OFFER + _packet("L", b"x", 2**32 - 1),
    "2 GB announced": OFFER + _packet("L", b"x", 2**31),
    "1 MB header field": OFFER + CONNECT + MAIL + RCPT + DATA + _packet("L", b"X\0" + b"y" * 2**20),
    "unknown commands": OFFER + b"".join(_packet(each) for each in "xyz09\0\x7f"),
    "end of message at once": OFFER + EOM + EOM + EOM,
    "header before MAIL": OFFER + CONNECT + _packet("L", b"X-Spam-Flag\0NO\0") + EOH + EOM,
    "RCPT before MAIL": OFFER + CONNECT + RCPT + DATA + EOM,
    "DATA without RCPT": OFFER + CONNECT + MAIL + DATA + EOH + EOM,
    "end without DATA": OFFER + CONNECT + MAIL + RCPT + EOM,
    "MAIL in a message": OFFER + CONNECT + MAIL + RCPT + MAIL + MAIL + DATA + EOM,
    "no zero at the end": OFFER + CONNECT + _packet("M", b"<a@b.example>") + _packet("R", b"x"),
    "an empty MAIL": OFFER + CONNECT + _packet("M") + _packet("R") + DATA + EOM,
    "zeros only": OFFER + CONNECT + _packet("M", b"\0\0") + _packet("R", b"\0" * 999) + DATA + EOM,
    "odd macros": OFFER + _packet("D") + _packet("D", b"R") + _packet("D", b"Ri\0") + CONNECT,
    "macros of no step": OFFER + _packet("D", b"\xffi\0x\0") + _packet("D", b"R" + b"i\0" * 999),
    "a header without a value": OFFER + CONNECT + MAIL + RCPT + DATA + _packet("L", b"X\0") + EOM,
    "a header without a name": OFFER + CONNECT + MAIL + RCPT + DATA + _packet("L", b"\0\0") + EOM,
    "a client of no family": OFFER + _packet("C", b"host\0Z\0\0"),
    "a client without an address": OFFER + _packet("C", b"host\x004"),
    "quit, then more": OFFER + _packet("Q") + CONNECT + MAIL + RCPT,
    "http": b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
    "smtp": b"EHLO x\r\nMAIL FROM:<a@b>\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + b"\xaa" * 200,
}  # fmt: skip


def _push(milter, octets):
    """Send and read whatever comes, until it says no more."""
    with _dial(milter) as peer:
        try:
            peer.sendall(octets)
            peer.shutdown(socket.SHUT_WR)
            while peer.recv(1 << 16):
                pass
        except (BrokenPipeError, ConnectionResetError):
            pass


@pytest.mark.parametrize("abuse", ABUSES)
def test_what_is_no_protocol(milter, abuse):
    with Mta(milter.address) as other:
        other.connect()
        other.mail()
        for _ in range(3):
            _push(milter, ABUSES[abuse])
        other.rcpt(HELP)
        assert other.finish(HAM).of("delete") == [("help@solarmora.com",)]


def test_every_place_to_hang_up(milter):
    whole = OFFER + CONNECT + MAIL + RCPT + DATA + _packet("L", b"X-Spam-Flag\0NO\0") + EOH + EOM
    for end in range(len(whole)):
        with _dial(milter) as peer:
            peer.sendall(whole[:end])


def test_connects_and_drops(milter, record_property):
    start = time.monotonic()
    for _ in range(CONNECTS):
        _dial(milter, timeout=None).close()  # waits where the kernel takes no more for now
    record_property("connects", f"{CONNECTS} in {time.monotonic() - start:.1f} s")


def test_300_sessions_that_say_nothing(milter):
    with ExitStack() as peers:
        for _ in range(300):
            peers.enter_context(_dial(milter))
        _serve(milter)


@pytest.mark.parametrize("fields", [[("X", "y" * 60_000)], [("From", "a@b.example, " * 4000)]])
def test_endless_headers(milter, fields, record_property):
    """Fields that are not read cost nothing; those that are read are kept until the end."""
    before = max(memory(pid) for pid in workers(milter.pid))
    with Mta(milter.address) as mta:
        mta.connect()
        mta.mail()
        mta.rcpt(HELP)
        mta.data()
        for _ in range(200):
            for name, value in fields:
                mta.field(name, value)
        mta.field("X-Spam-Flag", "NO")
        assert mta.end().of("delete") == [("help@solarmora.com",)]
        grown = max(memory(pid) for pid in workers(milter.pid)) - before
        record_property("grown by", f"{grown} kB")


def test_a_peer_that_never_reads(milter):
    """Its answers fill the buffers, and then it waits for itself: nobody else does."""
    with _dial(milter, 0.5) as peer, Mta(milter.address) as other:
        other.connect()
        with pytest.raises(OSError):  # 3 MB and no buffer is so large
            peer.sendall((OFFER + CONNECT + MAIL + RCPT + EOM) * 20_000)
        _serve(milter)
        assert other.message([HELP], HAM).of("delete")


# libmilter gives a peer that drips a thread until its packet is whole, and signals an idle one
# that is promised already: others may have to wait for longer than the client here does.
if LONG:

    def test_a_slow_drip(milter):
        whole = OFFER + CONNECT + MAIL + RCPT + DATA
        with ExitStack() as stack:
            peers = [stack.enter_context(_dial(milter)) for _ in range(20)]
            for peer in peers:
                peer.setblocking(False)
            for octet in whole:
                for peer in peers:
                    with suppress(BlockingIOError):  # nobody reads it yet: it says less
                        peer.sendall(bytes([octet]))
            _serve(milter)


def _garbage(random):
    """Packets of a true message, some of them broken, doubled, swapped or made up."""
    packets = [OFFER, CONNECT, MAIL, RCPT, RCPT, DATA, _packet("L", b"From\0x\0"), EOH, EOM]
    for _ in range(random.randrange(6)):
        at, kind = random.randrange(len(packets)), random.randrange(5)
        if kind == 0:
            octets = bytearray(packets[at] or b"x")
            octets[random.randrange(len(octets))] = random.randrange(256)
            packets[at] = bytes(octets)
        elif kind == 1:
            packets.insert(at, random.choice(packets))
        elif kind == 2:
            packets[at] = packets[at][: random.randrange(len(packets[at]) + 1)]
        elif kind == 3:
            data = random.randbytes(random.randrange(99))
            packets[at] = _packet(random.choice("OCHMRTLNBEADQUK"), data)
        else:
            packets.insert(at, random.randbytes(random.randrange(99)))
    return b"".join(packets)


def test_only_the_socket_is_there_for_others(milter):
    """Nobody but its own user may read or write what it leaves on disk, save the socket."""
    mode = milter.socket.with_name("milter.sock.lock").stat().st_mode
    assert mode & 0o077 == 0


# libmilter 8.17.1 reads past the end of macros that lack their last zero (smfi_getsymval() skips
# over the end of the list that dec_argv() made), and so may die of SIGSEGV. What it may cost is a
# worker with its open sessions, which Postfix answers with 451.


@pytest.fixture
def mortal():
    """A milter whose workers may die inside libmilter, as often as they like: it serves on."""
    with Milter(TEXT, command=PATIENT) as milter:
        milter.wait_log("serving")
        supervisor = milter.pid
        yield milter
        wait_for_workers(milter)
        _serve(milter)
        assert (milter.pid, milter.running()) == (supervisor, True)
        assert all("killed by signal 11, starting a new one" in each for each in _deaths(milter))
        # A peer that hangs up does not hear of edits.
        assert not _errors(milter, "'cannot add ", "'cannot delete recipient'")


def _deaths(milter):
    return [each for each in milter.lines("worker w") if "ended" in each or "killed" in each]


def _push_whatever_comes(milter, octets):
    """As _push, also where the worker dies of it."""
    with suppress(ConnectionError):
        _push(milter, octets)


def test_macros_without_an_end_cost_a_worker_at_most(mortal, record_property):
    for _ in range(20):
        _push_whatever_comes(mortal, OFFER + CONNECT + MAIL + _packet("D", b"Ca\0b") + RCPT)
    record_property("workers that died inside libmilter", len(_deaths(mortal)))


@pytest.mark.timeout(300)
def test_garbage(mortal, request, record_property):
    seed = request.config.getoption("--ledger-seed")
    random, count, end = Random(seed), 0, time.monotonic() + FUZZ
    while time.monotonic() < end:
        _push_whatever_comes(mortal, _garbage(random))
        count += 1
    died = len(_deaths(mortal))
    record_property("garbage", f"{count} sessions in {FUZZ:g} s, seed {seed}, {died} workers died")
