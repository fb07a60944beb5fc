"""Tables that do not answer: `check --postfix` ends soon, says so, and advises nothing wrong."""

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import planted
import pytest
from planted import IT, Planted

from lab.base import free_port
from lab.sink import Sink

MOST = 10.0  # seconds for all of a check, whatever does not answer
PLACES = (
    "virtual_mailbox_domains",
    "virtual_mailbox_maps",
    "virtual_alias_maps",
    "virtual_alias_domains",
    "relay_domains",
    "relay_recipient_maps",
    "local_recipient_maps",
    "mydestination",
    "alias_maps",
    "canonical_maps",
    "recipient_canonical_maps",
    "recipient_bcc_maps",
    "transport_maps",
)
# What makes Postfix take mail for a domain or no longer take it: nothing here may be advised by
# one who does not know what the table holds.
DANGEROUS = ("virtual_alias_domains", "virtual_mailbox_domains", "mydestination", "relay_domains")


@pytest.fixture(scope="module")
def site() -> Iterator[Planted]:
    with Sink() as sink:
        made = planted.make(sink)
        yield made
        made.postfix.stop()
        made.listener.close()


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, int]]:
    """The ports of servers by what they do: one accepts and says nothing, one is not there."""
    with ExitStack() as stack:
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=500))
        yield {"silent": silent.getsockname()[1], "down": free_port()}


def table(kind: str, port: int, name: str = "") -> str:
    """A table of a kind that asks somebody at a port, each name another table."""
    return {
        "tcp": f"tcp:127.0.0.1:{port}",
        "socketmap": f"socketmap:inet:127.0.0.1:{port}:{name or 'x'}",
        "pipemap": f"pipemap:{{{{socketmap:inet:127.0.0.1:{port}:p{name},inline:{{a=b}}}}}}",
        "unionmap": f"unionmap:{{{{inline:{{a=b}},socketmap:inet:127.0.0.1:{port}:u{name}}}}}",
        "proxy": f"proxy:socketmap:inet:127.0.0.1:{port}:y{name}",
    }[kind]


def timed(site: Planted) -> list[dict[str, str]]:
    started = time.monotonic()
    found = site.findings()
    assert time.monotonic() - started < MOST
    return found


def with_table(site: Planted, place: str, text: str) -> None:
    value = {
        "virtual_alias_maps": f"texthash:$config_directory/virtual, {text},"
        " hash:$config_directory/crm-milter-aliases"
    }.get(place, text)
    site.reset(main={place: value}, aliases=f"{IT} {IT}\n")


@pytest.mark.parametrize("what", ["silent", "down"])
@pytest.mark.parametrize("place", PLACES)
def test_wherever_it_stands_nothing_is_advised_that_depends_on_it(site, servers, place, what):
    text = table("socketmap", servers[what], place)
    with_table(site, place, text)
    found = timed(site)
    assert text in "".join(each["found"] for each in found if each["check"] == "table") or not found
    for each in found:
        assert not any(f"{name} =" in each["fix"] for name in DANGEROUS), each


@pytest.mark.parametrize("what", ["silent", "down"])
@pytest.mark.parametrize("kind", ["tcp", "socketmap", "pipemap", "unionmap", "proxy"])
def test_whichever_kind_it_is(site, servers, kind, what):
    text = table(kind, servers[what])
    with_table(site, "virtual_mailbox_maps", text)
    found = {each["check"]: each for each in timed(site)}
    assert "cannot be checked" in found["table"]["found"]
    assert found.keys() == {"table"}


def test_any_number_of_silent_tables_takes_no_longer(site, servers):
    """Each has a name of its own, and all together have a limit."""
    silent = {place: table("socketmap", servers["silent"], place) for place in PLACES}
    more = ", ".join(table("socketmap", servers["silent"], f"more{n}") for n in range(20))
    silent["virtual_alias_maps"] += f", {more}, hash:$config_directory/crm-milter-aliases"
    site.reset(main=silent)
    found = timed(site)
    told = [each for each in found if each["check"] == "table"]
    assert len(told) > len(PLACES)
    assert any("other tables did not answer in time" in each["found"] for each in told)
    for each in found:
        assert not any(f"{name} =" in each["fix"] for name in DANGEROUS), each


def test_a_table_that_answers_is_asked_beside_silent_ones(site, servers):
    site.reset(
        main={
            "virtual_mailbox_domains": "solarmora.com",
            "virtual_mailbox_maps": f"{table('socketmap', servers['silent'])},"
            f" inline:{{{{{planted.HELP}=x}}}}",
        }
    )
    found = {each["check"] for each in timed(site)}
    assert found == {"table", "real-account"}
