"""`check --postfix` on a CRM that counts by time: a flood limit, or a transport with a pace."""

import os
import subprocess
from collections.abc import Iterator

import planted
import pytest
from planted import HELP, Planted

from lab.sink import Sink

FRESHDESK = "support@company.freshdesk.com"
RULE = f"""rules:
  - {{name: support, match: {HELP}, replace_with: {FRESHDESK}, FLOOD
     also_deliver_to: it@solarmora.com}}
"""


@pytest.fixture(scope="module")
def site() -> Iterator[Planted]:
    with Sink() as sink:
        made = planted.make(sink)
        yield made
        made.postfix.stop()
        made.listener.close()


def rule(flood: str = "", target: str = FRESHDESK) -> str:
    return RULE.replace("FLOOD", flood).replace(FRESHDESK, target)


def test_nothing_limits_what_the_crm_gets(site):
    site.reset(rule())
    (found,) = site.findings()
    assert (found["check"], found["severity"]) == ("delivery-rate", "warning")
    assert "Freshdesk takes 50 messages of one sender in 1800 seconds" in found["found"]
    assert "the last of 100 waits 60 minutes" in found["fix"]


@pytest.mark.parametrize("flood", ["flood: auto,", "flood: {limit: 10 in 1h, then: hold},"])
def test_a_flood_limit_is_enough(site, flood):
    site.reset(rule(flood))
    assert site.findings() == []


@pytest.mark.parametrize("target", ["a@company.zendesk.com", "a@v1.case.my-crm.com"])
def test_a_crm_without_a_known_limit_is_not_told(site, target):
    site.reset(rule(target=target))
    assert site.findings() == []


@pytest.mark.parametrize("key", ["company.freshdesk.com", ".freshdesk.com", "*"])
def test_a_transport_with_a_pace_is_enough(site, key):
    (site.folder / "transport").write_text(f"{key} crm-slow:\n")
    site.reset(
        rule(),
        {
            "transport_maps": f"texthash:{site.folder}/transport",
            "crm-slow_destination_rate_delay": "36s",
        },
        master=["crm-slow unix - - n - - smtp"],
    )
    assert site.findings() == []


def test_the_commands_do_what_they_say(site):
    transports = site.folder / "transport"
    transports.write_text("other.example smtp:\n")
    site.reset(rule(), {"transport_maps": f"texthash:{transports}"})
    (found,) = site.findings()
    commands = found["fix"].partition("minutes: ")[2]
    path = f"/usr/sbin:{os.environ['PATH']}"
    command = commands.removesuffix(f" && postfix -c {site.postfix.config} reload")
    subprocess.run(["/bin/sh", "-ec", command], env={**os.environ, "PATH": path}, check=True)
    site.age()
    assert site.findings() == []
    assert "company.freshdesk.com crm-slow:" in transports.read_text()
