"""``rules --running``: what the daemon has in force, as its exporter tells it."""

import http.client
import json
import time
from argparse import Namespace
from collections.abc import Iterator
from typing import Any

from crm_milter.cli.terminal import EX_NO, EX_OK, aligned, say
from crm_milter.config.listen import exporter_address
from crm_milter.config.load import Config, load
from crm_milter.config.problems import ConfigError
from crm_milter.config.sources import Disk
from crm_milter.wording import counted, why

_TIMEOUT = 10.0  # seconds until the whole answer is there
_MAX_BYTES = 64 << 20  # a hundred thousand rules take half of it
_USUAL = "127.0.0.1:9894"
_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where to ask, not to listen
_HEADING = ("RULE", "MODE", "CONDITIONS", "REROUTED", "LEFT", "LAST REROUTED")


def show(options: Namespace) -> int:
    """Print what is in force; the exit status is 1 if the files differ from it."""
    disk = Disk()
    config, is_valid = _config(options, disk)
    address = config.metrics_listen if config else exporter_address(_USUAL)
    if address is None:
        say('metrics.listen is "none", so the daemon cannot be asked')
        return EX_NO
    try:
        found = _asked(*address)
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = why(error) if isinstance(error, OSError) else str(error)
        say(f"no answer from crm-milter at {address[0]} port {address[1]}: {reason}")
        return EX_NO
    differs = not is_valid or found["sha256_of_all_files"] != disk.digest()
    found["differs"] = differs
    print(json.dumps(found, indent=2) if options.json else "\n".join(_lines(found)))
    if differs and not options.json:
        state = "differs from what is in force" if is_valid else "is invalid, and not in force"
        say(f"{options.config}: {state}; run: crm-milter check, then crm-milter reload")
    return EX_NO if differs else EX_OK


def _config(options: Namespace, disk: Disk) -> tuple[Config | None, bool]:
    try:
        return load(options.config, disk), True
    except ConfigError:
        return None, False


def _asked(host: str, port: int) -> dict[str, Any]:
    connection = http.client.HTTPConnection(_HERE.get(host, host), port, timeout=_TIMEOUT)
    try:
        connection.request("GET", "/rules")
        response = connection.getresponse()
        body = _read(response) if response.status == http.client.OK else b""
    finally:
        connection.close()
    try:
        found: dict[str, Any] = json.loads(body)
        _ = [*_lines(found)], found["sha256_of_all_files"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise ValueError("it is another service, or another version of crm-milter") from None
    return found


def _read(response: http.client.HTTPResponse) -> bytes:
    """Return the body, b"" if it is too large; raises TimeoutError if it drips in."""
    deadline, body = time.monotonic() + _TIMEOUT, bytearray()
    while part := response.read1(1 << 16):
        body += part
        if len(body) > _MAX_BYTES:
            return b""
        if time.monotonic() > deadline:
            raise TimeoutError(0, f"not complete after {_TIMEOUT:g} seconds")
    return bytes(body)


def _lines(found: dict[str, Any]) -> Iterator[str]:
    digest, count = found["sha256"][:12], counted(found["rules_in_use"], "rule")
    good = ", the last good configuration" if found["serves_last_good"] else ""
    yield f"{count} in force since {found['since']}, file {digest}{good}"
    yield from aligned([_HEADING, *map(_row, found["rules"])])


def _row(rule: dict[str, Any]) -> tuple[str, ...]:
    counts = rule["recipients"]
    left = sum(count for name, count in counts.items() if name.startswith("left_"))
    return (
        rule["name"],
        f"paused until {rule['paused_until']}" if rule["paused_until"] else rule["mode"],
        ", ".join(rule["conditions"]) or "-",
        str(counts.get("replaced", 0)),
        str(left),
        rule["last_rerouted"] or "-",
    )
