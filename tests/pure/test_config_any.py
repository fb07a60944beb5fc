"""Whatever stands in a file, it is a configuration, or refused with reasons: never a traceback."""

from io import BytesIO
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from crm_milter.address import normalise, written
from crm_milter.config import files as tables
from crm_milter.config.load import parse
from crm_milter.config.problems import ConfigError, Problem, Problems
from crm_milter.mailbox import mailbox

HEAD = "unrouted_to: it@solarmora.com\nspam: rspamd\n"
KEYS = [
    *("milter", "metrics", "listen", "recipient_delimiter", "unrouted_to", "spam", "rules"),
    *("filter", "headers", "no_verdict", "name", "match", "replace_with", "also_deliver_to"),
    *("address", "deliver_spam", "at_least", "value", "on_spam", "mode", "workers"),
    *("include", "known_recipients", "address_map", "senders", "except_senders", "apply_to"),
    *("max_size", "dead_letters", "add_headers", "propagate_extension", "automatic"),
]
TEXTS = r"""
help@x.example @x.example * case-*@x.example /a(.*)@x\.example/ /(/ a@b@c "a"@x.example é@é.é <>
support@ c-\1@crm.example no true test leave 6.5 + unix:x inet:1@a none rspamd mailscanner:x
file: file:/dev/null file:nowhere nowhere/*.yaml keep 25M {rule}
"""
WORDS = st.one_of(st.sampled_from(["", *TEXTS.split()]), st.text(max_size=12))


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


VALUES = st.recursive(
    st.one_of(WORDS.map(quoted), WORDS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(st.sampled_from(KEYS), inner, max_size=5).map(
            lambda items: "{" + ", ".join(f"{key}: {value}" for key, value in items.items()) + "}"
        ),
    ),
    max_leaves=12,
)
RULES = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "b"]), "match": VALUES},
    optional={
        "replace_with": WORDS.map(quoted),
        "also_deliver_to": VALUES,
        "unrouted_to": WORDS.map(quoted),
        "senders": VALUES,
        "dead_letters": WORDS.map(quoted),
        "add_headers": VALUES,
        "apply_to": st.sampled_from(["known", "unknown"]),
    },
).map(lambda rule: "  - " + "\n    ".join(f"{key}: {value}" for key, value in rule.items()) + "\n")
FILES = st.one_of(
    st.text(),
    VALUES,
    st.lists(RULES, max_size=4).map(lambda rules: HEAD + "rules:\n" + "".join(rules)),
    st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=5).map(
        lambda pairs: "".join(f"{key}: {value}\n" for key, value in pairs)
    ),
)


@given(FILES)
def test_any_text_is_a_configuration_or_refused_with_reasons(text: str) -> None:
    problems: tuple[Problem, ...]
    try:
        problems = parse(text, Path("/etc/crm-milter.yaml")).warnings
    except ConfigError as error:
        problems = error.problems or (Problem("", 0, "", "\n"),)
    assert all(str(problem).isprintable() for problem in problems)


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            ["a@x.example", "a@x.example b@y.example, c@y.example", "@x.example b@y.example", "#"]
        ),
        st.sampled_from(
            ['"j d"@x.example "k, l"@y.example', "  b@y.example", '"a@x', "x.example y"]
        ),
        st.text(max_size=20),
    ),
    max_size=6,
).map(lambda lines: "\n".join(lines).encode("utf-8", "surrogatepass"))


@given(st.one_of(LINES, st.binary(max_size=60)))
def test_any_bytes_are_a_list_or_table_or_refused_with_lines(data: bytes) -> None:
    for read in (tables.address_list, tables.address_map, tables.accounts):
        problems = Problems("f")
        result = read(BytesIO(data), problems)
        if problems.has_errors:
            continue
        for key in result:
            assert normalise(written(key)) == key
        if isinstance(result, dict):
            targets = {target for each in result.values() for target in each}
            assert all(mailbox(target) == target for target in targets)
