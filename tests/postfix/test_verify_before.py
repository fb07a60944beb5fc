"""What ``crm-milter verify`` sees to before it sends, and says beyond the outcome."""

import gzip
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from verifying import RULES, shown

from crm_milter.cli import main as cli
from crm_milter.verify.advice import refused_target, waiting_target
from crm_milter.verify.relayhost import Relayhost
from lab.base import free_port, scratch
from lab.sink import Sink
from lab.whole import Lab

ALIASES = {"help@solarmora.com": "it@solarmora.com", "team@solarmora.com": "bob@solarmora.com"}
# A content filter on a pipe: it submits the mail again, and Postfix does not see as what.
REINJECT = """#!/usr/bin/python3
import smtplib, sys
with smtplib.SMTP("127.0.0.1", {port}) as client:
    client.sendmail(sys.argv[1], sys.argv[2:], sys.stdin.buffer.read())
"""


@pytest.fixture(scope="module")
def certificate() -> Path:
    """A key and a certificate that nobody has signed, as Postfix has by default."""
    path = scratch() / "server.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail.lab.example")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(9))
    signed = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + signed)
    return path


@pytest.fixture(scope="module")
def silent_sink() -> Iterator[Sink]:
    """The server of a CRM that does not offer DSN."""
    with Sink(dsn=False) as sink:
        yield sink


@pytest.fixture(scope="module")
def wrapped() -> int:
    """A port other than 465 whose smtpd speaks TLS from the start."""
    return free_port()


@pytest.fixture(scope="module")
def shared(
    make_module_lab: Callable[..., Lab], certificate: Path, silent_sink: Sink, wrapped: int
) -> Lab:
    tls = {"smtpd_tls_chain_files": str(certificate)}
    return make_module_lab(
        RULES.replace("spam: amavis\n", "")
        + "  - {name: nodsn, match: nodsn@solarmora.com, replace_with: case@nodsn.example}\n"
        + "  - {name: own, match: own@solarmora.com, replace_with: case@nodsn.example,\n"
        + "     dead_letters: bounces@solarmora.com}\n",
        virtual_alias_maps=ALIASES,
        transport_maps={"nodsn.example": silent_sink},
        master=[
            "tlsmgr unix - - n 1000? 1 tlsmgr",
            f"127.0.0.1:{wrapped} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes"
            f" -o smtpd_tls_chain_files={certificate}",
        ],
        services={
            "offered": {"smtpd_tls_security_level": "may", **tls},
            "required": {"smtpd_tls_security_level": "encrypt", **tls},
            "broken": {"smtpd_tls_security_level": "may", "smtpd_tls_ciphers": "high", **tls,
                       "smtpd_tls_mandatory_protocols": "!TLSv1", "smtpd_tls_protocols": ">=TLSv9"},
            "unavailable": {"smtpd_tls_security_level": "may",
                            "smtpd_tls_chain_files": "/nonexistent"},
            "login": {"smtpd_client_restrictions": "check_client_access "
                      "inline:{{127.0.0.1=REJECT 5.7.0 Authentication required}}"},
        },
    )  # fmt: skip


@pytest.fixture
def lab(shared: Lab) -> Lab:
    shared.fresh()
    return shared


