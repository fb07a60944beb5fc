"""Automatic mail: header fields to the classes of it that a message is in.

Only what its sender's program says of itself counts. X-Auto-Response-Suppress asks for no answer,
List-Unsubscribe offers a way out: people's mail also has them. A subject can be anything.
Sources: RFC 3834 section 5 (Auto-Submitted), RFC 3464 section 2 and RFC 6522 (delivery reports),
RFC 2919 (List-Id), RFC 2076 section 3.9 (Precedence), exim's src/deliver.c (X-Failed-Recipients).
Of programs that do not write Auto-Submitted: cPanel's BoxTrapper (Precedence, X-Precedence and
X-Autorespond: auto_reply), Domain Technologie Control (X-Mail-Autoreply) and others (X-Autoreply),
by "How to detect automatically generated emails" (arp242.net/autoreply.html).
"""

from collections.abc import Callable, Iterable, Iterator
from urllib.parse import unquote

from crm_milter.routing.structured import keyword, words
from crm_milter.rules.rule import AutomaticClass

_REPORTS = ("delivery-status", "global-delivery-status")  # RFC 6533 section 6
_NOTHING: frozenset[AutomaticClass] = frozenset()


def _unless(*harmless: str) -> Callable[[str], bool]:
    return lambda value: keyword(value) not in harmless


def _unless_no(value: str) -> bool:
    """Tell whether a value is not just "no": autoresponders write the subject there as well."""
    return " ".join(words(value)).removeprefix('"').lower() != "no"


def _one_of(*wanted: str) -> Callable[[str], bool]:
    return lambda value: not _items(value).isdisjoint(wanted)


def _items(value: str) -> set[str]:
    """Return the first word of each item of a list with commas."""
    items = " ".join(words(value)).replace('"', " ").lower().split(",")
    return {word for each in items for word in each.split(maxsplit=1)[:1]}


def _is_delivery_report(value: str) -> bool:
    """Tell whether a Content-Type is multipart/report with report-type=delivery-status."""
    parts: list[list[str]] = [[]]
    for word in words(value):
        if word == ";":
            parts.append([])
        else:
            parts[-1].append(word.removeprefix('"'))
    if "".join(parts[0]).lower() != "multipart/report":
        return False
    return not {*_report_types("".join(each) for each in parts[1:])}.isdisjoint(_REPORTS)


def _report_types(parameters: Iterable[str]) -> Iterator[str]:
    """Yield the values of report-type, also of one in pieces or with a charset (RFC 2231)."""
    pieces: dict[str, str] = {}
    for each in parameters:
        name, _, value = each.partition("=")
        attribute, _, section = name.lower().partition("*")
        if attribute != "report-type":
            continue
        if section.endswith("*") or (not section and name.endswith("*")):
            value = unquote(value.rpartition("'")[2])
        if section[:1].isdigit():
            pieces.setdefault(section.rstrip("*"), value)
        else:
            yield value.lower()
    yield "".join(
        pieces[each] for each in sorted(pieces, key=lambda each: (len(each), each))
    ).lower()


REPLY, BOUNCE, BULK, LIST = AutomaticClass
_TESTS: dict[str, tuple[tuple[AutomaticClass, Callable[[str], bool]], ...]] = {
    "auto-submitted": ((REPLY, _unless("", "no")),),
    "x-autoreply": ((REPLY, _unless_no),),
    "x-autorespond": ((REPLY, _unless_no),),
    "x-mail-autoreply": ((REPLY, _unless_no),),
    "x-precedence": ((REPLY, _one_of("auto_reply", "auto-reply")),),
    "precedence": (
        (REPLY, _one_of("auto_reply", "auto-reply")),
        (BULK, _one_of("bulk", "junk")),
        (LIST, _one_of("list")),
    ),
    "content-type": ((BOUNCE, _is_delivery_report),),
    "x-failed-recipients": ((BOUNCE, _unless("")),),
    "list-id": ((LIST, lambda value: bool(value.strip())),),
}
FIELDS = frozenset(_TESTS)  # the names, in lower case


def classes(name: str, value: str) -> frozenset[AutomaticClass]:
    """Return the classes that one header field puts its message in; the name is one of FIELDS."""
    found = [kind for kind, holds in _TESTS[name] if holds(value)]
    return frozenset(found) if found else _NOTHING
