"""Beside Debian's spam filters as packaged: ham is routed, spam stays unless asked for."""

import base64

import dkim
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from mailhost import CONFIG, HELP, REPORTS, MailHost
from pods import wait_for

GTUBE = "XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X"
RSPAMD_GTUBE = GTUBE.replace("XJS", "YJS", 1)  # "add header" and not "reject"

ARC = """\
use_domain = "recipient";
sign_inbound = true;
sign_local = true;
allow_hdrfrom_mismatch = true;
allow_username_mismatch = true;
domain { solarmora.com { selector = "arc"; path = "/var/lib/rspamd/arc.key"; } }
"""

# The world is no local network of this rspamd: it would skip the check for one.
DNS = 'dns { nameserver = ["127.0.0.1:1053:1"]; }\nlocal_addrs = [127.0.0.0/8];\n'
RESULTS = 'use = ["authentication-results"];\nskip_local = false;\n'
DNS_SERVER = ("python3", "/source/tests/container/dns.py", "127.0.0.1", "1053")
DNS_SERVER += ("_dmarc.customer.example=v=DMARC1; p=none",)
STRICT = "    on_unauthenticated: leave\n"

AMAVIS = """\
use strict;
@bypass_spam_checks_maps = (0);
@bypass_virus_checks_maps = (1);
@local_domains_acl = ("solarmora.com");
$sa_tag_level_deflt = undef;
$final_spam_destiny = D_PASS;
$spam_quarantine_to = undef;
1;
"""
REINJECTION = (
    "127.0.0.1:10025 inet n - n - - smtpd"
    " -o content_filter= -o mynetworks=127.0.0.0/8 -o smtpd_recipient_restrictions="
    " -o smtpd_relay_restrictions=permit_mynetworks,reject -o local_recipient_maps="
    " -o smtpd_authorized_xforward_hosts=127.0.0.0/8"
    " -o receive_override_options=no_header_body_checks,no_unknown_recipient_checks"
)


def test_behind_rspamd(guarded: MailHost) -> None:
    guarded.write("/etc/rspamd/local.d/options.inc", "enable_test_patterns = true;\n")
    guarded.run("systemctl", "start", "rspamd")
    guarded.run("postconf", "-e", "smtpd_milters=inet:127.0.0.1:11332")
    _wait_for_port(guarded, 11332)
    _attach(guarded, "rspamd")
    _prove(guarded, RSPAMD_GTUBE, "X-Spam: Yes")


def test_what_rspamd_says_of_dmarc(guarded: MailHost) -> None:
    """Mail that fails DMARC is left by the rule that asks, by the id that rspamd writes."""
    with guarded.start(*DNS_SERVER) as names:
        try:
            guarded.write("/etc/rspamd/override.d/options.inc", DNS)
            guarded.write("/etc/rspamd/local.d/milter_headers.conf", RESULTS)
            guarded.run("systemctl", "start", "rspamd")
            guarded.run("postconf", "-e", "smtpd_milters=inet:127.0.0.1:11332")
            _wait_for_port(guarded, 11332)
            name = guarded.run("postconf", "-h", "myhostname").strip()
            text = CONFIG.format(spam="rspamd") + f"authentication: {name}\n"
            guarded.configure(text.replace("  - name: reports", f"{STRICT}  - name: reports"))
            guarded.run("crm-milter", "attach", "--yes")
            assert "authentication" not in guarded.run("crm-milter", "check", "--postfix")
            assert guarded.send(HELP, "hello", "forged")["code"] == 250
            assert "dmarc=fail" in guarded.wait_for_mailbox("forged")
            assert "reason=unauthenticated" in guarded.journal()
            assert guarded.send(REPORTS, "hello", "unasked")["code"] == 250
            guarded.wait_for_crm("unasked")
        finally:
            names.kill()


