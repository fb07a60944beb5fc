"""`check --postfix` on the ways around crm-milter, and on mail that a rule must not take."""

from collections.abc import Callable

import planted
import pytest
from planted import CRM, HELP, IT, RULES, Planted

from crm_milter.postfix.postconf import Postconf


@pytest.fixture(scope="module")
def local(plant: Callable[..., Planted]) -> Planted:
    return plant("local")


def edit(old: str, new: str) -> Callable[[Planted], None]:
    """What a finding tells a person to write into the configuration."""

    def follow(site: Planted) -> None:
        text = site.yaml.read_text()
        assert old in text
        site.yaml.write_text(text.replace(old, new))
        site.run("map", "--write", "--force")
        site.age()

    return follow


MORE = f"[{HELP}, %s]"
BOTH = IT + " x\nteam@solarmora.com x\n"
CANONICAL = "inline:{%s}"

# A name: what is wrong, the check that finds it, and what is done; None: the command is run.
FAULTS = {
    "an alias domain": (
        {
            "aliases": "@old.example @solarmora.com\n",
            "main": {"virtual_alias_domains": "old.example"},
        },
        "alias-domain",
        edit(f"match: {HELP}", f"match: {MORE % 'help@old.example'}"),
    ),
    "an alias domain in a table that cannot be listed": (
        {
            "main": {
                "virtual_alias_domains": "old.example",
                "virtual_alias_maps": "regexp:{{/^@old\\.example/ @solarmora.com}},"
                " hash:$config_directory/crm-milter-aliases",
            }
        },
        "alias-domain",
        edit(f"match: {HELP}", f"match: {MORE % 'help@old.example'}"),
    ),
    "a domain that is canonically another": (
        {
            "aliases": "old.example x\n@old.example x@elsewhere.example\n",
            "main": {
                "virtual_alias_domains": "old.example",
                "canonical_maps": CANONICAL % "{@old.example = @solarmora.com}",
            },
        },
        "alias-domain",
        edit(f"match: {HELP}", f"match: {MORE % 'help@old.example'}"),
    ),
    "an address that is canonically routed": (
        {
            "canonical": f"info@solarmora.com {HELP}\n",
            "main": {"recipient_canonical_maps": "texthash:$config_directory/canonical"},
        },
        "alias-member",
        edit(f"match: {HELP}", f"match: {MORE % 'info@solarmora.com'}"),
    ),
    "every message copied to the address": ({"main": {"always_bcc": HELP}}, "bcc-member", None),
    "a copy of some mail to the address": (
        {
            "canonical": f"boss@solarmora.com {HELP}\n",
            "main": {"sender_bcc_maps": "texthash:$config_directory/canonical"},
        },
        "bcc-member",
        None,
    ),
    "a copy of mail for one to the address": (
        {
            "canonical": f"# comment\nother@x.example a@b.example\n@solarmora.com {HELP}\n",
            "main": {"recipient_bcc_maps": "texthash:$config_directory/canonical"},
        },
        "bcc-member",
        None,
    ),
    "a target that is an alias": (
        {"aliases": f"{CRM} boss@elsewhere.example\nx@a.example y@b.example\n"},
        "target-rewritten",
        None,
    ),
    "a domain of targets that is rewritten": (
        {"aliases": "@v1.case.my-crm.com boss@elsewhere.example\n"},
        "target-rewritten",
        None,
    ),
    "a target that is rewritten on its way": (
        {
            "canonical": f"{CRM} boss@elsewhere.example\n",
            "main": {"smtp_generic_maps": "texthash:$config_directory/canonical"},
        },
        "target-rewritten",
        None,
    ),
    "a target that is masqueraded": (
        {
            "main": {
                "masquerade_domains": "my-crm.com",
                "masquerade_classes": "envelope_sender, envelope_recipient",
            }
        },
        "target-rewritten",
        None,
    ),
    "unrouted_to is an alias of the target": (
        {
            "unrouted_to": "boss@solarmora.com",
            "aliases": f"boss@solarmora.com chief@solarmora.com\nchief@solarmora.com {CRM}\n",
        },
        "dead-end-target",
        edit("boss@solarmora.com", IT),
    ),
    "unrouted_to is an alias of the target in other letters": (
        {
            "unrouted_to": "boss@solarmora.com",
            "aliases": f"boss@solarmora.com it@solarmora.com, {CRM.upper()}\n",
        },
        "dead-end-target",
        edit("boss@solarmora.com", IT),
    ),
    "bounces go to an alias of the target": (
        {
            "text": RULES + "    dead_letters: boss@solarmora.com\n",
            "mailboxes": f"{IT} x\nlost@solarmora.com x\n",
            "main": {"bounce_size_limit": "$message_size_limit"},
            "aliases": f"boss@solarmora.com {CRM}\n",
        },
        "dead-end-target",
        edit("boss@solarmora.com", "lost@solarmora.com"),
    ),
    "a copy for nobody": (
        {"text": RULES + "    also_deliver_to: [gone@solarmora.com, it@solarmora.com]\n"},
        "copy-unknown",
        None,
    ),
    "a copy to an alias of nobody": (
        {
            "text": RULES + "    also_deliver_to: team@solarmora.com\n",
            "aliases": "team@solarmora.com gone@solarmora.com\n",
        },
        "copy-unknown",
        edit("also_deliver_to: team@solarmora.com", f"also_deliver_to: {IT}"),
    ),
    "the mail of a public provider": (
        {"text": RULES.replace(f"match: {HELP}", f"match: [{HELP}, '@gmail.com']")},
        "foreign-domain",
        edit(", '@gmail.com'", ""),
    ),
    "one address of a public provider": (
        {"text": RULES.replace(f"match: {HELP}", f"match: [{HELP}, joe@gmail.com]")},
        "foreign-domain",
        edit(", joe@gmail.com", ""),
    ),
    "a pattern in a domain of others": (
        {"text": RULES.replace(f"match: {HELP}", f"match: [{HELP}, 'case-*@partner.example']")},
        "foreign-domain",
        edit(", 'case-*@partner.example'", ""),
    ),
    "a new address in test mode": (
        {
            "text": RULES
            + "  - {name: new, match: new@solarmora.com, replace_with: n@crm.example, mode: test}\n"
        },
        "test-address",
        None,
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_way_around_is_found_and_ends_by_what_is_told(site, name):
    changes, expected, follow = FAULTS[name]
    changes = dict(changes)
    table = site.postfix.config / "canonical"
    table.write_text(changes.pop("canonical", ""))
    site.reset(**changes)
    found = site.findings()
    assert [each["check"] for each in found] == [expected]
    (follow or Planted.repair)(site)
    assert site.findings() == []


UNKNOWN = f"""known_recipients: known
rules:
  - {{name: rest, match: "@solarmora.com", replace_with: {CRM}, apply_to: unknown}}
"""


def add_known(site: Planted, found: str) -> None:
    names = planted.re.findall(r'"([^" ]+@[^" ]+)"', found)
    with (site.folder / "known").open("a") as known:
        known.write("".join(f"{each} -\n" for each in names))
    site.run("map", "--write")
    site.age()


ACCOUNTS = {
    "a mailbox": ({"mailboxes": f"{IT} x\nanna@solarmora.com x\n"}, ["anna"]),
    "an alias": ({"aliases": "info@solarmora.com boss@elsewhere.example\n"}, ["info"]),
    "one in a pattern table": (
        {"main": {"virtual_mailbox_maps": "regexp:{{/^(it|root|hostmaster)@solarmora.com/ x}}"}},
        ["root", "hostmaster"],
    ),
    "several": (
        {"mailboxes": f"{IT} x\n" + "".join(f"u{n}@solarmora.com x\n" for n in range(9))},
        [f"u{n}" for n in range(9)],
    ),
}


@pytest.mark.parametrize("name", ACCOUNTS)
def test_an_account_that_known_recipients_does_not_list(site, name):
    changes, missing = ACCOUNTS[name]
    (site.folder / "known").write_text(f"{IT} -\n")
    site.reset(UNKNOWN, **changes)
    found = [each for each in site.findings() if each["severity"] == "error"]
    assert [each["check"] for each in found] == ["account-unlisted"]
    told = found[0]["fix"]
    assert all(f'"{each}@solarmora.com"' in told for each in missing)
    add_known(site, told)
    rest = site.findings()
    assert [each["severity"] for each in rest] in ([], ["warning"])


def test_accounts_of_the_host_and_its_aliases(local):
    (local.folder / "known").write_text(f"{IT} -\n")
    (local.folder / "aliases").write_text("hostmaster: root\npostmaster: root\nit: root\n")
    local.postfix.run("postalias", f"hash:{local.folder}/aliases")
    local.reset(
        UNKNOWN,
        {
            "local_recipient_maps": "proxy:unix:passwd.byname $alias_maps",
            "alias_maps": f"hash:{local.folder}/aliases",
        },
    )
    (found,) = local.findings()
    assert found["check"] == "account-unlisted"
    assert "yp_" not in found["fix"]  # what postalias notes in the table for NIS
    assert '"root@solarmora.com"' in found["fix"]
    assert '"hostmaster@solarmora.com"' in found["fix"]
    assert "postmaster" not in found["fix"]  # wildcards never match it
    add_known(local, found["fix"])
    assert local.findings() == []


def local_aliases(site: Planted, text: str, **more: str) -> None:
    path = site.folder / "aliases"
    path.write_text(text)
    site.postfix.run("postalias", f"hash:{path}")
    settings = {"local_recipient_maps": "$alias_maps", "alias_maps": f"hash:{path}"}
    settings |= {"myorigin": "solarmora.com", **more}
    site.reset(main=settings)


def test_the_command_for_local_aliases_keeps_the_table(local):
    """postmap would write another format, and nobody named there would get mail any more."""
    local_aliases(
        local, "it: root\npostmaster: root\nSupport : help\nteam: a@b.example,\n c@d.example\n"
    )
    (found,) = local.findings()
    assert found["check"] == "alias-member"
    assert '"help@solarmora.com"' in found["found"]
    local.repair()
    assert local.findings() == []
    table = f"hash:{local.folder}/aliases"
    for key, value in {"postmaster": "root", "team": "a@b.example, c@d.example"}.items():
        assert local.postfix.run("postalias", "-q", key, table).stdout.decode().strip() == value
    listed = local.postfix.run("postalias", "-s", table).stdout.decode()
    assert "support" not in listed


@pytest.mark.parametrize(
    "text",
    [
        "it: root\nsupport: help,\n  boss@b.example\nteam: a@b.example\n",
        "it: root\nsupport: help\n# note\n  , boss@b.example\n",
        "it: root\nsupport: help\nsupport: help\n",
        'it: root\n"support": help\n',
    ],
)
def test_an_entry_of_several_lines_is_left_to_a_person(local, text):
    local_aliases(local, text)
    (found,) = local.findings()
    assert "in an editor, then run postalias " in found["fix"]


def test_myorigin_in_a_file(local):
    name = local.folder / "mailname"
    name.write_text("solarmora.com\n")
    local_aliases(local, "it: root\nsupport: help\n", myorigin=str(name))
    assert local.checks() == ["alias-member"]
    name.write_text("elsewhere.example\n")
    assert local.checks() == []


def test_an_alias_to_a_user_without_a_domain_is_a_mailbox(site):
    """virtual(5): the domain of such a member is myorigin, not that of the alias."""
    site.reset(
        unrouted_to="team@solarmora.com",
        aliases="team@solarmora.com root\n",
        main={
            "myorigin": "here.example",
            "mydestination": "here.example",
            "local_recipient_maps": "unix:passwd.byname",
        },
    )
    assert site.findings() == []


REJECT = {
    "on_spam": "    on_spam: reject\n",
    "on_oversize": "    max_size: 1M\n    on_oversize: reject\n",
}
BACK = {"content_filter": "", "receive_override_options": "no_unknown_recipient_checks"}


@pytest.mark.parametrize("key", REJECT)
@pytest.mark.parametrize("by", ["content_filter", "access", "header_checks"])
def test_a_refusal_behind_an_after_queue_filter_is_a_bounce(site, key, by):
    main = {
        "content_filter": {"content_filter": "smtp:[127.0.0.1]:10024"},
        "access": {
            "smtpd_client_restrictions": "check_client_access"
            " pcre:{{/./ FILTER smtp:[127.0.0.1]:10024}}"
        },
        "header_checks": {"header_checks": "regexp:{{/^Subject:/ FILTER smtp:[127.0.0.1]:10024}}"},
    }[by]
    if by != "header_checks":  # the others take all mail
        main |= {
            "receive_override_options": "no_address_mappings",
            "smtpd_milters": "",
            "non_smtpd_milters": "" if by == "content_filter" else site.ours,
        }
    site.reset(
        RULES + REJECT[key],
        main,
        head="spam: amavis\n",
        services={"back": {**BACK, "smtpd_milters": site.ours}},
    )
    (found,) = site.findings()
    assert found["check"] == "reject-after-queue"
    assert key in found["found"]
    edit("reject", "leave")(site)
    assert site.findings() == []


def test_a_refusal_before_the_queue_is_none_of_that(site):
    proxy = {"smtpd_proxy_filter": "127.0.0.1:10024"}
    site.reset(RULES + REJECT["on_spam"], proxy, services={"back": {"smtpd_proxy_filter": ""}})
    assert site.findings() == []
    site.reset(RULES + REJECT["on_spam"])
    assert site.findings() == []


def test_an_access_table_is_asked_about_all_addresses_at_once(site, monkeypatch):
    many = ", ".join(f"a{at}@solarmora.com" for at in range(200))
    table = "texthash:$config_directory/virtual"
    site.reset(
        RULES.replace(f"match: {HELP}", f"match: [{many}]"),
        main={"smtpd_recipient_restrictions": f"check_recipient_access {table}, permit"},
    )
    asked = []
    run = Postconf.run

    def count(self, tool, *arguments, **keywords):
        asked.append(tool)
        return run(self, tool, *arguments, **keywords)

    monkeypatch.setattr(Postconf, "run", count)
    assert "unverified-recipient" not in site.checks()
    assert asked.count("postmap") < 30
