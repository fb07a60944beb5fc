"""The help of the commands: what one copies out of it is whole."""

import re

import pytest

from crm_milter.cli.main import _parser

_BROKEN = re.compile(r"\w-\n")


@pytest.mark.parametrize("columns", ["60", "80", "97", "132"])
def test_no_line_ends_within_a_name(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", columns)
    parser = _parser()
    (commands,) = (
        each.choices for each in parser._actions if each.dest == "command" or each.choices
    )
    texts = [each.format_help() for each in commands.values()]
    assert len(texts) > 15
    assert [text for text in texts if _BROKEN.search(text)] == []
    assert all("/etc/crm-milter/crm-milter.yaml" in text for text in texts)
    widest = max(len(line) for text in texts for line in text.splitlines())
    assert widest <= int(columns)
