"""YAML to nodes: nothing is resolved, what is refused is named with its line."""

from io import BytesIO

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from crm_milter.config import document
from crm_milter.config.document import Mapping, Node, Scalar, Sequence
from crm_milter.config.problems import ConfigError, Problem, Problems

QUOTE_IT = '%d: a value that begins with "@" must be quoted'


def read(data: bytes | str) -> Node | None:
    problems = Problems("f")
    octets = data.encode() if isinstance(data, str) else data
    tree = document.read(BytesIO(octets), problems, {})
    problems.raise_errors()
    return tree


def problems_of(data: bytes | str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(data)
    return [str(problem).removeprefix("f:").strip() for problem in caught.value.problems]


def plain(node: Node | None) -> object:
    match node:
        case Scalar(text):
            return text
        case Sequence(items):
            return [plain(item) for item in items]
        case Mapping(entries):
            return {key: plain(value) for key, value in entries.items()}
    return node


@pytest.mark.parametrize(
    "text",
    ["no", "Yes", "on", "0123", "0o17", "1:30", "1_000", "1e3", ".inf", "2024-01-01", "null", "~"],
)
def test_what_yaml_would_turn_into_something_else_stays_text(text: str) -> None:
    assert plain(read(f"{text}: [{text}, '{text}']")) == {text: [text, text]}


def test_lines_and_quotes() -> None:
    tree = read("a: x\nb:\n  - 'y'\n  - z\nc:\n  d: \"w\"\n")
    assert tree == Mapping(
        {
            "a": Scalar("x", 1, plain=True),
            "b": Sequence([Scalar("y", 3, plain=False), Scalar("z", 4, plain=True)], 2),
            "c": Mapping({"d": Scalar("w", 6, plain=False)}, 5),
        },
        1,
    )


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "---\n...\n"])
def test_nothing_is_nothing(text: str) -> None:
    assert read(text) is None


def test_a_byte_order_mark_of_utf8_is_no_part_of_the_text() -> None:
    assert plain(read(b"\xef\xbb\xbfa: \xc3\xa9\n")) == {"a": "é"}
    assert problems_of(b"\xef\xbb\xbf@a: 1\n") == ['1: a value that begins with "@" must be quoted']


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_house(ends: str) -> None:
    text = ends.join(["a: 1", "b: @x", ""])
    assert problems_of(text) == [QUOTE_IT % 2]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"a: 1\nb: \0\n", "2: a NUL byte is not allowed in a text file"),
        (b"a: 1\n\nb: \xe9\n", "3: byte 0xe9 is not valid UTF-8"),
        (b"a: 1\nb: \xc3", "2: byte 0xc3 is not valid UTF-8"),
        (b"a: \xed\xa0\x80\n", "1: byte 0xed is not valid UTF-8"),
        ("a: 1\n".encode("utf-16"), "1: the file is UTF-16; save it as UTF-8"),
        ("a: 1\n".encode("utf-16-le"), "1: the file is UTF-16; save it as UTF-8"),
        ("a: 1\n".encode("utf-16-be"), "1: the file is UTF-16; save it as UTF-8"),
        ("a: 1\n".encode("utf-32"), "1: the file is UTF-32; save it as UTF-8"),
        ("a: 1\n".encode("utf-32-le"), "1: the file is UTF-32; save it as UTF-8"),
        ("a: 1\n".encode("utf-32-be"), "1: the file is UTF-32; save it as UTF-8"),
        ("a: \ufeffb\n", "1: the character U+FEFF is not allowed in a text file"),
        ("a: b\n# \x85\n", "2: the character U+0085 is not allowed in a text file"),
        (b"a: 1\n" * 30_000 + b"b: \xff\n", "30001: byte 0xff is not valid UTF-8"),
        (
            "ä: 1\n" * 30_000 + "b: \x01\n",
            "30001: the character U+0001 is not allowed in a text file",
        ),
    ],
)
def test_what_is_no_text_is_one_problem_with_its_line(data: bytes | str, problem: str) -> None:
    assert problems_of(data if isinstance(data, bytes) else data.encode()) == [problem]


def test_a_character_across_two_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "_CHUNK", 1)
    assert plain(read("a: é€𝄞\nb: 1")) == {"a": "é€𝄞", "b": "1"}


def test_a_file_too_large_is_not_read_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "MAX_BYTES", 1 << 20)
    stream = BytesIO(b"# a comment\n" * 1_000_000)
    with pytest.raises(ConfigError, match="f: larger than 1 MiB"):
        document.read(stream, Problems("f"), {})
    assert stream.tell() < 2 << 20


def test_a_list_with_a_taker_is_handed_over_item_by_item() -> None:
    taken: list[tuple[object, object]] = []
    tree = document.read(
        BytesIO(b"rules: [a, {b: c}]\nx: {rules: [d]}\n"),
        Problems("f"),
        {"rules": lambda node, path: taken.append((plain(node), path))},
    )
    assert taken == [("a", ("rules", 0)), ({"b": "c"}, ("rules", 1))]
    assert plain(tree) == {"rules": [], "x": {"rules": ["d"]}}


@pytest.mark.parametrize("parser", [document._Parser, yaml.BaseLoader])
def test_deep_nesting_ends_soon(parser: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(document, "_Parser", parser)
    assert problems_of("[" * 100_000) == ["1: nested more than 10 levels deep"]
    assert problems_of("- " * 500 + "x") == ["1: nested more than 10 levels deep"]


def test_a_problem_is_one_line_whatever_it_quotes() -> None:
    (problem,) = problems_of('? "a\\nb\\e[31m\\u202e"\n: *x\n')
    quoted = r"a\nb\x1b[31m\u202e"
    assert (
        problem
        == f'1: "{quoted}": "*x" is a YAML alias, which is not supported; quote it if it is text'
    )
    assert "\n" not in problem
    assert problem.isprintable()


SNIPPETS = st.lists(
    st.one_of(
        st.sampled_from(["- ", ": ", "---\n", "...\n", "%YAML 1.1\n", "<<: ", "? "]),
        st.text("ab:-[]{},*&!'\"|>?#%\\@~. \n\t\r", max_size=4),
        st.text(max_size=2),
    ),
    max_size=20,
).map("".join)


@pytest.mark.parametrize("parser", [document._Parser, yaml.BaseLoader])
@given(st.one_of(SNIPPETS.map(str.encode), st.binary(max_size=60)))
def test_any_bytes_come_to_a_tree_or_to_problems(parser: object, data: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(document, "_Parser", parser)
        problems: tuple[Problem, ...] = ()
        try:
            read(data)
        except ConfigError as error:
            problems = error.problems or (Problem("", 0, "", "\n"),)
        assert all(str(problem).isprintable() for problem in problems)


@pytest.mark.parametrize("line", ["match:a@x.example", "match", "match;a@x.example", "match=a"])
def test_a_line_without_a_colon_and_a_space_is_named_itself(line: str) -> None:
    text = f"rules:\n  - name: a\n    {line}\n    replace_with: b@y.example\n"
    assert problems_of(text) == ['3: expected "key: value", with a space after the ":"']
