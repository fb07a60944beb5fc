"""Beside OpenDKIM, OpenDMARC and postsrsd, all as Debian packages them."""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass

import dkim
import pytest
from beside import CUSTOMER, DEAD, configure, mail_from, problems, prove_fine, send, wait_in
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from mailhost import CRM_DOMAIN, HELP, SUPPORT, MailHost


@dataclass(frozen=True)
class Key:
    """A pair of keys for DKIM."""

    pem: str
    record: str

    def sign(self, message: str) -> str:
        """Return the message as customer.example signs it."""
        named = (b"sel", b"customer.example", self.pem.encode())
        covered = [b"from", b"to", b"subject"]
        return str(dkim.sign(message.encode(), *named, include_headers=covered).decode()) + message


@pytest.fixture(scope="module")
def key() -> Key:
    """A key of the world, or of the host."""
    made = rsa.generate_private_key(65537, 2048)
    pem = made.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    public = made.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return Key(pem.decode(), f"v=DKIM1; k=rsa; p={base64.b64encode(public).decode()}")


# OpenDKIM and OpenDMARC

OPENDKIM = """\
Syslog yes
Mode sv
Domain solarmora.com
Selector own
KeyFile /etc/dkimkeys/own.private
UserID opendkim
PidFile /run/opendkim/opendkim.pid
Socket inet:8891@127.0.0.1
Nameservers {address}
"""
OPENDMARC = """\
Syslog true
UserID opendmarc
PidFile /run/opendmarc/opendmarc.pid
PublicSuffixList /usr/share/publicsuffix/public_suffix_list.dat
Socket inet:8893@127.0.0.1
"""


@pytest.fixture
def judged(guarded: MailHost, key: Key) -> Iterator[MailHost]:
    """The host with both filters, and a name server that knows what customer.example publishes."""
    resolver = guarded.read("/etc/resolv.conf")
    published = (
        "_dmarc.customer.example=v=DMARC1; p=none",
        f"sel._domainkey.customer.example={key.record}",
    )
    server = ("python3", "/source/tests/container/dns.py", guarded.address, "53", *published)
    guarded.run("sh", "-c", 'exec "$@" >/dev/null 2>&1 </dev/null &', "sh", *server)
    guarded.write("/etc/resolv.conf", f"nameserver {guarded.address}\n")
    guarded.write("/etc/dkimkeys/own.private", key.pem)
    guarded.run("chown", "opendkim:", "/etc/dkimkeys/own.private")
    guarded.run("chmod", "600", "/etc/dkimkeys/own.private")
    guarded.write("/etc/opendkim.conf", OPENDKIM.format(address=guarded.address))
    guarded.write("/etc/opendmarc.conf", OPENDMARC)
    guarded.run("systemctl", "start", "opendkim", "opendmarc")
    guarded.run("postconf", "-e", "smtpd_milters=inet:127.0.0.1:8891, inet:127.0.0.1:8893")
    guarded.run("postfix", "reload")
    yield guarded
    guarded.run("pkill", "-f", "container/dns.py")
    guarded.write("/etc/resolv.conf", resolver)


def test_what_opendmarc_says_decides(judged: MailHost, key: Key) -> None:
    """Mail whose signature OpenDKIM confirms is routed, signature and all; forged mail is left."""
    name = judged.run("postconf", "-h", "myhostname").strip()
    configure(judged, f"{DEAD}authentication: {name}", "    on_unauthenticated: leave")
    assert "crm-milter" in judged.run("postconf", "-h", "smtpd_milters").split("8893")[1]
    found = problems(judged)
    assert "that a message brings" in found, found
    judged.run("sh", "-c", found.partition("fix:  ")[2].partition("\n")[0])
    prove_fine(judged)
    send(judged, "signed", mail=key.sign(mail_from("signed")))
    taken = judged.wait_for_crm("signed")
    assert "dmarc=pass" in taken["data"]
    record = key.record.encode()
    assert dkim.verify(taken["data"].encode(), dnsfunc=lambda name, timeout=5: record)
    send(judged, "unsigned")
    assert "dmarc=fail" in judged.wait_for_mailbox("unsigned")
    own = f"Authentication-Results: {name}; dmarc=pass\r\n"
    own += f"Authentication-Results: {name}; dkim=pass header.d=customer.example\r\n"
    send(judged, "pretended", fields=own)
    judged.wait_for_mailbox("pretended")
    broken = key.sign(mail_from("altered")).replace("hello", "hallo")
    send(judged, "altered", mail=broken)
    judged.wait_for_mailbox("altered")
    assert [each["id"] for each in judged.at_crm()] == ["signed"]
    assert judged.journal().count("reason=unauthenticated") == 3


