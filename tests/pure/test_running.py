"""What `rules --running` says of an answer that is not this version's."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from crm_milter.cli import main as cli
from crm_milter.cli import running

ROW = {
    "name": "support",
    "mode": "enforce",
    "conditions": [],
    "paused_until": None,
    "recipients": {"replaced": 3, "left_spam": 1},
    "last_rerouted": None,
}
GOOD = {
    "sha256": "f" * 64,
    "sha256_of_all_files": "e" * 64,
    "since": "2026-11-28T10:00:00Z",
    "serves_last_good": False,
    "rules_in_use": 1,
    "rules": [ROW],
}
OTHER = "it is another service, or another version of crm-milter"


@pytest.fixture
def asked(tmp_path, capsys):
    """Call it with an answer: the status and what `rules --running` prints."""
    answer = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(answer["status"])
            self.end_headers()
            with contextlib.suppress(OSError):
                for part in answer["parts"]:
                    self.wfile.write(part)
                    time.sleep(answer["pause"])

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        path = tmp_path / "c.yaml"
        port = server.server_address[1]
        path.write_text(f"metrics: {{listen: '127.0.0.1:{port}'}}\nspam: rspamd\nrules: []\n")

        def ask(body, status=200, options=(), pause=0.0):
            parts = [bytes([each]) for each in body] if pause else [body]
            answer.update(status=status, parts=parts, pause=pause)
            code = cli.main(["rules", "--running", "--config", str(path), *options])
            out, err = capsys.readouterr()
            return code, out, err

        yield ask
        server.shutdown()
        thread.join()


def test_an_answer_of_ours(asked):
    code, out, err = asked(json.dumps(GOOD).encode())
    assert code == 1
    assert out.startswith("1 rule in force since 2026-11-28T10:00:00Z, file ffffffffffff\n")
    assert "differs from what is in force" in err


@pytest.mark.parametrize("status", [200, 204, 301, 404, 500])
def test_another_service(asked, status):
    code, out, err = asked(b"<html>It works!</html>" if status != 204 else b"", status=status)
    assert (code, out) == (1, "")
    assert OTHER in err


@pytest.mark.parametrize("key", GOOD)
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_another_version_lacks_a_key(asked, key, options):
    less = {name: value for name, value in GOOD.items() if name != key}
    assert OTHER in asked(json.dumps(less).encode(), options=options)[2]


@pytest.mark.parametrize("key", ROW)
def test_another_version_lacks_a_key_of_a_rule(asked, key):
    less = {name: value for name, value in ROW.items() if name != key}
    assert OTHER in asked(json.dumps({**GOOD, "rules": [less]}).encode())[2]


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"3", b'"x"', b"{", b"\xff\xfe", b"[" * 100_000, b'{"rules": null}',
     json.dumps({**GOOD, "rules": None}).encode(),
     json.dumps({**GOOD, "sha256": 3}).encode(),
     json.dumps({**GOOD, "rules": [{**ROW, "recipients": []}]}).encode(),
     json.dumps({**GOOD, "rules": [{**ROW, "conditions": [1]}]}).encode()],
)  # fmt: skip
def test_no_answer_of_ours(asked, body):
    code, out, err = asked(body)
    assert (code, out) == (1, "")
    assert OTHER in err
    assert "Traceback" not in err


def test_too_long_an_answer(asked, monkeypatch):
    monkeypatch.setattr(running, "_MAX_BYTES", 1000)
    assert OTHER in asked(b" " * 2000 + json.dumps(GOOD).encode())[2]


def test_an_answer_that_drips(asked, monkeypatch):
    monkeypatch.setattr(running, "_TIMEOUT", 0.3)
    code, out, err = asked(b" " * 60, pause=0.05)
    assert (code, out) == (1, "")
    assert "not complete after 0.3 seconds" in err
