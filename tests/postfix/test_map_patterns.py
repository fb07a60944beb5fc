"""The table for patterns takes the addresses that crm-milter takes, by the real Postfix."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import planted
import pytest
from attaching import MESSAGE, attach, attachable, main_cf
from planted import CRM, HELP, IT, RULES, Planted

from crm_milter.address import normalise
from crm_milter.config.load import parse
from crm_milter.postfix.alias_patterns import pattern_lines
from lab import smtp
from lab.sink import Sink

RULE = "  - {{name: r{}, match: [{}], replace_with: {}{}}}\n"


@pytest.fixture(scope="module")
def site() -> Iterator[Planted]:
    with Sink() as sink:
        made = planted.make(sink)
        yield made
        made.postfix.stop()
        made.listener.close()


def rules(*matches: str, rest: str = "") -> str:
    return "rules:\n" + "".join(RULE.format(n, each, CRM, rest) for n, each in enumerate(matches))


LOCALS = (
    *("case-7", "CASE-7", "case-", "case", "xcase-7", "case-7-urgent", "case-7-urgentx", "a.b-7"),
    *("a+b", "a+b-7", "case-7+x", "case-+x", "7-urgent+x", "a+b-urgent+x", "+-urgent+x", "-urgent"),
    *("postmaster", "postmaster+x", "Abuse", "abuse-7", "srs0=case-7", "SRS1=x", "prvs=x-urgent"),
    *("axb-7", "a.b-", "a{2}-7", "aa-7", "a/b-7", "a$b-7", "a*b-7", "a|b-7", "a^b-7", "case-12"),
    *("case-1234", "vip-case-7", "mailer-daemon", "double-bounce", "owner-x", "x-request"),
)
PATTERNS = {
    "a star at the end": "'case-*@solarmora.com'",
    "a star at the beginning": "'*-urgent@solarmora.com'",
    "several stars": "'*ca*-*@solarmora.com'",
    "what is special elsewhere": "'a.b-*@solarmora.com', 'a{2}-*@solarmora.com',"
    " 'a/b-*@solarmora.com', 'a$b-*@solarmora.com', 'a|b-*@solarmora.com', 'a^b-*@solarmora.com'",
    "an expression": r"'/case-\d+@solarmora\.com/'",
    "one with alternatives": r"'/(case|vip-case)-[0-9]{1,2}@solarmora\.com/'",
    "one with classes": r"'/[\w.]+-[^\d]+[a-z\.]*@solarmora\.com/'",
    "one with a slash": r"'/a(?:/|\/)b-.@solarmora\.com/'",
}
HAS_PCRE = any(Path("/usr/lib/postfix").glob("*pcre*"))
KINDS = ["regexp", "pcre"] if HAS_PCRE else ["regexp"]
# The extension is not taken off for an expression.
CASES = [
    (name, delimiter)
    for name, text in PATTERNS.items()
    for delimiter in ("", "+", "+-")
    if "/'" not in text or not delimiter
]


def answers(folder: Path, kind: str, lines: list[str], keys: list[str]) -> set[str]:
    """The keys that a table takes, by postmap."""
    table = folder / "patterns"
    table.write_text("".join(f"{line}\n" for line in lines))
    main = folder / "main.cf"
    main.touch()
    then = time.time() - 60
    os.utime(main, (then, then))
    done = subprocess.run(
        ["/usr/sbin/postmap", "-c", folder, "-q", "-", f"{kind}:{table}"],
        input="".join(f"{key}\n" for key in keys),
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert done.stderr == ""
    found = dict(line.split("\t") for line in done.stdout.splitlines())
    assert set(found.values()) <= {IT, *found}
    return {key for key, value in found.items() if value == IT}


@pytest.mark.parametrize(("name", "delimiter"), CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_addresses_as_crm_milter(tmp_path, name, kind, delimiter):
    head = f"unrouted_to: {IT}\nspam: amavis\nrecipient_delimiter: '{delimiter}'\n"
    config = parse(head + rules(PATTERNS[name]), tmp_path / "c.yaml")
    keys = [f"{local}@solarmora.com" for local in LOCALS]
    keys += ["case-7@solarmoraxcom", "case-7@a.solarmora.com", "case-7@solarmora.com.example"]
    taken = {key for key in keys if config.policy.table.match(normalise(key))}
    assert taken
    lines = pattern_lines(config.policy.table, config.unrouted_to)
    assert answers(tmp_path, kind, lines, keys) == taken


def test_what_belongs_to_somebody_else_stays_out(tmp_path):
    (tmp_path / "known").write_text("case-9@solarmora.com -\n")
    text = f"""unrouted_to: {IT}
known_recipients: known
spam: amavis
rules:
  - {{name: own, match: case-7@solarmora.com, also_deliver_to: team@solarmora.com}}
  - {{name: test, match: 'test-*@solarmora.com', replace_with: {CRM}, mode: test}}
  - {{name: cases, match: 'case-*@solarmora.com', replace_with: {CRM}, apply_to: unknown}}
