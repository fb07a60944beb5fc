"""The annotated example is the reference of the configuration: complete, true and valid.

In it, ``# prose`` is a comment and ``#key: value`` an option that may be taken into use.
"""

import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest

from crm_milter.config import document, keys
from crm_milter.config.document import Mapping, Node, Sequence
from crm_milter.config.kinds import Key, ListOf, OneOf, StringMap, Table
from crm_milter.config.load import load, parse
from crm_milter.config.problems import Problems
from crm_milter.config.scalars import Kind
from crm_milter.spam.presets import PRESETS

EXAMPLE = Path(__file__).parents[2] / "milter" / "crm-milter.yaml"
TEXT = EXAMPLE.read_text(encoding="utf-8")
UNCOMMENTED = re.sub(r"(?m)^( *)#([^ #\n])", r"\1\2", TEXT)


def supported(kind: Kind, prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Yield each supported key with its path, lists as ``[]``."""
    match kind:
        case ListOf():
            yield from supported(kind.item, f"{prefix}[]")
        case OneOf():
            yield from supported(kind.table, prefix)
        case Table():
            for key in kind.keys.values():
                path = f"{prefix}.{key.name}" if prefix else key.name
                yield path, key
                yield from supported(key.kind, path)


KEYS = dict(supported(keys.ROOT))


def named(node: Node | None, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Yield each key of a file with its path and line."""
    if isinstance(node, Sequence):
        for item in node.items:
            yield from named(item, f"{prefix}[]")
    elif isinstance(node, Mapping):
        for name, value in node.entries.items():
            path = f"{prefix}.{name}" if prefix else name
            yield path, value.line
            if not isinstance(KEYS[path].kind, StringMap):
                yield from named(value, path)


def lines() -> dict[str, int]:
    """Return the keys of the uncommented example, each with the line where it is first."""
    found: dict[str, int] = {}
    for path, line in named(document.read(BytesIO(UNCOMMENTED.encode()), Problems("f"), {})):
        found.setdefault(path, line)
    return found


def test_it_is_valid_as_shipped() -> None:
    config = load(EXAMPLE)
    assert config.warnings == ()
    assert [rule.name for rule in config.policy.table.rules] == ["support"]


# The files that it names, where every option is in use.
FILES = {
    "accounts": "it support-spam archive team bounces help urgent anna",
    "customers": "# The important ones\nboss@customer.example  # and how\n",
    "agents": "anna@solarmora.com case-7@v1su0245ewejzhe7.case.my-crm.com\n"
    "@shop.example shop@crm.example, archive@crm.example\n",
    "rules.d/more.yaml": "rules: [{name: more, match: m@x.example, also_deliver_to: a@b.example}]",
    "tenants/acme.yaml": "rules: [{name: acme, match: '@acme.example', replace_with: a@b.example}]",
}


def test_it_is_valid_with_every_option_in_use(tmp_path: Path) -> None:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    accounts = (f"{name}@solarmora.com OK" for name in FILES["accounts"].split())
    (tmp_path / "accounts").write_text("\n".join(accounts))
    config = parse(UNCOMMENTED, tmp_path / EXAMPLE.name)
    assert config.warnings == ()
    names = [
        "support",
        "urgent",
        "cases",
        "agents",
        "old-help-desk",
        "everybody-else",
        "more",
        "acme",
    ]
    assert [rule.name for rule in config.policy.table.rules] == names


def test_it_names_every_supported_key_and_no_other() -> None:
    assert set(lines()) == set(KEYS)


def test_it_names_every_preset_and_no_other_and_their_fields() -> None:
    block = re.search(r"(?s)# Presets: (.*?)# Default:", TEXT)
    assert block
    lists = dict(re.findall(r"(?m)^(?:  #          |)([a-z]\S*) +(.*(?:\n  # {20,}.*)*)", block[1]))
    assert set(lists) == {*PRESETS, "mailscanner:ORG"}
    for name in set(lists) & set(PRESETS) - {"rspamd", "rspamd-headers"}:
        shown = set(re.findall(r"X-[A-Za-z-]+", lists[name]))
        assert {each.lower() for each in shown} == {each.name for each in PRESETS[name].tests}


@pytest.mark.parametrize(
    "path", [path for path, key in KEYS.items() if not isinstance(key.kind, Table)]
)
def test_it_tells_the_default_right_above_the_key(path: str) -> None:
    key = KEYS[path]
    told = TEXT.splitlines()[lines()[path] - 2].strip()
    if path == "rules[].match":
        assert told == '# Required, or "address_map".'
    else:
        assert told == ("# Required." if key.required else f"# Default: {written(key.default)}")


def written(default: object) -> str:
    match default:
        case None:
            return "none"
        case bool():
            return str(default).lower()
        case ():
            return "[]"
        case "":
            return '""'
    return str(default)
