"""Each finding of `check --postfix` on a running host that has it, and what it says is done.

Afterwards the finding is gone, mail for the rule goes to the CRM, and all other mail goes where it
went before: to mailboxes, to other hosts, from sendmail(1), and nowhere if nobody has the address.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import planted
import pytest
from attaching import CONFIG, Site
from planted import CRM, HELP, IT, RULES, Planted

from crm_milter.postfix.checks.finding import CheckName
from lab.base import free_port, scratch
from lab.milter import Milter
from lab.sink import Sink
from lab.whole import Lab

ANNA, NOBODY, AWAY = "anna@solarmora.com", "nobody@solarmora.com", "joe@elsewhere.example"
MAILBOXES = f"{IT} x\n{ANNA} x\nboss@solarmora.com x\nlost@solarmora.com x\n"
KNOWN = f"{IT} -\n{ANNA} -\n"
OTHERS = (IT, ANNA, NOBODY, "postmaster@mail.lab.example", AWAY)
MESSAGE = b"From: a@customer.example\nSubject: kaputt\n\nhelp\n"
Follow = Callable[["Living"], None]


class Living(Site):
    """A host that `reset` sets up again, with a milter that runs; it is asked before and after."""

    kind = "mailbox"

    def __init__(self, lab: Lab, milter: Milter) -> None:
        super().__init__(lab, milter)
        self.folder = scratch()
        self.mailboxes = self.folder / "mailboxes"
        self._running = ""

    @property
    def socket(self) -> Path:
        return self.milter.socket

    @property
    def ours(self) -> str:
        return self.milter.setting()

    def reset(self, *arguments: Any, **changes: Any) -> None:
        self.milter.stop()
        self.socket.unlink(missing_ok=True)
        self.yaml.unlink()
        self.milter.configure(CONFIG)
        self.milter.start()
        self.lab.fresh()
        (self.yaml.parent / "known").write_text(KNOWN)
        words = {"unix:SOCKET": self.milter.address, "SINK": str(self.lab.sink.port)}
        main, services = changes.pop("main", {}), changes.pop("services", {})
        for word, value in words.items():
            main = {key: each.replace(word, value) for key, each in main.items()}
            services = {
                name: {key: each.replace(word, value) for key, each in options.items()}
                for name, options in services.items()
            }
        master = [each.replace("PORT", str(free_port())) for each in changes.pop("master", ())]
        rest = {"mailboxes": MAILBOXES, **changes}
        super().reset(*arguments, main=main, services=services, master=master, **rest)
        self.postfix.ports |= {name: free_port() for name in services}
        self.postfix.write_config()
        self.postfix.run("postmap", f"hash:{self.postfix.config}/virtual")
        self.age()

    def run_again(self) -> None:
        """Let the milter and Postfix read what is on disk."""
        text = self.yaml.read_text()
        if "socket_mode" not in text:
            text = text.replace("milter:\n", 'milter:\n  socket_mode: "0666"\n')
            self.yaml.write_text(f"{text}metrics: {{listen: none}}\n")
        if self.yaml.read_text() != self._running:
            self.milter.stop()
            self.milter.start()
        self._running = self.yaml.read_text()
        self.age()
        self.postfix.take_up()

    def other_mail(self, but: str) -> tuple[list[int], list[str], list[str]]:
        """How other mail is answered, and who gets it."""
        others = [f"<{each}>" for each in OTHERS if each != but]
        sent = self.lab.send("<a@customer.example>", others, MESSAGE)
        self.lab.sink.clear()
        self.postfix.sendmail("-f", "www@solarmora.com", ANNA, stdin=MESSAGE)
        by_sendmail = [each.recipient for each in self.lab.sink.wait(1, 90)]
        self.lab.sink.clear()
        return [each.code for each in sent.sent.rcpt_replies], sent.recipients, by_sendmail


@pytest.fixture(scope="module")
def site() -> Iterator[Living]:
    patch = pytest.MonkeyPatch()
    patch.setattr(
        planted, "RSPAMD", "{ inet:127.0.0.1:11332, default_action=accept, connect_timeout=1s }"
    )
    with Sink() as sink, Milter(CONFIG) as milter, Lab(sink=sink) as lab:
        yield Living(lab, milter)
    patch.undo()


def edit(old: str, new: str) -> Follow:
    """What is written into the configuration, and the command that the finding names for it."""

    def follow(site: Living) -> None:
        text = site.yaml.read_text()
        assert old in text
        site.yaml.write_text(text.replace(old, new))
        site.run("map", "--write", "--force")

    return follow


def both(*steps: Follow) -> Follow:
    def follow(site: Living) -> None:
        for each in steps:
            each(site)

    return follow


def command_after(words: str) -> Follow:
    """The command that stands behind these words of the advice."""

    def follow(site: Living) -> None:
        (found,) = site.findings()
        command = found["fix"].partition(words)[2]
        assert command, found["fix"]
        site.shell(re.sub(r" && postfix -c \S+ reload$", "", command))

    return follow


def unlisted(site: Living) -> None:
    """The accounts that the finding names are added to known_recipients."""
    (found,) = site.findings()
    names = re.findall(r'"([^" ]+@[^" ]+)"', found["fix"])
    (site.yaml.parent / "known").write_text(KNOWN + "".join(f"{each} -\n" for each in names))
    site.run("map", "--write")


def put(name: str, text: str) -> Follow:
    def write(site: Living) -> None:
        (site.postfix.config / name).write_text(text)

    return write


def in_chroot(site: Living) -> None:
    """As Debian has it: its smtpd runs in a chroot, which the socket is outside of."""
    service = f"127.0.0.1:{site.postfix.port}/inet"
    site.postfix.run("postconf", "-F", f"{service}/chroot=y")


def into_chroot(site: Living) -> None:
    (found,) = site.findings()
    made, listen, command = re.findall(
        r"^run (.+), then set milter.listen to unix:(\S+) in .*, then (.+)$", found["fix"]
    )[0]
    site.shell(made.replace("-o crm-milter", "-o root"))  # the user of the package
    site.yaml.write_text(site.yaml.read_text().replace(str(site.socket), listen))
    site.milter.stop()
    site.socket.symlink_to(listen)  # where the milter is waited for
    site.milter.start()
    site.shell(f"{command} --yes")


def nothing(site: Living) -> None:
    """The advice is words alone."""


@dataclass(frozen=True)
class Case:
    """``goes`` is where mail for help@ goes afterwards; ``stays`` are findings that stay.

    ``prepare`` makes the fault on the host that runs; ``but`` is an address that had none of its
    own mail before.
    """

    changes: dict[str, Any] = field(default_factory=dict)
    follow: Follow = Planted.repair
    goes: tuple[str, ...] = (CRM,)
    prepare: Follow = nothing
    stays: frozenset[str] = frozenset()
    but: str = ""


def rule(more: str) -> dict[str, Any]:
    return {"text": f"{RULES}    {more}\n"}


def matching(more: str) -> dict[str, Any]:
    return {"text": RULES.replace(f"match: {HELP}", f"match: [{HELP}, {more}]")}


def main(**settings: str) -> dict[str, Any]:
    return {"main": settings}


OTHER = "{ inet:127.0.0.1:8891, default_action=accept, connect_timeout=1s }"
DEAD = {
    "head": "spam: rspamd\ndead_letters: lost@solarmora.com\n",
    "main": {"bounce_size_limit": "$message_size_limit"},
}
UNKNOWN = f"""known_recipients: known
rules:
  - {{name: rest, match: "@solarmora.com", replace_with: {CRM}, apply_to: unknown}}
