"""The other end of the wire: the milter protocol as the smtpd of Postfix 3.7 speaks it.

What it sends was recorded between a Postfix 3.7.11 and this milter: macros with every step, also
with each header field, even if none has a value; the queue id from the second recipient on; ABORT
after each message. Framing and names are those of the PyPI package miltertest, its encoder is not:
that takes no bytes. Nothing here blocks for longer than TIMEOUT.
"""

import contextlib
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from miltertest import codec
from miltertest import constants as c

TIMEOUT = 3.0
ALL_ACTIONS = c.SMFI_V6_ACTS
ALL_STEPS = c.SMFI_V6_PROT
NO_REPLIES = (
    c.SMFIP_NR_CONN
    | c.SMFIP_NR_HELO
    | c.SMFIP_NR_MAIL
    | c.SMFIP_NR_RCPT
    | c.SMFIP_NR_DATA
    | c.SMFIP_NR_HDR
    | c.SMFIP_NR_EOH
    | c.SMFIP_NR_BODY
)

Text = bytes | str

# Of each step: where its macro list stands, the macros without one (postconf -d), and what the
# milter may say of it: "do not send it", "I do not answer".
_STEPS = {
    c.SMFIC_CONNECT: (c.SMFIM_CONNECT, "j", c.SMFIP_NOCONNECT, c.SMFIP_NR_CONN),
    c.SMFIC_HELO: (c.SMFIM_HELO, "{tls_version}", c.SMFIP_NOHELO, c.SMFIP_NR_HELO),
    c.SMFIC_MAIL: (c.SMFIM_ENVFROM, "i {mail_addr}", c.SMFIP_NOMAIL, c.SMFIP_NR_MAIL),
    c.SMFIC_RCPT: (c.SMFIM_ENVRCPT, "i {rcpt_addr}", c.SMFIP_NORCPT, c.SMFIP_NR_RCPT),
    c.SMFIC_DATA: (c.SMFIM_DATA, "i", c.SMFIP_NODATA, c.SMFIP_NR_DATA),
    c.SMFIC_HEADER: (c.SMFIM_EOM, "i", c.SMFIP_NOHDRS, c.SMFIP_NR_HDR),
    c.SMFIC_EOH: (c.SMFIM_EOH, "i", c.SMFIP_NOEOH, c.SMFIP_NR_EOH),
    c.SMFIC_BODY: (c.SMFIM_EOM, "i", c.SMFIP_NOBODY, c.SMFIP_NR_BODY),
    c.SMFIC_BODYEOB: (c.SMFIM_EOM, "i", 0, 0),
}
_ANSWERS = {
    c.SMFIR_CONTINUE: "continue",
    c.SMFIR_ACCEPT: "accept",
    c.SMFIR_TEMPFAIL: "tempfail",
    c.SMFIR_REJECT: "reject",
    c.SMFIR_DISCARD: "discard",
    c.SMFIR_SKIP: "skip",
}
_EDITS = {
    c.SMFIR_ADDRCPT: ("add", "rcpt"),
    c.SMFIR_ADDRCPT_PAR: ("add", "rcpt", "args"),
    c.SMFIR_DELRCPT: ("delete", "rcpt"),
    c.SMFIR_CHGFROM: ("sender", "from", "args"),
    c.SMFIR_ADDHEADER: ("header", "name", "value"),
    c.SMFIR_QUARANTINE: ("hold", "reason"),
}


class WireError(AssertionError):
    """The milter broke the protocol, or hung up."""


@dataclass(frozen=True)
class Result:
    """What the milter made of a message, and at which step: such as ("delete", "a@x.example")."""

    answer: str
    step: str
    edits: tuple[tuple[str, ...], ...] = ()

    def of(self, kind: str) -> list[tuple[str, ...]]:
        """The edits of one kind, without that word."""
        return [edit[1:] for edit in self.edits if edit[0] == kind]


