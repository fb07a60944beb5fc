"""Where Postfix hands mail for a CRM (transport(5)), and whether that is the CRM's own server."""

from pathlib import Path

import pytest

from crm_milter.config.load import parse
from crm_milter.postfix.mailserver import relayhosts
from crm_milter.postfix.nexthop import next_hop
from crm_milter.postfix.postconf import Postconf
from crm_milter.postfix.site import Site

CONFIG = "rules: [{name: a, match: help@solarmora.com, replace_with: a@case.crm.example}]\n"
MASTER = "".join(
    f"{name} unix - - n - - {program}\n"
    for name, program in [("smtp", "smtp"), ("relay", "smtp"), ("slow", "smtp"), ("error", "error")]
)
TARGET, SENDER = "a+7@case.crm.example", "box@solarmora.com"
DEFAULT = ("smtp", "", "")


def site(folder: Path, main: str, table: str = "") -> Site:
    folder.joinpath("main.cf").write_text(
        "compatibility_level = 3.6\nmyhostname = mail.solarmora.com\nrecipient_delimiter = +\n"
        f"transport_maps = texthash:{folder}/transport\n{main.replace('PATH', str(folder))}"
    )
    folder.joinpath("master.cf").write_text(MASTER)
    folder.joinpath("transport").write_text(table)
    path = folder / "crm-milter.yaml"
    return Site(parse(CONFIG, path), path, Postconf(folder))


@pytest.mark.parametrize(
    ("main", "table", "hop"),
    [
        ("", "", DEFAULT),
        ("relayhost = [isp.example]:587\n", "", ("smtp", "[isp.example]:587", "relayhost")),
        (
            "relayhost = [isp.example]\ndefault_transport = slow:[out.example]\n",
            "",
            ("slow", "[out.example]", "default_transport"),
        ),
        # An entry without a next hop leads to the domain of the recipient, whatever the relayhost.
        ("relayhost = [isp.example]\n", "case.crm.example slow:\n", ("slow", "", "")),
        (
            "relayhost = [isp.example]\n",
            ".crm.example :[hop.example]\n",
            ("smtp", "[hop.example]", "transport_maps"),
        ),
        (
            "relayhost = [isp.example]\n",
            "case.crm.example :\n* slow:[hop.example]\n",
            ("smtp", "[isp.example]", "relayhost"),
        ),
        ("", f"{TARGET} slow:x.example\n* error:no\n", ("slow", "x.example", "transport_maps")),
        ("", "a@case.crm.example slow:[::1]:26\n", ("slow", "[::1]:26", "transport_maps")),
        # A domain does not stand for those below it (parent_domain_matches_subdomains).
        ("", "crm.example slow:\n", DEFAULT),
        (
            "relay_domains = case.crm.example\nrelay_transport = slow:[x.example]\n",
            "",
            ("slow", "[x.example]", "relay_transport"),
        ),
        (
            "sender_dependent_relayhost_maps = inline:{ {@solarmora.com = [own.example]} }\n",
            "",
            ("smtp", "[own.example]", "sender_dependent_relayhost_maps"),
        ),
        (
            "relayhost = [isp.example]\n"
            f"sender_dependent_relayhost_maps = inline:{{ {{{SENDER} = DUNNO}} }}\n",
            "",
            DEFAULT,
        ),
        (
            "sender_dependent_default_transport_maps = static:slow:[y.example]\n",
            "",
            ("slow", "[y.example]", "sender_dependent_default_transport_maps"),
        ),
        # A table that cannot be asked is as empty.
        ("transport_maps = hash:PATH/none\nrelayhost = b\n", "", ("smtp", "b", "relayhost")),
    ],
)
def test_the_next_hop(tmp_path: Path, main: str, table: str, hop: tuple[str, str, str]) -> None:
    found = next_hop(site(tmp_path, main, table), TARGET, SENDER)
    assert (found.transport, found.host, found.named_by) == hop


def test_patterns_are_asked_for_whole_addresses_alone(tmp_path: Path) -> None:
    (tmp_path / "patterns").write_text("/^[.]|^case|^[*]/ slow:[no.example]\n/crm/ slow:[b]\n")
    found = next_hop(site(tmp_path, "transport_maps = regexp:PATH/patterns\n"), TARGET)
    assert found.host == "[b]"


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("smtp:[smtp.isp.example]:587", True),
        ("relay:isp.example", True),
        ("smtp:[192.0.2.9]", True),
        # The CRM's own server, the recipient's MX, a program, a filter or tunnel on this host.
        ("smtp:[in.crm.example]", False),
        ("smtp:crm.example", False),
        ("slow:", False),
        ("error:5.1.1 smtp.isp.example[192.0.2.9] moved", False),
        ("smtp:[127.0.0.1]:2525", False),
    ],
)
def test_what_is_not_the_crm(tmp_path: Path, entry: str, told: bool) -> None:
    made = site(tmp_path, "", f"case.crm.example {entry}\n")
    through = relayhosts(made.config, made.path, tmp_path)
    words = "host smtp.isp.example[192.0.2.9] said: 550 5.1.1 no"
    assert bool(through(SENDER, TARGET).told(words, "refused it")) is told


def test_mail_that_stays_here_has_no_relayhost(tmp_path: Path) -> None:
    made = site(tmp_path, "mydestination = solarmora.com\n", "* smtp:[isp.example]\n")
    through = relayhosts(made.config, made.path, tmp_path)
    assert through(SENDER, "it@solarmora.com").hosts == ()
