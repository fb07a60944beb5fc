"""What is in force, for ``crm-milter rules --running`` and for a person with a browser: no address.

The first 1,000 rules are shown, and those that had mail.
"""

import json
import time
from collections.abc import Iterator
from html import escape
from typing import Any

from crm_milter import __version__
from crm_milter.config.paused import Pause
from crm_milter.metrics.catalogue import (
    LAST_GOOD,
    LAST_REROUTED,
    RECIPIENTS,
    RELOAD_GOOD,
    RELOADED_AT,
    RULES,
    WORKERS,
)
from crm_milter.metrics.collector import Snapshot
from crm_milter.metrics.memory import Known
from crm_milter.wording import counted

_MISSING = "removed"  # the mode of a rule that is not in use any more
# Outcomes of recipients by column of the page.
_COLUMNS = {
    "Rerouted": ("replaced",),
    "Copied": ("kept_with_copies",),
    "Left": tuple(each for each in RECIPIENTS.values if each.startswith("left_")),
    "Refused": ("rejected", "tempfailed"),
    "Held": ("quarantined",),
    "Test": ("test",),
}
_HEADINGS = ("Rule", "Mode", *_COLUMNS, "Last rerouted", "Conditions")
_COUNTED = (("rules_in_use", "rule"), ("workers", "worker"))
_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;margin:1rem auto;max-width:75rem;padding:0 1rem}
h1{font-size:1.4rem}table{border-collapse:collapse;width:100%}
th,td{padding:.4rem .6rem;text-align:left;border-bottom:1px solid #8886;vertical-align:top}
h1,p,td:first-child,td:last-child{overflow-wrap:anywhere}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
.bad{color:#c00;font-weight:bold}
"""
# A table of so many columns does not fit a phone: there each rule is a block of lines, and what a
# cell is stands before it.
_NARROW = """thead{display:none}tr,td{display:block}
tr{border-bottom:1px solid #8886;padding:.4rem 0}td,td.n{border:0;padding:0;text-align:left}
td:first-child{font-weight:bold}td.n{display:inline-block;margin-right:1rem}
"""


def data(seen: Snapshot) -> dict[str, Any]:
    state, known = seen.state, {rule.name: rule for rule in seen.state.rules}
    return {
        "version": __version__,
        "sha256": state.digest,
        "sha256_of_all_files": state.digest_of_all,
        "since": _time(state[RELOADED_AT]),
        "last_reload_successful": bool(state[RELOAD_GOOD]),
        "serves_last_good": bool(state[LAST_GOOD]),
        "workers": int(state[WORKERS]),
        "rules_in_use": int(state[RULES]),
        "rules": [
            _rule(known.get(name, Known(name, _MISSING, ())), cells, seen.pauses.get(name))
            for name, cells in seen.rules()
        ],
    }


def _rule(rule: Known, cells: list[float], pause: Pause | None) -> dict[str, Any]:
    counts = {each: int(cells[RECIPIENTS.cell(each)]) for each in RECIPIENTS.values}
    last = cells[LAST_REROUTED.first]
    return {
        "name": rule.name,
        "mode": rule.mode,
        "paused_until": _time(pause.until) if pause else None,
        "conditions": list(rule.conditions),
        "recipients": {name: count for name, count in counts.items() if count},
        "last_rerouted": _time(last) if last else None,
    }


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def as_json(seen: Snapshot) -> bytes:
    """Return it for programs."""
    return json.dumps(data(seen), indent=1).encode() + b"\n"


def html(seen: Snapshot) -> bytes:
    """Return it for a person."""
    found = data(seen)
    return "\n".join(_lines(found)).encode() + b"\n"


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>crm-milter</title>\n<style>{_STYLE}</style>"
    yield f'<style media="(max-width: 60rem)">{_narrow()}</style>\n</head>\n<body>'
    yield f"<h1>crm-milter {escape(found['version'])}</h1>"
    rules, workers = (counted(found[each], what) for each, what in _COUNTED)
    yield f"<p>{rules}, {workers}, in force since {found['since']},"
    yield f"file {escape(found['sha256'][:12])}</p>"
    for line in _warnings(found):
        yield f'<p class="bad">{line}</p>'
    yield "<table>\n<thead><tr>"
    yield "".join(
        f'<th class="n">{name}</th>' if name in _COLUMNS else f"<th>{name}</th>"
        for name in _HEADINGS
    )
    yield "</tr></thead>\n<tbody>"
    yield from map(_row, found["rules"])
    yield '</tbody></table>\n<p><a href="/metrics">metrics</a> <a href="/healthz">health</a>'
    yield '<a href="/rules">rules as JSON</a></p>\n</body>\n</html>'


def _narrow() -> str:
    labels = (
        f'td:nth-child({number})::before{{content:"{name}: "}}'
        for number, name in enumerate(_HEADINGS[1:], 2)
    )
    return f"{_NARROW}{''.join(labels)}"


def _warnings(found: dict[str, Any]) -> Iterator[str]:
    if found["serves_last_good"]:
        yield "The file was invalid at the start: the last good configuration is served."
    elif not found["last_reload_successful"]:
        yield "The last reload failed: the previous rules are in use."


def _row(rule: dict[str, Any]) -> str:
    counts = rule["recipients"]
    columns = (sum(counts.get(each, 0) for each in names) for names in _COLUMNS.values())
    until = rule["paused_until"]
    mode = f'<b class="bad">paused until {until}</b>' if until else escape(rule["mode"])
    cells = [f"<td>{escape(rule['name'])}</td><td>{mode}</td>"]
    cells += [f'<td class="n">{count}</td>' for count in columns]
    cells += [f"<td>{rule['last_rerouted'] or '-'}</td>"]
    cells += [f"<td>{escape(', '.join(rule['conditions'])) or '-'}</td>"]
    return f"<tr>{''.join(cells)}</tr>"
