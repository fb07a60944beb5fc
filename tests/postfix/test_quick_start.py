"""The quick start of README.md, step by step, against a real Postfix."""

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from attaching import MESSAGE, OTHER, Site, attach, attachable

from lab.base import wait_for

README = (Path(__file__).parents[2] / "README.md").read_text()
(FIRST, *_) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
CRM = "support@v1su0245ewejzhe7.case.my-crm.com"
TEAM, IT, HELP = "team@solarmora.com", "it@solarmora.com", "help@solarmora.com"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    mailboxes = tmp_path_factory.mktemp("quick") / "mailboxes"
    mailboxes.write_text(f"{TEAM} x\n{IT} x\n")
    mailboxes.parent.chmod(0o755)
    main = {
        "virtual_mailbox_domains": "solarmora.com",
        "virtual_mailbox_maps": f"texthash:{mailboxes}",
        "smtpd_milters": OTHER,
    }
    with attachable(main=main, virtual_alias_maps={"abuse@solarmora.com": IT}) as site:
        yield site


def load(site: Site) -> None:
    """Have the file loaded, as `systemctl reload crm-milter` does."""
    before = len(site.milter.lines("reloaded"))
    site.milter.signal(signal.SIGHUP)
    wait_for("the reload", lambda: len(site.milter.lines("reloaded")) > before)


def test_from_the_first_rule_to_a_case(site: Site) -> None:
    site.restore(FIRST)
    load(site)
    assert attach(site).returncode == 0
    # Without an alias of the administrator's own, the CRM's verification mail is refused.
    assert site.checks() == ["test-address"]
    assert site.lab.send("<crm@x.example>", [f"<{HELP}>"], MESSAGE).sent.reply.code == 550
    site.repair()
    site.postfix.take_up()  # as the fix says: the table is a texthash
    assert site.checks() == []
    tried = site.lab.send("<crm@x.example>", [f"<{HELP}>"], MESSAGE)
    assert tried.recipients == [IT]
    assert "would_reroute: to=<help@solarmora.com>" in site.milter.log()
    # Live: the file without the line, loaded as the unit does it.
    site.milter.configure(re.sub(r" *mode: test.*\n", "", FIRST))
    load(site)
    assert attach(site).returncode == 0
    assert site.checks() == []
    sent = site.lab.send("<anna@customer.example>", [f"<{HELP}>"], MESSAGE)
    assert sent.recipients == sorted([CRM, TEAM])
    assert "rerouted: to=<help@solarmora.com>" in site.milter.log()
    logs = (str(site.postfix.maillog.path), str(site.milter.logfile.path))
    server = f"127.0.0.1:{site.postfix.ports['smtp']}"
    options = ("--yes", "--timeout", "20", "--via", server, "--log", *logs)
    done = site.run("verify", HELP, *options)
    assert done.returncode == 0, done
    assert f"arrived: <{CRM}>" in done.stdout


def test_after_detach_an_address_without_a_mailbox_is_refused(site: Site) -> None:
    site.restore(re.sub(r" *mode: test.*\n", "", FIRST))
    load(site)
    assert attach(site).returncode == 0
    sent = site.lab.send("<anna@customer.example>", [f"<{HELP}>"], MESSAGE)
    assert sent.recipients == sorted([CRM, TEAM])
    assert site.run("detach", "--yes").returncode == 0
    refused = site.lab.send("<anna@customer.example>", [f"<{HELP}>"], MESSAGE).sent.reply
    assert (refused.code, "User unknown" in refused.text) == (550, True)
