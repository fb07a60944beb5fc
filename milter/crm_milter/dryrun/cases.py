"""Test cases: a file of messages and what is expected of the rules, in the words of the log.

The file is read by the configuration's own reader: a misspelt key is refused, with its line and
what was probably meant.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from crm_milter import address as addresses
from crm_milter.config import document, values
from crm_milter.config.files import Files
from crm_milter.config.kinds import Key, ListOf, StringMap, table
from crm_milter.config.place import Section
from crm_milter.config.problems import ConfigError, Problem, Problems
from crm_milter.config.reading import INVALID, Reading
from crm_milter.config.scalars import Boolean, Text
from crm_milter.config.shapes import ADDRESS, FIELD_NAME
from crm_milter.config.sources import Disk
from crm_milter.dryrun.decided import Mail
from crm_milter.routing.decision import WOULD, Action, Reason
from crm_milter.rules.moment import moment
from crm_milter.wording import suggestion, why

NONE = "none"  # no rule, no reason
ACTIONS = (*(each.value for each in Action), *WOULD.values(), NONE)
REASONS = (*(each.value for each in Reason), NONE)


@dataclass(frozen=True, slots=True)
class Expected:
    """What is expected of one recipient, "" for all; only the keys that the file has."""

    to: str
    words: dict[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Case:
    """One message, and what is expected of it."""

    name: str
    file: str
    line: int
    mail: Mail
    expected: tuple[Expected, ...]


def read(path: Path) -> tuple[Case, ...]:
    """Return the cases in a file; raises ConfigError with all that is wrong with it."""
    problems = Problems(str(path))
    try:
        with Disk().open(path, document.MAX_BYTES) as stream:
            tree = document.read(stream, problems, {}) or document.Mapping({}, 1)
    except OSError as error:
        raise ConfigError((Problem(str(path), 0, "", why(error)),)) from error
    found = _ROOT.read(Reading(_ROOT.known(), problems, Files(problems)), tree, ())
    problems.raise_errors()
    cases: tuple[Case, ...] = () if found is INVALID else found
    return cases


def _one_of(what: str, known: tuple[str, ...]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in known:
            hint = suggestion(text, known) or f"; expected one of {', '.join(known)}"
            raise ValueError(f'"{text}" is not {what}{hint}')
        return text

    return parse


def _expected(section: Section) -> Expected:
    words: dict[str, tuple[str, ...]] = {}
    for key in ("rule", "action", "reason", "targets", "copies"):
        if section.is_set(key):
            value = section[key]
            words[key] = value if isinstance(value, tuple) else (value,)
    to = section["to"]
    return Expected(_normal(to) if to else "", words)


def _normal(argument: str) -> str:
    return addresses.normalise(addresses.strip_path(argument))


def _case(section: Section) -> Case:
    place = section.place
    recipients: tuple[str, ...] = section["to"]
    expected: tuple[Expected, ...] = section["expect"]
    known = {_normal(each) for each in recipients}
    for each in expected:
        if each.to and each.to not in known:
            place.complain(("expect",), f'"{each.to}" is not one of the addresses in "to"')
    message = _message(section)
    size = section["size"] or len(message)
    mail = Mail(
        section["from"],
        recipients,
        message,
        size,
        not section["sendmail"],
        section["authenticated"],
        section["client"],
        section["at"].seconds if section["at"] else None,
    )
    return Case(section["name"], place.problems.file, place.start, mail, expected)


def _message(section: Section) -> bytes:
    """Return the message of a case, or its header alone."""
    name = section["message"]
    if name:
        try:
            with Disk().open(Path(section.place.problems.file).parent / name) as stream:
                return stream.read()
        except OSError as error:
            section.place.complain(("message",), f'"{name}": {why(error)}')
    fields = (field for fields in section["headers"] for field in fields)
    text = "".join(f"{name}: {value}\n" for name, value in fields)
    return text.encode("utf-8", "surrogateescape")


_EXPECT = table(
    'a mapping with "rule", "action", "reason", "targets" or "copies"',
    _expected,
    Key("to", Text("an address"), None, "the recipient that this is about; default: all"),
    Key("rule", Text("a rule", number=True), None, "the rule that acts, or none"),
    Key("action", Text("an action", _one_of("an action", ACTIONS)), None, "as in the log"),
    Key("reason", Text("a reason", _one_of("a reason", REASONS)), None, "as in the log, or none"),
    Key("targets", ListOf(ADDRESS), (), "what replaces the recipient"),
    Key("copies", ListOf(ADDRESS), (), "addresses that get a copy"),
    any_of=(("rule", "action", "reason", "targets", "copies"),),
)

_VALUE = Text("a string", word=True)

_CASE = table(
    'a mapping with the keys of a case ("name", "from", "to", "expect", ...)',
    _case,
    Key("name", Text("a string", number=True), None, "what the case shows", required=True),
    Key("from", Text("an address or <>"), None, "envelope sender", required=True),
    Key("to", ListOf(Text("an address"), least=1), (), "envelope recipients", required=True),
    Key(
        "headers",
        ListOf(StringMap("a mapping of header names to values", FIELD_NAME, _VALUE)),
        (),
        "header fields; a list of mappings repeats one",
    ),
    Key("message", Text("a file"), None, "a message instead of header fields"),
    Key("size", Text("a size", values.size, number=True), None, "size of the message"),
    Key(
        "at",
        Text("a date and time", moment),
        None,
        "time of arrival; default: all rules are in force",
    ),
    Key("client", Text("an IP address"), "", "IP address of the client"),
    Key("authenticated", Boolean(), False, "a user of this host sent it"),
    Key("sendmail", Boolean(), False, "handed in by sendmail(1) instead of SMTP"),
    Key("expect", ListOf(_EXPECT, least=1), (), "the expected result", required=True),
    exclusive=(("headers", "message"),),
)

_ROOT = table(
    'a mapping with "cases"',
    lambda section: section["cases"],
    Key("cases", ListOf(_CASE, one=False, least=1), (), "the cases, in order", required=True),
)
