"""``crm-milter verify`` where Postfix sends through a relayhost that is found by its MX record."""

from collections.abc import Callable, Iterator

import pytest
from name_server import name_server
from verifying import shown

from crm_milter.cli import main as cli
from crm_milter.verify.advice import refused_target, relayed, waiting_target
from crm_milter.verify.relayhost import Relayhost
from lab.base import free_port
from lab.sink import Sink
from lab.whole import Lab

RULES = """
unrouted_to: it@solarmora.com
rules:
  - {name: support, match: help@solarmora.com, replace_with: support@case.crm.example}
"""
Verify = Callable[[], tuple[int, str]]


@pytest.fixture(scope="module")
def relay() -> Iterator[Sink]:
    with Sink() as sink:
        yield sink


@pytest.fixture(scope="module")
def lab(make_module_lab: Callable[..., Lab], relay: Sink) -> Iterator[Lab]:
    lab = make_module_lab(
        RULES,
        virtual_alias_maps={"help@solarmora.com": "it@solarmora.com"},
        master=["resolving unix - - y - - smtp"],
        main={
            "default_transport": "resolving",
            "relayhost": f"isp.example:{relay.port}",
            "disable_dns_lookups": "no",
        },
    )
    with name_server(lab.postfix.folder / "queue", {"isp.example": "in.provider.example"}):
        yield lab


@pytest.fixture
def verify(lab: Lab, relay: Sink, capsys: pytest.CaptureFixture[str]) -> Iterator[Verify]:
    def run() -> tuple[int, str]:
        status = cli.main(
            [
                *("verify", "help@solarmora.com", "--yes", "--timeout", "20"),
                *("--config", str(lab.milter.config)),
                *("--config-directory", str(lab.postfix.config)),
                *("--log", str(lab.postfix.maillog.path), str(lab.milter.logfile.path)),
            ]
        )
        said = capsys.readouterr()
        return status, shown(said.out + said.err)

    lab.fresh()
    yield run
    relay.accept()
    lab.postfix.reload()


def test_the_relayhost_accepts(verify: Verify) -> None:
    status, text = verify()
    assert status == 0, text
    assert "in.provider.example[127.0.0.1]" in text
    assert (
        "\n  not the CRM but a mail server of the relayhost of this Postfix (isp.example)"
        " accepted it, unless transport_maps sends mail for the CRM elsewhere:" in text
    )


def test_the_relayhost_refuses(verify: Verify, relay: Sink) -> None:
    relay.refuse("*", "554 5.7.1 relay access denied")
    status, text = verify()
    assert status == 1
    assert "bounced: <support@case.crm.example>: host in.provider.example[127.0.0.1] said:" in text
    assert "\n  not the CRM but a mail server of the relayhost of this Postfix (isp.ex" in text
    assert "the CRM's server refuses" not in text


def test_the_relayhost_defers(verify: Verify, relay: Sink) -> None:
    relay.refuse("*", "451 4.7.1 too much mail")
    status, text = verify()
    assert status == 1
    assert "\n  not the CRM but a mail server of the relayhost of this Postfix (isp.ex" in text
    assert "the CRM's server deferred" not in text


def test_the_relayhost_is_down(lab: Lab, verify: Verify) -> None:
    lab.postfix.settings.main["relayhost"] = f"isp.example:{free_port()}"
    lab.postfix.reload()
    status, text = verify()
    assert status == 1
    assert "\n  not the CRM but a mail server of the relayhost of this Postfix (isp.ex" in text
    assert "the CRM's server does not answer" not in text


NAMED = "but the relayhost of this Postfix"
BY_MX = "but a mail server of the relayhost of this Postfix"


@pytest.mark.parametrize(
    ("relayhost", "words", "told"),
    [
        ("[smtp.isp.example]:587", "connect to smtp.isp.example[192.0.2.9]:587: timed out", NAMED),
        ("[192.0.2.9]", "connect to 192.0.2.9[192.0.2.9]:25: Connection refused", NAMED),
        ("[2001:db8::9]:587", "connect to 2001:db8::9[2001:db8::9]:587: timed out", NAMED),
        ("[a.isp.example], [b.isp.example]", "host b.isp.example[192.0.2.9] said: 451", NAMED),
        ("[a.isp.example] b.isp.example:26", "host mx[192.0.2.9] said: 451 later", BY_MX),
        ("isp.example", "Name service error for name=isp.example type=MX: not found", NAMED),
        ("isp.example", "lost connection with mx1.isp.example[192.0.2.9] while", BY_MX),
        ("ISP.example:587", "conversation with smtp.isp.example[2001:db8::1] timed out", BY_MX),
        # A host whose name has the relayhost's in it is another one.
        ("[crm.example]", "host eu.crm.example[192.0.2.9] said: 550 no such user", ""),
        ("[mail.com]", "host mx.hotmail.com[192.0.2.9] said: 550 no such user", ""),
        ("[isp.example]", "host isp.example.net[192.0.2.9] said: 550 no such user", ""),
        # Nothing was asked.
        ("isp.example", "mail for crm.example loops back to myself", ""),
        ("", "host mx.crm.example[192.0.2.9] said: 550 no such user", ""),
    ],
)
def test_whose_server_it_is(relayhost: str, words: str, told: str) -> None:
    for advice in (waiting_target, refused_target):
        said = advice(words, Relayhost.parse(relayhost))[0]
        assert (f"not the CRM {told} (" in said) if told else "relayhost" not in said


def test_a_relayhost_that_accepted() -> None:
    relayhost = Relayhost.parse("[smtp.isp.example]:587")
    assert relayed("smtp.isp.example[192.0.2.9]:587", relayhost)
    assert not relayed("mx.crm.example[192.0.2.9]:25", relayhost)
    assert not relayed("mx.crm.example[192.0.2.9]:25", Relayhost())


ROUTED = "not the CRM but the next hop in transport_maps"


def route(lab: Lab, table: str, lines: str = "") -> None:
    """Give the CRM a route of its own; {port} is that of the smarthost."""
    path = lab.postfix.config / "routes"
    path.write_text(lines)
    lab.postfix.settings.main.update(transport_maps=table.format(path=path), relayhost="")
    lab.postfix.reload()


@pytest.fixture
def routed(lab: Lab) -> Iterator[Lab]:
    before = dict(lab.postfix.settings.main)
    yield lab
    lab.postfix.settings.main.clear()
    lab.postfix.settings.main.update(before)


@pytest.mark.parametrize(
    "key", ["support@case.crm.example", "case.crm.example", ".crm.example", ".example", "*"]
)
def test_a_smarthost_in_transport_maps(routed: Lab, verify: Verify, relay: Sink, key: str) -> None:
    route(routed, "texthash:{path}", f"{key} resolving:isp.example:{relay.port}\n")
    status, text = verify()
    assert status == 0, text
    assert (
        f"\n  {ROUTED} (in.provider.example)" in text
        or "not the CRM but a mail server of the next hop in transport_maps (isp.example)"
        " accepted it, unless that is the CRM's own server: look for the rest in its log"
        in text
    ), text


def test_a_smarthost_in_a_pattern_of_transport_maps(
    routed: Lab, verify: Verify, relay: Sink
) -> None:
    route(routed, "regexp:{path}", f"/@case\\.crm\\./ resolving:isp.example:{relay.port}\n")
    relay.refuse("*", "554 5.7.1 relay access denied")
    status, text = verify()
    assert status == 1
    assert "the next hop in transport_maps (isp.example) refused it" in text
    assert "the CRM's server refuses" not in text