class Mta:
    """A connection to the milter at `address`, as main.cf writes it, and what is offered on it."""

    def __init__(
        self,
        address: str,
        *,
        actions: int = ALL_ACTIONS,
        steps: int = ALL_STEPS,
        version: int = c.MILTER_VERSION,
        macros: bool = True,
    ) -> None:
        self.socket = _connect(address)
        self._buffer = b""
        self._with_macros = macros
        self.macro_lists: dict[int, list[str]] = {}  # by stage (SMFIM_...)
        self._values: dict[str, bytes] = {}
        self.user = b""  # who has authenticated
        try:
            self._negotiate(version, actions, steps)
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        with self.socket:
            if kind is None:
                self.quit()

    def _negotiate(self, version: int, actions: int, steps: int) -> None:
        self.send(c.SMFIC_OPTNEG, struct.pack("!LLL", version, actions, steps))
        command, data = self._packet()
        if command != c.SMFIC_OPTNEG or len(data) < 12:
            raise WireError(f"answer to the offer: {command} {data!r}")
        _, self.actions, self.steps = struct.unpack("!LLL", data[:12])
        if self.actions & ~actions or self.steps & ~steps:
            raise WireError(f"asks for what was not offered: {self.actions:x}, {self.steps:x}")
        rest = data[12:]
        while rest:
            (stage,) = struct.unpack("!L", rest[:4])
            names, _, rest = rest[4:].partition(b"\0")
            self.macro_lists[stage] = names.decode().split()

    # Of the steps: the answer, None where the milter gives none.

    def connect(
        self, host: Text = "[192.0.2.1]", peer: str = "192.0.2.1", port: int = 4321
    ) -> str | None:
        """A client; port 0 is that of mail from sendmail(1)."""
        family = c.SMFIA_INET6 if ":" in peer else c.SMFIA_INET
        where = family.encode() + struct.pack("!H", port) + peer.encode() + b"\0"
        answer = self._step(c.SMFIC_CONNECT, _z(host) + where)
        self._step(c.SMFIC_HELO, b"client.example\0")
        return answer

    def mail(self, sender: Text = "<joe@client.example>", *parameters: Text) -> str | None:
        """MAIL FROM, raw."""
        self._values = {"{auth_authen}": self.user} if self.user else {}
        return self._step(c.SMFIC_MAIL, _z(sender, *parameters))

    def rcpt(
        self, recipient: Text, *parameters: Text, normal: Text | None = "", queue_id: Text = ""
    ) -> str | None:
        """RCPT TO, raw; `normal` is {rcpt_addr}, "" for what Postfix makes of a plain address."""
        if normal == "":
            normal = _bytes(recipient).strip(b"<>").lower()
        self._values.pop("{rcpt_addr}", None)
        if normal is not None:
            self._values["{rcpt_addr}"] = _bytes(normal)
        answer = self._step(c.SMFIC_RCPT, _z(recipient, *parameters))
        self._values["i"] = _bytes(queue_id) or self._values.get("i", b"4bXq1Z")
        return answer

    def data(self, queue_id: Text | None = "") -> str | None:
        """DATA; `queue_id` None: there is none, now or later."""
        if queue_id is None:
            self._values.pop("i", None)
        elif queue_id:
            self._values["i"] = _bytes(queue_id)
        return self._step(c.SMFIC_DATA, b"")

    def field(self, name: Text, value: Text) -> str | None:
        """One header field."""
        return self._step(c.SMFIC_HEADER, _z(name, value))

    def end(self, body: Sequence[bytes] = (b"hello\r\n",)) -> Result:
        """End of header, body (in chunks) and message."""
        for command, data in ((c.SMFIC_EOH, b""), *((c.SMFIC_BODY, chunk) for chunk in body)):
            answer = self._step(command, data)
            if answer == "skip":
                break
            if answer not in (None, "continue"):
                return Result(answer, command)
        self._macros(c.SMFIC_BODYEOB)
        self.send(c.SMFIC_BODYEOB)
        edits = []
        while (edit := self.receive())[0] in _EDITS:
            edits.append(_edit(*edit))
        return Result(_answer(*edit), c.SMFIC_BODYEOB, tuple(edits))

    def abort(self) -> None:
        """The message is over, or given up: it has no answer."""
        self._values = {}
        self.send(c.SMFIC_ABORT)

    def quit(self) -> None:
        """Say QUIT; nothing that was not asked for may have come meanwhile."""
        self.send(c.SMFIC_QUIT)
        with contextlib.suppress(ConnectionResetError):
            rest = self._buffer + self.socket.recv(4096)
            if rest:
                raise WireError(f"unasked for: {rest!r}")

    def message(
        self,
        rcpts: Iterable[Text],
        fields: Sequence[tuple[Text, Text]] = (),
        sender: Text = "<joe@client.example>",
        body: Sequence[bytes] = (b"hello\r\n",),
    ) -> Result:
        """A message from MAIL to its end, and the ABORT that Postfix sends after it."""
        self.mail(sender)
        for recipient in rcpts:
            self.rcpt(recipient)
        result = self.finish(fields, body)
        self.abort()
        return result

    def finish(
        self,
        fields: Sequence[tuple[Text, Text]] = (),
        body: Sequence[bytes] = (b"hello\r\n",),
        **macros: Text | None,
    ) -> Result:
        """DATA to the end, or to the first answer that is not to go on."""
        answer = self.data(**macros)
        if answer not in (None, "continue"):
            return Result(answer, c.SMFIC_DATA)
        for name, value in fields:
            answer = self.field(name, value)
            if answer not in (None, "continue"):
                return Result(answer, c.SMFIC_HEADER)
        return self.end(body)

    def send(self, command: str, data: bytes = b"") -> None:
        """One packet."""
        self.socket.sendall(struct.pack("!L", len(data) + 1) + command.encode() + data)

    def receive(self) -> tuple[str, dict[str, str | list[str]]]:
        """One packet, decoded."""
        command, data = self._packet()
        raw = struct.pack("!L", len(data) + 1) + command.encode() + data
        name, values, _ = codec.decode_msg(raw)
        return name, values

    def _packet(self) -> tuple[str, bytes]:
        while len(self._buffer) < 4 or len(self._buffer) < self._length():
            chunk = self.socket.recv(1 << 20)
            if not chunk:
                raise WireError(f"the milter hung up, after {self._buffer!r}")
            self._buffer += chunk
        length = self._length()
        packet, self._buffer = self._buffer[4:length], self._buffer[length:]
        return packet[:1].decode(), packet[1:]

    def _length(self) -> int:
        return 4 + int(struct.unpack("!L", self._buffer[:4])[0])

    def _macros(self, command: str) -> None:
        stage, default, *_ = _STEPS[command]
        if self._with_macros:
            names = self.macro_lists.get(stage, default.split())
            pairs = [(name, self._values[name]) for name in names if name in self._values]
            self.send(c.SMFIC_MACRO, command.encode() + b"".join(_z(*pair) for pair in pairs))

    def _step(self, command: str, data: bytes) -> str | None:
        self._macros(command)
        _, _, unwanted, silent = _STEPS[command]
        if self.steps & unwanted:
            return None
        self.send(command, data)
        return None if self.steps & silent else _answer(*self.receive())


def _answer(command: str, values: dict[str, str | list[str]]) -> str:
    if command == c.SMFIR_REPLYCODE:
        return f"{values['smtpcode']}{values['space']}{values['text']}"
    if command not in _ANSWERS:
        raise WireError(f"out of place: {command} {values}")
    return _ANSWERS[command]


def _edit(command: str, values: dict[str, str | list[str]]) -> tuple[str, ...]:
    kind, *keys = _EDITS[command]
    words = [values[key] for key in keys]
    return (kind, *(" ".join(word) if isinstance(word, list) else word for word in words))


def _connect(address: str) -> socket.socket:
    kind, _, rest = address.partition(":")
    family = {"unix": socket.AF_UNIX, "inet": socket.AF_INET, "inet6": socket.AF_INET6}[kind]
    connection = socket.socket(family)
    connection.settimeout(TIMEOUT)
    host, _, port = rest.rpartition(":")
    try:
        connection.connect(rest if kind == "unix" else (host.strip("[]"), int(port)))
    except OSError:
        connection.close()
        raise
    return connection


def _bytes(text: Text) -> bytes:
    return text if isinstance(text, bytes) else text.encode()


def _z(*words: Text) -> bytes:
    return b"".join(_bytes(word) + b"\0" for word in words)