"""
    config = parse(text, tmp_path / "c.yaml")
    lines = pattern_lines(config.policy.table, config.unrouted_to)
    keys = [f"{each}@solarmora.com" for each in ("case-7", "case-8", "case-9", "test-1")]
    assert answers(tmp_path, "regexp", lines, keys) == {"case-8@solarmora.com"}


@pytest.mark.parametrize(
    "match",
    [
        r"'/\pL+@x\.example/'",
        r"'/(?i)a@x\.example/'",
        r"'/\ba@x\.example/'",
        r"'/[\-a]b@x\.example/'",
        r"'/a+?@x\.example/'",
        r"'/[[:alpha:]]@x\.example/'",
        "'ä*@x.example'",
    ],
)
def test_what_pcre_would_understand_otherwise_is_left_out(tmp_path, match):
    config = parse(f"unrouted_to: {IT}\nspam: amavis\n" + rules(match), tmp_path / "c.yaml")
    assert pattern_lines(config.policy.table, IT) == []


def test_postfix_refuses_a_pattern_until_it_has_the_table(site):
    match = r"'case-*@solarmora.com', '/no-\d+@solarmora\.com/'"
    site.reset(rules(HELP, match), {"smtpd_milters": "", "non_smtpd_milters": ""})
    site.postfix.settings.main |= {"smtpd_milters": "", "non_smtpd_milters": ""}
    site.postfix.reload()
    assert answer(site, "case-7@solarmora.com") == 550
    site.reset(rules(HELP, match))
    (found,) = site.findings()
    assert found["check"] == "pattern-unknown"
    site.repair()
    assert site.findings() == []
    site.postfix.run("postconf", "smtpd_milters=", "non_smtpd_milters=")
    site.age()
    site.postfix.take_up()
    assert answer(site, "case-7@solarmora.com") == 250
    assert answer(site, "no-7@solarmora.com") == 250
    assert answer(site, "no-x@solarmora.com") == 550
    assert answer(site, f"it+{HELP}") == 550
    # Another rule, and the table follows.
    site.yaml.write_text(site.yaml.read_text().replace("case-", "call-"))
    done = site.run("map", "--write")
    assert "crm-milter-patterns: written" in done.stdout
    assert site.run("map", "--write").stdout.count("written") == 0


def answer(site: Planted, recipient: str) -> int:
    """What Postfix says to a recipient."""
    message = b"Subject: a\n\nb\n"
    return smtp.send(site.postfix.port, "<a@a.example>", [f"<{recipient}>"], message).reply.code


def test_no_pattern_no_table(site):
    site.reset(RULES)
    assert not (site.postfix.config / "crm-milter-patterns").exists() or site.findings() == []


MAILBOXES = {
    "virtual_mailbox_domains": "solarmora.com",
    "virtual_mailbox_maps": f"inline:{{{IT}=y}}",
}
CASES_RULE = f"unrouted_to: {IT}\nspam: rspamd\n" + rules("'case-*@solarmora.com'")


@pytest.mark.parametrize("listed", ["", "{}", "inline:{{{{other@solarmora.com=x}}}}, {}"])
def test_attach_adds_both_tables_at_once(listed):
    """Also where main.cf names the first, which is not written yet."""
    text = f"unrouted_to: {IT}\nspam: rspamd\n" + rules(f"{HELP}, 'case-*@solarmora.com'")
    with attachable(main=MAILBOXES, virtual_alias_maps={IT: IT}) as site:
        site.milter.stop()
        value = listed.format(f"hash:{site.postfix.config}/crm-milter-aliases")
        site.restore(text, f"virtual_alias_maps = {value}\n")
        done = attach(site)
        assert done.returncode == 0, done
        assert "pattern-unknown" not in site.checks()
        for recipient in (HELP, "case-7@solarmora.com"):
            sent = site.lab.send("<a@a.example>", [f"<{recipient}>"], MESSAGE)
            assert sent.recipients == [CRM], sent
            site.lab.fresh()


def test_attach_adds_the_table_and_detach_removes_it():
    with attachable(main=MAILBOXES, virtual_alias_maps={IT: IT}) as site:
        site.milter.stop()
        before = site.restore(CASES_RULE)  # starts it with these rules
        case = ("<a@a.example>", ["<case-7@solarmora.com>"], MESSAGE)
        assert site.lab.send(*case).sent.reply.code == 550
        done = attach(site)
        assert done.returncode == 0, done
        assert f"{site.postfix.config}/crm-milter-patterns" in main_cf(site)
        assert "pattern-unknown" not in site.checks()
        assert site.lab.send(*case).recipients == [CRM]
        assert attach(site).stdout.endswith("already attached, nothing to do\n")
        # A rule that is gone does not take the table with it unasked.
        site.yaml.write_text(site.yaml.read_text().replace("'case-*@", "'help@"))
        done = site.run("map", "--write")
        assert (done.returncode, "would be emptied" in done.stderr) == (1, True)
        assert site.run("map", "--write", "--force").returncode == 0
        assert site.run("detach", "--yes").returncode == 0
        assert site.texts() == before


def test_an_attach_that_fails_leaves_no_table(monkeypatch):
    monkeypatch.setattr("crm_milter.postfix.attach.proof.PATIENCE", 0.5)
    with attachable(main=MAILBOXES, virtual_alias_maps={IT: IT}) as site:
        before = site.restore(CASES_RULE)
        site.milter.socket.chmod(0o600)
        done = attach(site)
        assert (done.returncode, "rolled back" in done.stdout) == (1, True)
        assert site.texts() == before