"""
FILTER = "smtp-amavis:[127.0.0.1]:SINK"
BACK = {
    "content_filter": "",
    "mynetworks": "127.0.0.0/8",
    "receive_override_options": "no_unknown_recipient_checks",
    "milter_default_action": "tempfail",
}
BY_FILTER = {
    "head": "spam: amavis\n",
    "has_filter": False,
    "master": ["smtp-amavis unix - - n - 2 smtp"],
    "services": {"back": {**BACK, "receive_override_options": ""}},
}

CASES: dict[str, Case] = {
    "account-unlisted": Case({"text": UNKNOWN}, unlisted),
    "address-domain": Case(matching("help@new.example")),
    "address-mappings": Case({**BY_FILTER, **main(content_filter=FILTER)}, goes=(HELP,)),
    "address-unknown": Case(
        {"text": RULES + f"  - {{name: c, match: gone@solarmora.com, also_deliver_to: {AWAY}}}\n"},
        edit("name: c,", f"name: c, unrouted_to: {IT},"),
    ),
    "alias-domain": Case(
        {"aliases": "@old.example @solarmora.com\n", **main(virtual_alias_domains="old.example")},
        edit(f"match: {HELP}", f"match: [{HELP}, help@old.example]"),
    ),
    "alias-member": Case(
        {"aliases": f"info@solarmora.com {HELP}\nboss@solarmora.com {ANNA}\n"},
        both(Planted.repair, edit(f"match: {HELP}", f"match: [{HELP}, info@solarmora.com]")),
    ),
    "authentication": Case(
        {
            "head": "spam: rspamd\nauthentication: other.example\n",
            **rule("on_unauthenticated: leave"),
        },
        both(
            edit("authentication: other.example", "authentication: mail.lab.example"),
            Planted.repair,  # what mail brings itself is found once the name is right
        ),
    ),
    "bcc-member": Case(
        {
            "main": {"recipient_bcc_maps": "texthash:$config_directory/canonical"},
        },
        prepare=put("canonical", f"{NOBODY} {HELP}\n"),
    ),
    "bounce-size": Case({**DEAD, "main": {"bounce_size_limit": "50000"}}),
    "content-filter": Case(
        {
            **BY_FILTER,
            **main(
                content_filter=FILTER,
                receive_override_options="no_address_mappings",
            ),
        },
        goes=(HELP,),
    ),
    "copy-unknown": Case(
        rule("also_deliver_to: gone@solarmora.com"), goes=("gone@solarmora.com", CRM)
    ),
    "dead-end-target": Case(
        {**DEAD, "aliases": f"lost@solarmora.com {CRM}\n"},
        edit("lost@solarmora.com", "boss@solarmora.com"),
    ),
    "dead-letters": Case({**DEAD, "head": "spam: rspamd\ndead_letters: new@solarmora.com\n"}),
    "dead-letters-remote": Case(
        {**DEAD, "head": f"spam: rspamd\ndead_letters: {AWAY}\n"}, edit(AWAY, "lost@solarmora.com")
    ),
    "dead-letters-shared": Case(
        {**DEAD, "head": f"spam: rspamd\ndead_letters: {IT}\n"},
        edit(f"dead_letters: {IT}", "dead_letters: lost@solarmora.com"),
    ),
    "default-action": Case(main(smtpd_milters="{ unix:SOCKET, default_action=reject }")),
    "delimiter": Case(main(recipient_delimiter="+")),
    "delivery-rate": Case(
        {
            "text": RULES.replace(CRM, "support@company.freshdesk.com"),
            **main(transport_maps="texthash:$config_directory/transport"),
        },
        command_after("minutes: "),
        goes=(),  # over the Internet
    ),
    "dsn-offered": Case(rule("add_headers: {X-Spam-Verdict: '{spam}'}")),
    "foreign-domain": Case(matching("'@gmail.com'"), edit(", '@gmail.com'", "")),
    "header-checks": Case(
        {
            "head": "spam: gmail\n",
            "has_filter": False,
            **main(header_checks="regexp:{{/^X-Gm-Spam:/ IGNORE}}"),
        }
    ),
    "map-missing": Case(main(virtual_alias_maps="texthash:$config_directory/virtual")),
    "map-shadowed": Case({"aliases": f"{HELP} {AWAY}\nboss@solarmora.com {ANNA}\n"}),
    "map-stale": Case(prepare=put("crm-milter-aliases", "# old\n")),
    "message-size": Case({**rule("max_size: 25M"), **main(message_size_limit="1000000")}),
    "map-wildcard": Case({"aliases": f"@solarmora.com {AWAY}\n{ANNA} {ANNA}\n"}, but=IT),
    "milter-maps": Case(
        main(smtpd_milter_maps="inline:{{192.0.2.1=DISABLE}}"),
        nothing,  # words alone: which clients are exempt on purpose is not known
        stays=frozenset({"milter-maps"}),
    ),
    "milter-missing": Case(main(smtpd_milters=OTHER, non_smtpd_milters="$smtpd_milters")),
    "milter-order": Case(main(smtpd_milters="{ unix:SOCKET, default_action=tempfail }, " + OTHER)),
    "notify-classes": Case(main(notify_classes="resource")),
    "original-recipient": Case(main(enable_original_recipient="no")),
    "pattern-unknown": Case(matching("'case-*@solarmora.com'")),
    "proxy-filter": Case(
        {"services": {"sub": {"smtpd_proxy_filter": "10.0.0.1:10024"}}},
        nothing,  # how the filter hands mail back is its own setting
        stays=frozenset({"proxy-filter"}),
    ),
    "real-account": Case(
        {"mailboxes": f"{MAILBOXES}{HELP} x\n"},
    ),
    "reject-after-queue": Case(
        {
            **BY_FILTER,
            **rule("on_spam: reject"),
            **main(
                content_filter=FILTER,
                receive_override_options="no_address_mappings",
                smtpd_milters="",
                non_smtpd_milters="",
            ),
            "services": {"back": {**BACK, "smtpd_milters": "unix:SOCKET"}},
        },
        edit("on_spam: reject", "on_spam: leave"),
        goes=(HELP,),
    ),
    "socket": Case(prepare=lambda site: site.socket.chmod(0o600)),
    "socket-path": Case(prepare=in_chroot, follow=into_chroot),
    "spam-filter": Case({"has_filter": False}, edit("spam: rspamd", "spam: gmail")),
    "table": Case(
        main(
            virtual_alias_maps="hash:$config_directory/virtual,"
            " hash:$config_directory/crm-milter-aliases"
        ),
        prepare=lambda site: (site.postfix.config / "virtual.db").unlink(),
    ),
    "target-local": Case(main(relay_domains="case.my-crm.com")),
    "target-rewritten": Case({"aliases": f"{CRM} {AWAY}\nboss@solarmora.com {ANNA}\n"}),
    "test-address": Case(
        {
            "text": RULES
            + "  - {name: n, match: new@solarmora.com, replace_with: n@crm.example, mode: test}\n"
        }
    ),
    "timeout": Case(main(milter_content_timeout="3s")),
    "unrouted": Case({"unrouted_to": "new@solarmora.com"}),
    "unverified-recipient": Case(
        main(smtpd_recipient_restrictions="permit_mynetworks reject_unverified_recipient")
    ),
}


def test_every_finding_has_a_case():
    assert CASES.keys() == set(get_args(CheckName))


@pytest.mark.parametrize("name", CASES)
def test_its_advice_is_safe(site, name):
    case = CASES[name]
    (site.postfix.config / "canonical").write_text("")
    site.reset(**case.changes)
    site.run_again()
    before = site.other_mail(case.but)
    case.prepare(site)
    site.age()
    assert name in site.checks()
    case.follow(site)
    site.run_again()
    assert {*site.checks()} == case.stays
    assert site.other_mail(case.but) == before
    if case.goes:
        sent = site.lab.send("<a@customer.example>", [f"<{HELP}>"], MESSAGE)
        assert tuple(sent.recipients) == case.goes
