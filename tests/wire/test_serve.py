"""Starting and ending: what stands in the way is said in one line, and no mail is hurt."""

import os
import re
import signal

import pytest
from mta import Mta
from serving import HAM, HELP, RULES, Serve, reachable, run

from lab.base import free_port, scratch

WRONG = """
unrouted_to: help@solarmora.com
spam: rspamf
recipient_delimeter: "+"
rules:
  - name: support
    match: help@solarmora.com
    replase_with: support@crm.example
  - name: Support
    match: "@"
    replace_with: x@crm.example
    on_spam: bounce
milter: {listen: "LISTEN"}
"""


@pytest.mark.parametrize("command", ["serve", "check", "map"])
def test_all_errors_are_shown_and_nothing_is_started(command):
    serve = Serve(WRONG)
    done = run(command, "--config", serve.config)
    assert (done.returncode, done.stdout) == (78, "")
    lines = done.stderr.splitlines()
    assert all(line.startswith(f"crm-milter: {serve.config}:") for line in lines)
    for place in ("4: spam:", "5: recipient_delimeter:", "rules[0].replase_with:",
                  "rules[1].match:", "rules[1].on_spam:"):  # fmt: skip
        assert [line for line in lines if place in line], place
    assert "\n".join(lines).count("did you mean") >= 3
    assert not serve.socket.exists()


def _files():
    folder = scratch()
    (folder / "file").write_text("hello")
    (folder / "good.yaml").write_text(RULES)
    (folder / "secret.yaml").write_text(RULES)
    (folder / "secret.yaml").chmod(0o600)
    return folder


FILES = {
    "missing": ("none.yaml", "no such file or directory"),
    "a folder": (".", "is a directory"),
    "below a file": ("file/crm-milter.yaml", "not a directory"),
    "unreadable": ("secret.yaml", "permission denied"),
}


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_file_that_cannot_be_read(case, command):
    folder = _files()
    name, words = FILES[case]
    done = run(command, "--config", folder / name, as_nobody=case == "unreadable")
    path = folder if name == "." else folder / name
    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == f"crm-milter: {path}: {words}\n"


# Listeners that cannot be opened, and a word of the reason. As nobody: without root's rights.
LISTENERS = {
    "no folder": ("unix:{folder}/none/milter.sock", "none.* does not exist", False),
    "a file for a folder": ("unix:{folder}/file/milter.sock", "file.* does not exist", False),
    "no socket": ("unix:{folder}/file", "exists and is not a socket", False),
    "not allowed": ("unix:{folder}/milter.sock", "[Pp]ermission denied", True),
    "an address of others": ("inet:{port}@192.0.2.1", "[Cc]annot assign", False),
    "no such host": ("inet:{port}@no-such-host.invalid", "no-such-host.invalid port .*: .", False),
}


@pytest.mark.parametrize("case", LISTENERS)
def test_a_listener_that_cannot_be_opened(case):
    folder = _files()
    listen, words, as_nobody = LISTENERS[case]
    listen = listen.format(folder=folder, port=free_port())
    config = folder / "good.yaml"
    config.write_text(f"milter: {{listen: '{listen}'}}\nmetrics: {{listen: none}}\n{RULES}")
    done = run("serve", "--config", config, as_nobody=as_nobody)
    assert (done.returncode, done.stdout) == (1, "")
    *warnings, line = done.stderr.splitlines()
    assert all(each.startswith("crm-milter: warning: ") for each in warnings)
    assert line.startswith("crm-milter: ")
    assert re.search(words, line), line
    assert (folder / "file").read_text() == "hello"


def test_after_a_crash_it_starts_again():
    serve = Serve()
    with serve:
        serve.kill()
        assert serve.socket.exists()
        serve.log.mark()
        with serve, Mta(serve.address) as mta:
            mta.connect()
            assert mta.message([HELP], HAM).of("delete") == [("help@solarmora.com",)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(number):
    with Serve() as serve:
        assert reachable(serve.address)
        serve.signal(number)
        assert serve.status() == 0
        assert not serve.socket.exists()
        assert "error" not in serve.log.text().lower()
        assert "Traceback" not in serve.log.text()


def test_it_ends_with_another_thread_running(tmp_path):
    """A thread that was there before libmilter may get the signals (doc/postfix-milter.md 5.3)."""
    (tmp_path / "sitecustomize.py").write_text(
        "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
        "print('thread runs', flush=True)\n"
    )
    with Serve(environment=f"PYTHONPATH={tmp_path}{_python_path()}") as serve:
        assert "thread runs" in serve.log.text()
        assert reachable(serve.address)
        serve.signal(signal.SIGTERM)
        assert serve.status() == 0


def _python_path():
    path = os.environ.get("PYTHONPATH")
    return f":{path}" if path else ""


@pytest.mark.parametrize("count", [1, 5])
def test_a_signal_right_after_sighup(count):
    with Serve() as serve:
        for _ in range(count):
            serve.signal(signal.SIGHUP)
        serve.signal(signal.SIGTERM)
        assert serve.status() == 0
        assert not reachable(serve.address)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_as_soon_as_it_listens(number):
    serve = Serve().start()
    try:
        while not serve.socket.exists():
            assert serve.running(), serve.log.text()
        serve.signal(number)
        if number == signal.SIGHUP:
            serve.ready()
            serve.signal(signal.SIGTERM)
        assert serve.status() == 0
    finally:
        serve.kill()