def test_the_seal_of_rspamd_holds_at_the_crm(guarded: MailHost) -> None:
    """An ARC seal made before crm-milter still verifies at the CRM."""
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    guarded.write("/var/lib/rspamd/arc.key", pem.decode())
    guarded.run("chmod", "644", "/var/lib/rspamd/arc.key")
    guarded.write("/etc/rspamd/local.d/arc.conf", ARC)
    guarded.run("systemctl", "start", "rspamd")
    guarded.run("postconf", "-e", "smtpd_milters=inet:127.0.0.1:11332")
    _wait_for_port(guarded, 11332)
    _attach(guarded, "rspamd")
    assert guarded.send(HELP, "hello", "sealed")["code"] == 250
    message = guarded.wait_for_crm("sealed")["data"].encode()
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
    asked = []

    def answer(name: bytes, timeout: int = 5) -> bytes:
        asked.append(name)
        return record

    outcome, results, reason = dkim.arc_verify(message, dnsfunc=answer)
    assert outcome == dkim.CV_Pass, (results, reason)
    assert set(asked) == {b"arc._domainkey.solarmora.com."}
    altered = message.replace(b"hello", b"hallo")
    assert dkim.arc_verify(altered, dnsfunc=answer)[0] == dkim.CV_Fail


def test_behind_spamassassin(guarded: MailHost) -> None:
    guarded.run("systemctl", "start", "spamd", "spamass-milter", timeout=120)
    guarded.run("postconf", "-e", "smtpd_milters=unix:/spamass/spamass.sock")
    _wait_for_port(guarded, 783)
    _attach(guarded, "spamassassin")
    _prove(guarded, GTUBE, "X-Spam-Flag: YES")


def test_behind_amavis(guarded: MailHost) -> None:
    guarded.write("/etc/amavis/conf.d/50-user", AMAVIS)
    guarded.run("systemctl", "start", "amavis", timeout=120)
    name, transport = (
        "smtp-amavis/unix",
        "smtp-amavis unix - - y - 2 smtp -o smtp_send_xforward_command=yes",
    )
    guarded.run("postconf", "-M", f"{name}={transport}")
    guarded.run("postconf", "-M", f"127.0.0.1:10025/inet={REINJECTION}")
    before = "receive_override_options=no_address_mappings"
    guarded.run("postconf", "-P", f"smtp/inet/{before}")
    guarded.run("postconf", "-P", "smtp/inet/content_filter=smtp-amavis:[127.0.0.1]:10024")
    guarded.run("postfix", "reload")
    _wait_for_port(guarded, 10024)
    _attach(guarded, "amavis")
    _prove(guarded, GTUBE, "X-Spam-Flag: YES")


def _attach(host: MailHost, preset: str) -> None:
    host.configure(CONFIG.format(spam=preset))
    host.run("crm-milter", "attach", "--yes")
    found = host.run("crm-milter", "check", "--postfix", check=False)
    assert "error" not in found.replace("0 errors", "")


def _wait_for_port(host: MailHost, port: int) -> None:
    script = f"import socket; socket.create_connection(('127.0.0.1', {port})).close()"
    # rspamd compiles its expressions at its first start.
    wait_for(f"port {port}", lambda: host.status_of("python3", "-c", script) == 0, 180)


def _prove(host: MailHost, spam: str, mark: str) -> None:
    """Ham is rerouted; spam stays in the mailbox, marked; past the bypass rule it goes on."""
    assert host.send(HELP, "hello", "ham")["code"] == 250
    host.wait_for_crm("ham")
    assert host.send(HELP, spam, "spam")["code"] == 250
    assert mark in host.wait_for_mailbox("spam")
    assert host.send(REPORTS, spam, "report")["code"] == 250
    host.wait_for_crm("report")
    assert [each["id"] for each in host.at_crm()] == ["ham", "report"]
    assert f"left: to=<{HELP}> rule=support reason=spam" in host.journal()
    assert "X-Test-Id: ham" not in host.read("/var/mail/it")
