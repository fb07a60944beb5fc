"""What ``verify`` says of DSN at the CRM's server, which may offer it before STARTTLS or after."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from test_verify_before import certificate  # noqa: F401 - a fixture

from crm_milter.trace.lines import Delivery
from crm_milter.verify import aftermath
from crm_milter.verify.probe import Offer, offers_dsn

Ask = Callable[[str, str], int]


class Server(threading.Thread):
    """Greets, tells its extensions, other ones once encrypted, and breaks off there if told so."""

    def __init__(self, plain: str, encrypted: str, key: Path) -> None:
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.offers = [plain.split(), encrypted.split()]
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(key)

    def run(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                with client, suppress(OSError, IndexError):
                    client.sendall(b"220 crm.example ESMTP\r\n")
                    self.serve(client, self.offers[0])

    def serve(self, client: socket.socket, now: list[str]) -> None:
        while line := client.recv(1000):
            command = line.decode().upper().split()[0]
            if command == "EHLO":
                words = ["crm.example", *now]
                ends = [*["-"] * (len(words) - 1), " "]
                text = "".join(f"250{end}{word}\r\n" for word, end in zip(words, ends, strict=True))
                client.sendall(text.encode())
            elif command == "STARTTLS":
                if self.offers[1] == ["NONE"]:
                    client.sendall(b"454 4.7.0 TLS not available\r\n")
                    continue
                client.sendall(b"220 go ahead\r\n")
                with self.context.wrap_socket(client, server_side=True) as encrypted:
                    self.serve(encrypted, self.offers[1])
                return
            else:
                client.sendall(b"221 bye\r\n")
                return


@pytest.fixture
def ask(certificate: Path) -> Iterator[Ask]:  # noqa: F811
    servers: list[Server] = []

    def start(plain: str, encrypted: str) -> int:
        server = Server(plain, encrypted, certificate)
        server.start()
        servers.append(server)
        return int(server.listener.getsockname()[1])

    yield start
    for each in servers:
        each.listener.close()


NO, YES = "offers no DSN", "offers DSN"


@pytest.mark.parametrize(
    ("plain", "encrypted", "offer", "said"),
    [
        ("SIZE DSN", "", Offer(True, None), f"{YES}: "),
        ("SIZE", "", Offer(False, None), f"{NO}: "),
        ("DSN STARTTLS", "DSN", Offer(True, True), f"{YES}: "),
        ("STARTTLS", "SIZE", Offer(False, False), f"{NO}: "),
        ("STARTTLS", "SIZE DSN", Offer(False, True), f"{NO} without STARTTLS: "),
        ("DSN STARTTLS", "SIZE", Offer(True, False), f"{NO} with STARTTLS: "),
        ("DSN STARTTLS", "NONE", Offer(True, None), f"{YES}: "),
        ("STARTTLS", "NONE", Offer(False, None), f"{NO}: "),
    ],
)
def test_dsn_before_and_after_starttls(ask, plain, encrypted, offer, said):
    port = ask(plain, encrypted)
    assert offers_dsn("127.0.0.1", port) == offer
    relay = f"crm.example[127.0.0.1]:{port}"
    delivery = Delivery(None, "support@crm.example", "", relay, "sent", "250 ok")
    (line,) = aftermath._dsn(delivery)
    assert line.startswith(f"dsn       crm.example {said}")
