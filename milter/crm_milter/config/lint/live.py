"""What is wrong in tables that are asked for each address: their rows, read one after the other.

Rows come and go while the configuration stays, so a bad one is a warning, and the daemon does not
read them all when it starts.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from crm_milter import address as addresses
from crm_milter.config.lint.loops import reroutable
from crm_milter.config.problems import Problem, Severity
from crm_milter.rules.rule import TableError
from crm_milter.rules.table import RuleTable
from crm_milter.tables import columns
from crm_milter.tables.live import Live, spellings
from crm_milter.wording import why


def warnings(table: RuleTable) -> Iterator[Problem]:
    """Yield what is wrong in the tables of these rules."""
    enforced = table.enforced()
    known = reroutable(rule for rule in enforced.rules)
    for rule in table.rules:
        live = rule.address_map.live if rule.address_map else None
        if isinstance(live, Live):
            for message in _Table(live, enforced, known).problems():
                yield Problem(str(live.path), 0, "", message, Severity.WARNING)


@dataclass(slots=True)
class _Finding:
    """One kind of bad row: the first of them, and how many there are."""

    first: str = ""
    count: int = 0

    def add(self, text: str) -> None:
        self.first = self.first or text
        self.count += 1

    def __str__(self) -> str:
        more = f" (and {self.count - 1} more rows like this)" if self.count > 1 else ""
        return f"{self.first}{more}"


class _Table:
    """One table, whose rows are looked at."""

    def __init__(self, live: Live, enforced: RuleTable, known: frozenset[str] | None) -> None:
        self._live = live
        self._enforced = enforced
        self._known = known
        self._tables = [each for each in enforced.live() if isinstance(each, Live)]
        self._keys, self._targets, self._loops = _Finding(), _Finding(), _Finding()
        self._outside = _Finding()

    def problems(self) -> Iterator[str]:
        """Yield them, the worst first."""
        rows = 0
        try:
            if not self._live.is_indexed():
                yield (
                    "a look-up reads the whole table; run: CREATE INDEX routes_address ON routes"
                    " (address COLLATE NOCASE)"
                )
            for key, target in self._live.rows():
                rows += 1
                self._row(key, target)
        except (OSError, TableError) as error:
            yield why(error) if isinstance(error, OSError) else str(error)
            return
        if not rows:
            yield 'the table "routes" has no rows'
        for finding in (self._loops, self._targets, self._keys, self._outside):
            if finding.count:
                yield str(finding)

    def _row(self, key: str, value: str) -> None:
        try:
            normal = columns.key(key)
        except addresses.AddressError as error:
            self._keys.add(f'the row "{key}" never matches: {error}')
            return
        domain = addresses.domain_of(normal)
        if _lower(key) not in spellings(normal):
            self._keys.add(f'the row "{key}" never matches; write "{normal}"')
        if self._live.fence is not None and domain not in self._live.fence:
            self._outside.add(f'the row "{key}" never matches: its domain is outside the include')
        try:
            targets = columns.targets(value)
        except addresses.AddressError as error:
            self._targets.add(f'mail for "{key}" is left (no_target): {error}')
            return
        for target in targets:
            self._loop(key, target)

    def _loop(self, key: str, target: str) -> None:
        normal = addresses.normalise(target)
        domain = addresses.domain_of(normal)
        if (
            self._known is not None
            and domain not in self._known
            and not any(domain in each.domains for each in self._tables)
        ):
            return
        for match in self._enforced.possible(normal):
            if match.rule.replaces:
                self._loops.add(
                    f'the target "{target}" of "{key}" is matched by rule "{match.rule.name}" (a'
                    " loop)"
                )
                return


def _lower(text: str) -> str:
    """Return text as SQLite compares it (NOCASE): only the case of ASCII letters is the same."""
    return text.encode("utf-8", "surrogateescape").lower().decode("utf-8", "surrogateescape")
