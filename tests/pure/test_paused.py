"""A file of pauses that is damaged pauses nothing, and is nobody's traceback."""

import pytest

from crm_milter.config import paused


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
