"""What the tests of ``crm-milter verify`` share: a lab with a spam filter, and the screen."""

import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crm_milter.cli import main as cli
from lab import config
from lab.base import Child, scratch, wait_for
from lab.whole import Lab

RULES = """
unrouted_to: it@solarmora.com
spam: amavis
rules:
  - name: support
    match: [help@solarmora.com, alias@solarmora.com]
    replace_with: support@crm.example
    also_deliver_to: team@solarmora.com
  - {name: dead, match: dead@solarmora.com, replace_with: case@dead.example}
  - {name: trial, match: trial@solarmora.com, replace_with: case@crm.example, mode: test}
  - {name: open, match: open@solarmora.com, replace_with: case@crm.example,
     bypass_spam_filter: true}
  - {name: refuse, match: refuse@solarmora.com, replace_with: case@crm.example, on_spam: reject}
  - {name: drop, match: drop@solarmora.com, replace_with: case@crm.example, on_spam: discard}
  - {name: hold, match: hold@solarmora.com, replace_with: case@crm.example, on_spam: quarantine}
  - {name: copies, match: info@solarmora.com, also_deliver_to: archive@crm.example}
"""
MORE_RULES = RULES + "  - {name: new, match: new@solarmora.com, replace_with: new@crm.example}\n"
OTHER_TARGET = RULES.replace("support@crm.example", "typo@crm.example")
# Nothing listens there: what a milter that is down looks like.
GONE = "/tmp/crm-milter-tests-nobody/gone.sock"
ALIASES = {
    **{f"{name}@solarmora.com": "it@solarmora.com" for name in ("help", "new", "trial")},
    "alias@solarmora.com": "support@crm.example",
    "team@solarmora.com": "bob@solarmora.com",
}

Screen = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def mood() -> Iterator[Path]:
    """A spam filter that runs; the file tells it what to do. Its socket stands beside."""
    folder = scratch()
    path, socket = folder / "mood", folder / "filter.sock"
    path.write_text("mark")
    script = Path(__file__).with_name("spam_filter.py")
    child = Child([sys.executable, str(script), str(socket), str(path)], folder, folder / "log")
    wait_for("the spam filter", socket.exists)
    socket.chmod(0o666)
    yield path
    child.stop(first=signal.SIGKILL)  # libmilter takes seconds to end by itself


@pytest.fixture(scope="module")
def shared(make_module_lab: Callable[..., Lab], mood: Path) -> Lab:
    filtering = config.milter(f"unix:{mood.with_name('filter.sock')}")
    gone = {
        each: config.milter(f"unix:{GONE}", default_action=each) for each in ("tempfail", "accept")
    }
    return make_module_lab(
        RULES,
        smtpd_milters=filtering,
        virtual_alias_maps=ALIASES,
        transport_maps={"dead.example": "smtp:[127.0.0.1]:1"},
        services={
            "bare": {"smtpd_milters": filtering},
            "down": {"smtpd_milters": gone["tempfail"]},
            "down-accept": {"smtpd_milters": gone["accept"]},
            "closed": {"smtpd_recipient_restrictions": "reject"},
        },
    )


@pytest.fixture
def lab(shared: Lab, mood: Path) -> Lab:
    shared.fresh()
    mood.write_text("mark")
    return shared


@pytest.fixture
def screen(lab: Lab, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Screen:
    """Call it with the arguments of verify: the exit status and what is shown."""

    def run(
        address: str, *arguments: str, service: str = "smtp", text: str = "", log: bool = True
    ) -> tuple[int, str]:
        path = lab.milter.config
        if text:
            path = tmp_path / "other.yaml"
            path.write_text(text)
        logs = [str(lab.postfix.maillog.path), str(lab.milter.logfile.path)]
        status = cli.main(
            [
                *("verify", address, "--yes", "--config", str(path), "--timeout", "20"),
                *("--config-directory", str(lab.postfix.config)),
                *("--via", f"127.0.0.1:{lab.postfix.ports[service]}"),
                *(("--log", *logs) if log else ()),
                *arguments,
            ]
        )
        said = capsys.readouterr()
        return status, shown(said.out + said.err)

    return run


def shown(text: str) -> str:
    """Return a screen with words in place of what differs from run to run."""
    text = re.sub(r"(?m)^log .*\n", "", text)
    # The lab's Postfix may run as any user, and its rules name no mailbox for dead letters.
    of_the_lab = r"(?m)^crm-milter: \S+: warning: (?:milter\.socket_mode|dead_letters): .*\n"
    text = re.sub(of_the_lab, "", text)
    text = re.sub(r"127\.0\.0\.1(\[127\.0\.0\.1\])?:\d{4,5}", "SERVER", text)
    text = re.sub(r"crm-milter-verify-[0-9a-f]{16}", "TOKEN", text)
    return re.sub(r"queued as [0-9A-Za-z]+", "queued as ID", text)
