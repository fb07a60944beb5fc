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
from crm_milter.metrics.collector import Seen
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
_COUNTED = (("rules_in_use", "rule"), ("workers", "worker"))
_STYLE = """
:root{color-scheme:light dark}
body{font:16px/1.5 system-ui,sans-serif;margin:1rem auto;max-width:70rem;padding:0 1rem}
h1{font-size:1.4rem}.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%}
th,td{padding:.4rem .6rem;text-align:left;border-bottom:1px solid #8886;white-space:nowrap}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}td:first-child,td:nth-child(2){white-space:normal;overflow-wrap:anywhere;min-width:6rem}
.bad{color:#c00;font-weight:bold}
"""


def data(seen: Seen) -> dict[str, Any]:
    """Return what is in force."""
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


def as_json(seen: Seen) -> bytes:
    """Return it for programs."""
    return json.dumps(data(seen), indent=1).encode() + b"\n"


def html(seen: Seen) -> bytes:
    """Return it for a person."""
    found = data(seen)
    return "\n".join(_lines(found)).encode() + b"\n"


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>crm-milter</title>\n<style>{_STYLE}</style>\n</head>\n<body>"
    yield f"<h1>crm-milter {escape(found['version'])}</h1>"
    rules, workers = (counted(found[each], what) for each, what in _COUNTED)
    yield f"<p>{rules}, {workers}, in force since {found['since']},"
    yield f"file {escape(found['sha256'][:12])}</p>"
    for line in _warnings(found):
        yield f'<p class="bad">{line}</p>'
    yield '<div class="scroll"><table>\n<thead><tr><th>Rule</th><th>Mode</th>'
    yield "".join(f'<th class="n">{name}</th>' for name in _COLUMNS)
    yield "<th>Last rerouted</th><th>Conditions</th></tr></thead>\n<tbody>"
    yield from map(_row, found["rules"])
    yield '</tbody></table></div>\n<p><a href="/metrics">metrics</a> <a href="/healthz">health</a>'
    yield '<a href="/rules">rules as JSON</a></p>\n</body>\n</html>'


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
