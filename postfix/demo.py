"""Sends three messages through a private Postfix with the milter, and shows what became of them."""

import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from lab.base import LabError
from lab.delivery import Delivery, Rcpt
from lab.milter import program
from lab.whole import Lab, Outcome

CONFIG = Path(__file__).with_name("demo.yaml")
CUSTOMER = "anna@customer.example"
HELP = "help@solarmora.com"
REPORTS = "report-spam@solarmora.com"
CRM = "v1su0245ewejzhe7.case.my-crm.com"


@dataclass(frozen=True)
class Message:
    """One message, and what is right: each recipient with its NOTIFY and ORCPT, the log line."""

    title: str
    recipient: str
    spam: bool
    expected: dict[str, tuple[str | None, str]]
    log: str

    @property
    def text(self) -> bytes:
        """The message itself."""
        fields = [f"From: Anna <{CUSTOMER}>", f"To: {self.recipient}", f"Subject: {self.title}"]
        if self.spam:
            fields.append("X-Spam: Yes")
        return "\r\n".join([*fields, "", "Hello,", "it is me.", ""]).encode()


MESSAGES = [
    Message(
        title="a customer's mail",
        recipient=HELP,
        spam=False,
        expected={
            f"support@{CRM}": ("NEVER", HELP),
            "team@solarmora.com": ("NEVER", "team@solarmora.com"),
        },
        log=f"rerouted: to=<{HELP}> new=<support@{CRM}> rule=support copies=1 verdict=ham",
    ),
    Message(
        title="the same, marked as spam by an earlier filter",
        recipient=HELP,
        spam=True,
        expected={"it@solarmora.com": (None, HELP)},
        log=f"left: to=<{HELP}> rule=support reason=spam",
    ),
    Message(
        title="spam to a rule that bypasses the filter",
        recipient=REPORTS,
        spam=True,
        expected={
            f"reports@{CRM}": ("NEVER", REPORTS),
            "archive@solarmora.com": ("FAILURE", "archive@solarmora.com"),
        },
        log=f"rerouted: to=<{REPORTS}> new=<reports@{CRM}> rule=spam-reports copies=1 verdict=spam",
    ),
]


def main() -> int:
    """Exit status 0 if everything came out right, 1 if not."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    try:
        aliases = virtual_alias_map()
        with Lab(CONFIG.read_text(), virtual_alias_maps=aliases) as lab:
            introduce(lab, aliases)
            wrong = sum(not show(lab, number, each) for number, each in enumerate(MESSAGES, 1))
            conclude(wrong, time.monotonic() - started)
            if "--stay" in sys.argv[1:]:
                stay(lab)
    except LabError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ndemo: interrupted", file=sys.stderr)
        return 130
    return 1 if wrong else 0


def virtual_alias_map() -> str:
    """What "crm-milter map" makes of the file: where each address goes that is left alone."""
    command = [*program(), "map", "--config", str(CONFIG)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"crm-milter map failed: {done.stderr.strip()}")
    return done.stdout


def introduce(lab: Lab, aliases: str) -> None:
    """Say what runs."""
    print(
        f"\nA private Postfix is listening on 127.0.0.1 port {lab.postfix.port}; whatever it"
        " delivers"
    )
    print(
        f"is sent to a test server on port {lab.sink.port} that stands in for the CRM and all"
        " mailboxes."
    )
    print(f"crm-milter is running with {CONFIG}.\n")
    print('virtual_alias_maps, as printed by "crm-milter map":')
    for line in aliases.splitlines():
        if not line.startswith("#"):
            print(f"    {line}")


def show(lab: Lab, number: int, message: Message) -> bool:
    """Send a message and show it going in and out; whether all was right."""
    print(f"\n{number}. {message.title}{' (X-Spam: Yes)' if message.spam else ''}")
    outcome = lab.send(f"<{CUSTOMER}>", [f"<{message.recipient}>"], message.text)
    show_part("in", [f"MAIL FROM:<{CUSTOMER}>", f"RCPT TO:<{message.recipient}>"])
    for delivery in {id(entry.delivery): entry.delivery for entry in outcome.received}.values():
        show_part("out", envelope(delivery))
    show_part("log", outcome.log)
    problems = check(message, outcome)
    show_part("", ["OK"] if not problems else [f"FAILED: {problem}" for problem in problems])
    return not problems


def show_part(label: str, lines: list[str]) -> None:
    """Print lines, the first with a label."""
    for line in lines:
        print(f"   {label:<5}{line}")
        label = ""


def envelope(delivery: Delivery) -> list[str]:
    """The envelope as the next server saw it."""
    rcpts = sorted(delivery.rcpts, key=lambda rcpt: rcpt.address)
    return [f"MAIL FROM:<{delivery.sender}>", *(f"RCPT TO:{rcpt.raw}" for rcpt in rcpts)]


def check(message: Message, outcome: Outcome) -> list[str]:
    """What is not as it should be, in words."""
    problems = []
    if outcome.recipients != sorted(message.expected):
        problems.append(f"the recipients should be {', '.join(sorted(message.expected))}")
    for entry in outcome.received:
        expected = message.expected.get(entry.recipient)
        if expected and parameters(entry.rcpt) != (expected[0], f"rfc822;{expected[1]}"):
            problems.append(f"{entry.recipient} should have NOTIFY, ORCPT {expected}")
        if entry.sender != CUSTOMER:
            problems.append(f"{entry.recipient} got it from <{entry.sender}>")
        if entry.delivery.message.count(b"\r\n\r\nHello,\r\nit is me.\r\n") != 1:
            problems.append(f"{entry.recipient} got another text")
    line = f"{outcome.queue_id}: {message.log}"
    if len(outcome.log) != 1 or not outcome.log[0].endswith(line):
        problems.append(f"the log should say {line}")
    return problems


def parameters(rcpt: Rcpt) -> tuple[str | None, str | None]:
    """NOTIFY and ORCPT."""
    return rcpt.notify, rcpt.orcpt


def conclude(wrong: int, seconds: float) -> None:
    """Say how it went."""
    sent = len(MESSAGES)
    failed = f"{wrong} of {sent} messages failed"
    verdict = failed if wrong else f"all {sent} messages were handled correctly"
    print(f"\n{verdict}, in {seconds:.1f} s")


def stay(lab: Lab) -> None:
    """Show what arrives, until ^C."""
    sendmail = f"/usr/sbin/sendmail -C {lab.postfix.config} -f {CUSTOMER} {HELP}"
    print("\nThe demo keeps running until you press ^C. To send a message, run as root")
    print(f"    echo hello | {sendmail}")
    print("or, as any user, with the swaks package")
    swaks = ["swaks", "--server", f"127.0.0.1:{lab.postfix.port}", "--from", CUSTOMER]
    print(f"    {shlex.join([*swaks, '--to', HELP, '--add-header', 'X-Spam: Yes'])}")
    print(f"Postfix logs to {lab.postfix.maillog.path}\n", flush=True)
    seen, logged = len(lab.sink.deliveries), len(lab.milter.lines())
    try:
        while True:
            lines, deliveries = lab.milter.lines(), lab.sink.deliveries
            show_part("log", lines[logged:])
            for delivery in deliveries[seen:]:
                show_part("out", envelope(delivery))
            seen, logged = len(deliveries), len(lines)
            sys.stdout.flush()
            time.sleep(0.2)
    except KeyboardInterrupt:
        print("\nstopped")


if __name__ == "__main__":
    sys.exit(main())
