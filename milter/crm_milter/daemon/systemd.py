"""What systemd is told about the service, and what it asks for (sd_notify(3)).

Nothing happens, and nothing fails, where systemd did not start us or does not listen.
"""

import contextlib
import os
import socket
import time


def notify(*assignments: str) -> None:
    """Send assignments such as ``READY=1``."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address.startswith("@"):
        address = f"\0{address[1:]}"
    if address:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as link:
            link.sendto("\n".join(assignments).encode(), address)


def reloading() -> None:
    """Say that a reload begins; READY=1 ends it, good or bad."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_interval() -> float | None:
    """Return every how many seconds to send WATCHDOG=1, None if systemd does not expect it."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    meant_for = os.environ.get("WATCHDOG_PID") or str(os.getpid())
    if not microseconds.isdecimal() or meant_for != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000  # half of what it allows, as sd_watchdog_enabled(3) asks
