"""Spam filters that mark ham, but not all of it unless their own configuration says so.

Matters where mail without a verdict is held up or left. Where the filter runs on another host,
its configuration cannot be read, and what it would have to say is told.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from crm_milter.routing.decide import NoVerdict, Policy


@dataclass(frozen=True, slots=True)
class _Silence:
    """Where a filter is configured, what it has to say there, and what happens otherwise."""

    files: tuple[str, ...]
    needed: tuple[re.Pattern[str], ...]
    message: str


def _line(text: str) -> re.Pattern[str]:
    return re.compile(rf"(?m)^\s*{text}\s*;?")


# Amavis: amavisd.conf-default; rspamd: the documentation of its module milter_headers.
_FILTERS = {
    "amavis": _Silence(
        ("etc/amavis/conf.d/*", "etc/amavisd/amavisd.conf", "etc/amavisd.conf"),
        (_line(r"\$sa_tag_level_deflt\s*=\s*(?:undef|-[0-9.]+)"),),
        'amavis does not mark ordinary ham unless its configuration has "$sa_tag_level_deflt ='
        ' undef;"',
    ),
    "rspamd-headers": _Silence(
        ("etc/rspamd/local.d/milter_headers.conf", "etc/rspamd/override.d/milter_headers.conf"),
        (
            _line(r"skip_local\s*=\s*(?:false|no|off)"),
            _line(r"skip_authenticated\s*=\s*(?:false|no|off)"),
        ),
        "rspamd does not mark mail of local and authenticated clients unless"
        ' milter_headers.conf has "skip_local = false;" and "skip_authenticated = false;"',
    ),
}


def warnings(policy: Policy, root: Path = Path("/")) -> Iterator[str]:
    """Yield what to look at where mail without a verdict is not routed."""
    if policy.no_verdict is NoVerdict.ROUTE:
        return
    for each in policy.filters:
        silence = _FILTERS.get(each.name)
        if silence and not _is_told(silence, root):
            yield (
                f'spam.no_verdict: {silence.message}: such mail has no verdict, and "'
                f'{policy.no_verdict.value}" applies to it'
            )


def _is_told(silence: _Silence, root: Path) -> bool:
    text = "\n".join(
        path.read_text("utf-8", "replace")
        for pattern in silence.files
        for path in sorted(root.glob(pattern))
        if _is_readable(path)
    )
    return all(each.search(text) for each in silence.needed)


def _is_readable(path: Path) -> bool:
    try:
        with path.open("rb"):
            return path.is_file()
    except OSError:
        return False
