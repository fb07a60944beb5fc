"""The source of a second table of virtual aliases, for patterns: pcre_table(5) or regexp_table(5).

Postfix refuses an address such as case-7@ that no table knows. A pattern of a rule is written so
that it takes the same addresses here and there: the whole address regardless of case, and with
the extension where Postfix has one. Addresses that wildcards never match stay out, and so do those
that belong to a rule or an account of their own.
"""

import re
from collections.abc import Iterator

from crm_milter import address as addresses
from crm_milter.aliases import diverts, exact, mailbox_of, scripts
from crm_milter.pattern import Glob, Regex
from crm_milter.rules import ApplyTo
from crm_milter.table import RuleTable

HEADING = "# made by crm-milter map: mail for addresses of patterns that is not rerouted"
_SPECIAL = frozenset(r".[]{}()*+?^$|\/")
_CLASSES = {"d": "0-9", "w": "0-9A-Za-z_"}
_TOKEN = re.compile(r"\(\?:|\\.|\[\^?(?:\\.|[^\]\\\[/])+\]|[*+?}]\?|\(\?|\[|.", re.DOTALL)


def pattern_lines(table: RuleTable, unrouted_to: str | None) -> list[str]:
    """Return the lines of the table, [] if it needs none; raises AliasError."""
    table = table.enforced()
    lines: list[str] = []
    for rule in table.rules:
        for pattern in rule.match if diverts(rule) else ():
            end = (
                _result(mailbox_of(rule, unrouted_to)) if isinstance(pattern, Glob | Regex) else ""
            )
            if isinstance(pattern, Glob):
                lines += [f"{each}  {end}" for each in _glob(pattern, table.recipient_delimiter)]
            elif isinstance(pattern, Regex) and (expression := posix(pattern)):
                lines.append(f"/^({expression})$/  {end}")
    if not lines:
        return []
    kept = [f"/^{_escaped(each)}$/  {_result(each)}" for each in _kept(table)]
    return [HEADING, f"if !{_spared(table.recipient_delimiter)}", *kept, *lines, "endif"]


def posix(pattern: Regex) -> str | None:
    """Return an expression as regexp_table(5) and pcre_table(5) understand it alike, or None."""
    source = pattern.source[1:-1]
    parts = [_posix(part) for part in _TOKEN.findall(source)]
    whole = "".join(part for part in parts if part is not None)
    return whole if source.isascii() and None not in parts else None


def _posix(part: str) -> str | None:
    """Return one part of RE2 in POSIX's syntax, None if that has nothing of the kind."""
    if part == "(?:":
        return "("
    if len(part) > 1 and part[0] == "[":
        return _bracket(part)
    if part[0] == "\\":
        if part[1] in _CLASSES:
            return f"[{_CLASSES[part[1]]}]"
        return None if part[1].isalnum() else _escaped(part[1])
    if len(part) > 1 or part == "[":  # a lazy quantifier, a flag, a class of another kind
        return None
    return "\\/" if part == "/" else part


def _bracket(part: str) -> str | None:
    inside = re.sub(r"\\([dw.@_+])", lambda found: _CLASSES.get(found[1], found[1]), part)
    return None if "\\" in inside else inside


def _glob(pattern: Glob, delimiters: str) -> Iterator[str]:
    if not all(piece.isascii() for piece in pattern.pieces):
        return
    pieces = [_escaped(piece) for piece in pattern.pieces]
    for domain in map(_escaped, scripts(pattern.domain)):
        yield f"/^{'.*'.join(pieces)}@{domain}$/"
        if delimiters and not set(delimiters) & set("".join(pattern.pieces)):
            before = f"[^{_class(delimiters)}]*".join(pieces)
            yield f"/^{before}[{_class(delimiters)}].*@{domain}$/"


def _kept(table: RuleTable) -> Iterator[str]:
    """Yield the addresses that a pattern takes and that belong to somebody before it."""
    if any(rule.apply_to is ApplyTo.UNKNOWN for rule in table.rules):
        yield from sorted(table.known)
    for rule in table.rules:
        if not diverts(rule):
            yield from (each for each in exact(rule) if each not in table.known)


def _spared(delimiters: str) -> str:
    names = "|".join(sorted(addresses.PROTECTED))
    prefixes = "|".join(_escaped(each) for each in addresses.PROTECTED_PREFIXES)
    extension = f"([{_class(delimiters)}].*)?" if delimiters else ""
    return f"/^(({names}){extension}@|{prefixes})/"


def _class(characters: str) -> str:
    """Return characters for a bracket expression, where only "-" and "^" are special."""
    first = "".join(each for each in characters if each not in "-^/")
    slash = r"\/" if "/" in characters else ""
    return first + slash + ("^" if "^" in characters else "") + ("-" if "-" in characters else "")


def _escaped(text: str) -> str:
    return "".join(f"\\{each}" if each in _SPECIAL else each for each in text)


def _result(address: str) -> str:
    """Return an address as the result of a pattern, where "$" begins a group."""
    return addresses.written(address).replace("$", "$$")
