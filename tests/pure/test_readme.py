"""Every configuration that the README shows is valid as it stands."""

import re
from pathlib import Path

import pytest

from crm_milter.config.load import parse

README = Path(__file__).parents[2] / "README.md"
BLOCKS = re.findall(r"```yaml\n(.*?)```", README.read_text(), re.DOTALL)


@pytest.mark.parametrize("text", BLOCKS)
def test_the_configurations_of_the_readme_are_valid(text):
    config = parse(text, README)
    assert config.policy.table.rules
    assert config.unrouted_to == "it@solarmora.com"


def test_the_first_one_is_right_without_a_warning():
    assert len(BLOCKS) == 2
    assert parse(BLOCKS[0], README).warnings == ()


def test_every_command_that_the_readme_names_is_there():
    from crm_milter.cli.main import _parser

    code = re.findall(r"```.*?```|`[^`\n]+`", README.read_text(), re.DOTALL)
    commands = set(re.findall(r"crm-milter ([a-z]+)", "".join(code)))
    known = next(a for a in _parser()._actions if a.choices).choices
    assert commands <= set(known)
