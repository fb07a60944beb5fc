"""A file of pauses that is damaged pauses nothing, and is nobody's traceback."""

import time
from threading import Thread

import pytest

from crm_milter.cli.main import main
from crm_milter.config import paused

CONFIG = "unrouted_to: it@solarmora.com\nspam: rspamd\nrules:\n" + "".join(
    f"  - {{name: r{each}, match: h{each}@solarmora.com, replace_with: c@crm.example}}\n"
    for each in range(4)
)


def slowly(function):
    def slow(*arguments):
        result = function(*arguments)
        time.sleep(0.1)
        return result

    return slow


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "[" * 100_000, '{"a": 1}', '{"a": [0, 1e300, false, ""]}'),
        *('{"a": [0, Infinity, false, ""]}', '{"a": [NaN, NaN, false, ""]}'),
        '{"a": ["x", 1, 0, ""]}',
    ],
)
def test_a_damaged_file(tmp_path, text):
    (tmp_path / "paused.json").write_text(text)
    assert paused.read(tmp_path) == {}


def test_a_file_that_was_written(tmp_path):
    pauses = {"a": paused.Pause(1.0, 2e9, True, "upgrade"), "b": paused.Pause(1.0, 2.0)}
    paused.write(tmp_path, pauses)
    assert paused.read(tmp_path) == pauses


def test_two_commands_at_once_lose_no_pause(tmp_path, monkeypatch):
    """Each rule is paused by a command of its own, all of them together."""
    (tmp_path / "crm-milter.yaml").write_text(CONFIG)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    monkeypatch.setattr(paused, "current", slowly(paused.current))
    names = [f"r{number}" for number in range(4)]
    config = str(tmp_path / "crm-milter.yaml")
    commands = [
        Thread(target=main, args=(["pause", name, "--for", "1h", "--config", config],))
        for name in names
    ]
    for each in commands:
        each.start()
    for each in commands:
        each.join()
    assert sorted(paused.read(tmp_path)) == names