@pytest.fixture
def verify(lab: Lab, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    def run(address: str, *arguments: str, service: str = "smtp") -> tuple[int, str]:
        words = list(arguments)
        if "--log" not in words:
            words += ["--log", str(lab.postfix.maillog.path), str(lab.milter.logfile.path)]
        if not {"--config-directory", "--via"} & {*words}:
            words += ["--via", f"127.0.0.1:{lab.postfix.ports[service]}"]
        words += ["--yes", "--timeout", "20", "--config", str(lab.milter.config)]
        status = cli.main(["verify", address, *words])
        said = capsys.readouterr()
        return status, shown(said.out + said.err)

    return run


Verify = Callable[..., tuple[int, str]]


def directory(path: Path) -> None:
    path.mkdir()


def written(octets: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(octets) and None


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda _: None, "no such file or directory"),
        (directory, "is a directory"),
        (written(b"unrouted_to: it@solarmora.com\n"), "no line of Postfix or crm-milter in"),
        (written(bytes(9999)), "no line of Postfix or crm-milter in"),
        (written(gzip.compress(b"Nov 22 03:52:34 mail postfix/qmgr[6]: 171EB2103A4: removed\n")),
         "is compressed, so no new lines will appear"),
        (written(b"Nov 22 03:52:34 mail postfix/qmgr[6]: 171EB2103A4: removed\n"),
         "nothing was sent: the session with SERVER is not in"),
    ],
)  # fmt: skip
def test_a_log_that_cannot_tell(
    verify: Verify, lab: Lab, tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / "log"
    make(path)
    status, text = verify("help@solarmora.com", "--log", str(path))
    assert status == 1
    assert said in text
    assert "sent      to" not in text
    assert lab.sink.received == []
    assert lab.postfix.queue() == []


def test_the_log_of_another_instance(
    verify: Verify, lab: Lab, make_lab: Callable[..., Lab]
) -> None:
    other = make_lab()
    status, text = verify("help@solarmora.com", "--log", str(other.postfix.maillog.path))
    assert status == 1
    assert "or its instance with --config-directory" in text
    assert lab.sink.received == []


@pytest.mark.parametrize("service", ["offered", "required", "broken", "unavailable"])
def test_starttls(verify: Verify, lab: Lab, service: str) -> None:
    status, text = verify("help@solarmora.com", service=service)
    assert status == 0, text
    assert "\narrived: <support@crm.example>: 250 2.0.0 taken\n" in text


def test_tls_from_the_start(verify: Verify, wrapped: int) -> None:
    status, text = verify("help@solarmora.com", "--via", f"127.0.0.1:{wrapped}")
    assert status == 0, text
    assert "\narrived: <support@crm.example>: 250 2.0.0 taken\n" in text


def test_a_service_for_mail_clients(verify: Verify) -> None:
    status, text = verify("help@solarmora.com", service="login")
    assert status == 1
    assert "  this service is for mail clients that log in: name the smtpd" in text


def test_the_instance_of_config_directory(verify: Verify, lab: Lab) -> None:
    status, text = verify("help@solarmora.com", "--config-directory", str(lab.postfix.config))
    assert status == 0, text
    assert "sent      to SERVER" in text


def test_a_server_that_offers_dsn(verify: Verify) -> None:
    text = verify("help@solarmora.com")[1]
    assert "\ndsn       127.0.0.1 offers DSN: it is told not to bounce to the sender\n" in text


def test_a_server_without_dsn(verify: Verify) -> None:
    status, text = verify("nodsn@solarmora.com")
    assert status == 0
    assert "\ndsn       127.0.0.1 offers no DSN: if it accepts mail and bounces it later" in text


def test_bounces_to_a_mailbox_of_ours(verify: Verify, silent_sink: Sink) -> None:
    status, text = verify("own@solarmora.com")
    assert status == 0
    assert "\ndsn " not in text
    assert "\nbounce " not in text
    silent_sink.refuse("*", "551 5.1.6 no such case")
    try:
        status, text = verify("own@solarmora.com")
    finally:
        silent_sink.accept()
    assert status == 1
    assert "\nbounce    <bounces@solarmora.com> (dead_letters) gets the whole message\n" in text


@pytest.fixture
def piped(make_lab: Callable[..., Lab]) -> Lab:
    script = scratch() / "filter"
    argv = f"argv={script} ${{sender}} ${{recipient}}"
    entry = f"filter unix - n n - - pipe flags=Rq user=nobody {argv}"
    lab = make_lab(
        RULES.replace("spam: amavis\n", ""),
        virtual_alias_maps=ALIASES,
        master=[entry],
        services={"outer": {
            "content_filter": "filter:dummy", "smtpd_milters": "",
            "receive_override_options": "no_address_mappings",
        }},
    )  # fmt: skip
    script.write_text(REINJECT.format(port=lab.postfix.port))
    script.chmod(0o755)
    script.parent.chmod(0o755)
    return lab


def test_a_filter_on_a_pipe_is_no_double(piped: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    status = cli.main(
        [
            *("verify", "help@solarmora.com", "--yes", "--timeout", "20"),
            *("--config", str(piped.milter.config)),
            *("--via", f"127.0.0.1:{piped.postfix.ports['outer']}"),
            *("--log", str(piped.postfix.maillog.path), str(piped.milter.logfile.path)),
        ]
    )
    text = capsys.readouterr().out
    assert "\narrived: <support@crm.example>" in text, text
    assert status == 0


@pytest.mark.parametrize(
    "words",
    [
        "connect to smtp.isp.example[192.0.2.9]:587: Connection timed out",
        "connect to SMTP.ISP.example[192.0.2.9]:25: Connection refused",
        "host smtp.isp.example[192.0.2.9] said: 451 4.7.1 too many (in reply to RCPT TO command)",
        "Host or domain name not found. Name service error for name=smtp.isp.example type=A",
        "TLS is required, but was not offered by host smtp.isp.example[192.0.2.9]",
    ],
)
def test_the_relayhost_of_this_host_is_not_the_crm(words: str) -> None:
    assert (
        "relayhost of this Postfix (smtp.isp.example) failed"
        in waiting_target(words, Relayhost.parse("[smtp.isp.example]:587"))[0]
    )
    assert "relayhost" not in waiting_target(words)[0]


def test_the_relayhost_wants_a_login() -> None:
    words = "host smtp.isp.example[192.0.2.9] said: 530 5.7.0 Authentication required"
    assert (
        "smtp_sasl_auth_enable" in refused_target(words, Relayhost.parse("[smtp.isp.example]"))[1]
    )
