"""The memory of the flood guard, which all workers of all generations share.

One table of a fixed size in memory that belongs to the service rather than to a process: the
supervisor makes it before it forks, and hands it to the next one. It holds for a sender of a rule
when its next message would be due if they came evenly spaced (GCRA, ITU-T I.371: the theoretical
arrival time), under a keyed hash: nothing can be learned from it.

It cannot grow. A sender has one of eight places; of a place whose time is past nothing is lost, and
it is free. If all eight are in use, the sender that has sent the least makes room, but only one
whose latest message is its only one: a flood of random senders displaces such as itself, never a
busy one. If all eight are busy, the new sender is not counted, and its mail is routed.

The clock is CLOCK_BOOTTIME, which all processes share, which goes on while the host sleeps and
which no correction of the time of day touches. A time further ahead than the limit allows is cut
to it: after a reload with a shorter limit, or if the clock is another (a restored machine).

A look and its update are under a mutex in the table itself (robust and shared between processes,
pthread_mutexattr_setrobust(3)): that of a process that dies is free again. A worker that is stopped
just then makes the others wait for a few milliseconds; then they go on without, and each may let
one message too many pass.
"""

import ctypes
import errno
import hashlib
import mmap
import os
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from crm_milter.rules.flood import Limit
from crm_milter.rules.rule import Rule

SIZE = 1 << 20  # bytes
_MAGIC = b"crm-milter flood"
_KEY = 32  # bytes, after the magic
_HEAD = mmap.PAGESIZE
_MUTEXES, _MUTEX, _FIRST_MUTEX = 48, 64, 1024  # in the head: how many, bytes of each, from where
_WAYS = 8  # places in a set
# Of a set: eight hashes, eight intervals, eight times.
_LAYOUT = struct.Struct("=8I8f8d")
_HASHES, _INTERVALS, _TIMES = (struct.Struct(f"=8{each}") for each in "Ifd")
_HASH, _INTERVAL, _TIME = (struct.Struct(f"={each}") for each in "Ifd")
_SETS = (SIZE - _HEAD) // _LAYOUT.size
_TRIES, _PAUSE = 20, 0.0002  # times and seconds that a mutex is tried
_EXACT = 1e-6  # of an interval: what is lost by adding fractions
_SHARED = _ROBUST = 1  # pthread.h: PTHREAD_PROCESS_SHARED, PTHREAD_MUTEX_ROBUST

# PyDLL keeps the interpreter's lock: to let go of it, for another of libmilter's threads to take
# it, would cost more than all that is done here. None of what is called blocks.
_libc = ctypes.PyDLL(None)


def _now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _nothing() -> None:
    pass


def create() -> int:
    """Return the descriptor of a new, empty table."""
    descriptor = os.memfd_create("crm-milter-flood")
    os.ftruncate(descriptor, SIZE)
    os.pwrite(descriptor, _MAGIC + os.urandom(_KEY), 0)
    attributes = ctypes.create_string_buffer(_MUTEX)
    _libc.pthread_mutexattr_init(attributes)
    _libc.pthread_mutexattr_setpshared(attributes, _SHARED)
    _libc.pthread_mutexattr_setrobust(attributes, _ROBUST)
    head = mmap.mmap(descriptor, _HEAD)  # mapped as long as it has a name
    for mutex in _mutexes(head):
        _libc.pthread_mutex_init(mutex, attributes)
    return descriptor


def _mutexes(table: mmap.mmap) -> list[ctypes.c_void_p]:
    head = ctypes.addressof(ctypes.c_char.from_buffer(table))
    return [ctypes.c_void_p(head + _FIRST_MUTEX + _MUTEX * each) for each in range(_MUTEXES)]


def is_table(descriptor: int) -> bool:
    """Tell whether a descriptor is that of a table as this version makes it."""
    with suppress(OSError):
        return (
            os.fstat(descriptor).st_size == SIZE and os.pread(descriptor, len(_MAGIC), 0) == _MAGIC
        )
    return False


class FloodTable:
    """The table as one process uses it, in any of its threads."""

    def __init__(
        self,
        descriptor: int,
        clock: Callable[[], float] = _now,
        tell_uncounted: Callable[[], None] = _nothing,
    ) -> None:
        self._clock = clock
        self._tell_uncounted = tell_uncounted
        table = mmap.mmap(descriptor, SIZE)
        self._mutexes = _mutexes(table)
        self._octets = memoryview(table)
        self._key = bytes(self._octets[len(_MAGIC) : len(_MAGIC) + _KEY])
        self._lock = threading.Lock()

    def exceeds(self, rule: Rule, sender: str, subject: str) -> bool:
        """Tell whether there is too much; if not, count one more."""
        limit = rule.flood.limit if rule.flood else None
        if limit is None:
            return False
        text = f"{rule.name}\0{sender}\0{subject}".encode("utf-8", "surrogatepass")
        digest = hashlib.blake2b(text, digest_size=12, key=self._key).digest()
        number = int.from_bytes(digest[4:], "little") % _SETS
        start, tag = _HEAD + number * _LAYOUT.size, int.from_bytes(digest[:4], "little")
        mutex = self._mutexes[number % _MUTEXES]
        with self._lock:
            is_held = _hold(mutex)
            try:
                return self._take(start, tag, limit)
            finally:
                if is_held:
                    _libc.pthread_mutex_unlock(mutex)

    def _take(self, start: int, tag: int, limit: Limit) -> bool:
        octets, now, interval = self._octets, self._clock(), limit.interval
        tags = _HASHES.unpack_from(octets, start)
        if tag in tags:
            known = tags.index(tag)
            at = start + 8 * _WAYS + 8 * known
            # A reload may have brought another limit.
            _INTERVAL.pack_into(octets, start + 4 * (_WAYS + known), interval)
            due = min(max(_TIME.unpack_from(octets, at)[0], now), now + limit.seconds)
        else:
            place = _free(octets, start, now)
            if place is None:
                self._tell_uncounted()
                return False
            at, due = start + 8 * _WAYS + 8 * place, now
            _INTERVAL.pack_into(octets, start + 4 * (_WAYS + place), interval)
            _HASH.pack_into(octets, start + 4 * place, tag)
        is_full: bool = due - now > limit.seconds - interval * (1 - _EXACT)
        _TIME.pack_into(octets, at, due if is_full else due + interval)
        return is_full


def _hold(mutex: ctypes.c_void_p) -> bool:
    """Lock a mutex; after a while go on without it."""
    for _ in range(_TRIES):
        answer = _libc.pthread_mutex_trylock(mutex)
        if answer == errno.EOWNERDEAD:
            _libc.pthread_mutex_consistent(mutex)
        if answer in (0, errno.EOWNERDEAD):
            return True
        time.sleep(_PAUSE)
    return False


def _free(octets: memoryview, start: int, now: float) -> int | None:
    """Return a place that is free, or that of the least busy sender; or none."""
    times = _TIMES.unpack_from(octets, start + 8 * _WAYS)
    for place, due in enumerate(times):
        if due <= now:
            return place
    intervals = _INTERVALS.unpack_from(octets, start + 4 * _WAYS)
    single = [
        (due, place)
        for place, due in enumerate(times)
        if due - now <= intervals[place] * (1 + _EXACT)
    ]
    return min(single)[1] if single else None