def test_check_sees_the_wrong_authserv_id(judged: MailHost) -> None:
    configure(judged, "authentication: mx.elsewhere.example", "    on_unauthenticated: leave")
    found = problems(judged)
    assert 'authentication: is "mx.elsewhere.example"' in found, found
    judged.run("postconf", "-e", "smtpd_milters=inet:127.0.0.1:8891")
    judged.run("crm-milter", "attach", "--yes")
    found = problems(judged)
    assert 'only "OpenDKIM"' in found, found


def test_the_signature_of_opendkim_holds_at_the_crm(judged: MailHost, key: Key) -> None:
    """OpenDKIM signs what a colleague writes, before crm-milter replaces the recipient."""
    configure(judged)
    mail = mail_from("own", "it@solarmora.com")
    script = "import smtplib, sys; s = smtplib.SMTP('127.0.0.1'); s.sendmail(*sys.argv[1:3],"
    script += " sys.stdin.buffer.read()); s.quit()"
    judged.run("python3", "-c", script, "it@solarmora.com", HELP, text=mail)
    data = judged.wait_for_crm("own")["data"].encode()
    asked = []

    def answer(name: bytes, timeout: int = 5) -> bytes:
        asked.append(name)
        return key.record.encode()

    assert dkim.verify(data, dnsfunc=answer)
    assert asked == [b"own._domainkey.solarmora.com."]


# postsrsd

SRS = (
    "sender_canonical_maps=tcp:127.0.0.1:10001",
    "sender_canonical_classes=envelope_sender",
    "recipient_canonical_maps=tcp:127.0.0.1:10002",
    "recipient_canonical_classes=envelope_recipient, header_recipient",
)


@pytest.fixture
def rewritten(guarded: MailHost) -> MailHost:
    """The host with postsrsd, as its README says."""
    defaults = guarded.read("/etc/default/postsrsd")
    domain = re.sub(r"(?m)^SRS_DOMAIN=.*", "SRS_DOMAIN=solarmora.com", defaults)
    guarded.write("/etc/default/postsrsd", domain)
    guarded.run("systemctl", "start", "postsrsd")
    guarded.run("postconf", "-e", *SRS)
    table = guarded.read("/etc/postfix/transport")
    crm = table.split()[-1]
    guarded.write("/etc/postfix/transport", f"{table}customer.example {crm}\n")
    guarded.run("rm", "-f", "/var/mail/rejected")
    guarded.run("postfix", "reload")
    return guarded


def test_a_bounce_to_the_rewritten_sender_reaches_the_customer(rewritten: MailHost) -> None:
    """And no wildcard takes it."""
    configure(rewritten)
    prove_fine(rewritten)
    send(rewritten, "case")
    taken = rewritten.wait_for_crm("case")
    assert taken["to"][0].startswith(f"<{SUPPORT}>")
    assert re.fullmatch(r"SRS0=\S+=customer\.example=anna@solarmora\.com", taken["from"])
    send(rewritten, "returned", taken["from"], "")
    (to,) = rewritten.wait_for_crm("returned")["to"]
    assert to.startswith(f"<{CUSTOMER}>")
    send(rewritten, "other", "any-thing@solarmora.com")
    assert rewritten.wait_for_crm("other")["to"][0].startswith(f"<rest@{CRM_DOMAIN}>")


@pytest.mark.parametrize("domain", ["solarmora.com", "mail.solarmora.com"])
def test_dead_letters_arrive_through_srs(rewritten: MailHost, domain: str) -> None:
    """Their address is what postsrsd sees as the sender; in another domain it is rewritten."""
    rewritten.run("postconf", "-e", "mydestination=solarmora.com, mail.solarmora.com, localhost")
    rewritten.run("postfix", "reload")
    configure(rewritten, f"dead_letters: rejected@{domain}")
    prove_fine(rewritten)
    send(rewritten, "accepted")
    sender = rewritten.wait_for_crm("accepted")["from"]
    assert sender.startswith("SRS0=") is (domain != "solarmora.com")
    rewritten.refuse(SUPPORT)
    send(rewritten, "refused")
    wait_in(rewritten, "/var/mail/rejected", "refused")
    # One whose envelope has others: a copy at once.
    send(rewritten, "both", [HELP, "it@solarmora.com"])
    wait_in(rewritten, "/var/mail/rejected", "both")
    rewritten.wait_for_mailbox("both")
    assert not [each for each in rewritten.at_crm() if each["id"] != "accepted"]
    rewritten.refuse()
    # The report is the first of the two messages in that mailbox.
    report = rewritten.read("/var/mail/rejected").split("\nFrom ")[0].partition("\n")[2]
    rewritten.write("/root/report", f"{report}\n")
    rewritten.run("crm-milter", "resend", "/root/report")
    rewritten.wait_for_crm("refused")
