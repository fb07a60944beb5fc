"""The JSON Schema takes every good file, and refuses what is bad in shape."""

import json
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from crm_milter.cli import main as cli
from crm_milter.config import document, keys
from crm_milter.config.document import Mapping, Node, Scalar, Sequence
from crm_milter.config.json_schema import json_schema
from crm_milter.config.problems import ConfigError, Problems

HERE = Path(__file__).parent
EXAMPLE = HERE.parents[1] / "milter" / "crm-milter.yaml"
GOOD = [EXAMPLE, HERE.parents[1] / "postfix/demo.yaml"]
BAD = sorted((HERE / "bad").glob("*.yaml"))
SCHEMA = json_schema(keys.ROOT, "crm-milter")
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

# A file says this where no schema can see what is wrong: how keys, rules and files fit each other,
# and some of what texts mean.
UNSEEN = "# schema: unseen\n"


def plain(node: Node | None) -> Any:
    """Return what an editor has: YAML's own idea of texts, numbers and truth."""
    match node:
        case Mapping():
            return {key: plain(value) for key, value in node.entries.items()}
        case Sequence():
            return [plain(item) for item in node.items]
        case Scalar() if node.plain:
            return resolved(node.text)
        case Scalar():
            return node.text
    return None


def resolved(text: str) -> Any:
    words = {"true": True, "false": False, "null": None, "~": None, "": None}
    if text in words:
        return words[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def errors(text: str) -> list[str] | None:
    """Return what an editor would show, None for what it would not even take for YAML."""
    problems = Problems("f")
    try:
        tree = document.read(BytesIO(text.encode()), problems, {})
    except ConfigError:
        return None
    if problems.has_errors:
        return None
    return [each.message for each in VALIDATOR.iter_errors(plain(tree))]


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.name)
def test_good_files_are_good(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert errors(text) == []
    assert errors(re.sub(r"(?m)^( *)#([^ #\n])", r"\1\2", text)) == []


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_files_are_bad_where_shapes_tell(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert (errors(text) == []) is text.endswith(UNSEEN)


def test_the_command_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["schema"]) == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA
