"""What a spam filter has to be told, where mail without a verdict is held up or left."""

from pathlib import Path

import pytest

from crm_milter.config.load import parse
from crm_milter.postfix.checks.verdicts import warnings

AMAVIS = "etc/amavis/conf.d/50-user"
RSPAMD = "etc/rspamd/local.d/milter_headers.conf"


def told(root: Path, spam: str) -> list[str]:
    return list(warnings(parse(f"spam: {spam}\n", root / "c.yaml").policy, root))


@pytest.mark.parametrize("action", ["tempfail", "leave"])
@pytest.mark.parametrize("name", ["amavis", "rspamd-headers"])
def test_a_filter_that_does_not_mark_all_ham(tmp_path: Path, name: str, action: str) -> None:
    (message,) = told(tmp_path, f"{{filter: {name}, no_verdict: {action}}}")
    assert message.startswith("spam.no_verdict: ")
    assert f'"{action}"' in message


@pytest.mark.parametrize(
    "spam",
    [
        "amavis",
        "{filter: rspamd-headers}",
        "{filter: spamassassin, no_verdict: tempfail}",
        "{filter: [bogofilter, dspam], no_verdict: leave}",
    ],
)
def test_nothing_is_told_where_silence_is_ham_or_the_filter_marks_all(
    tmp_path: Path, spam: str
) -> None:
    assert told(tmp_path, spam) == []


@pytest.mark.parametrize(
    ("name", "file", "text", "right"),
    [
        ("amavis", AMAVIS, "$sa_tag_level_deflt = undef;\n", True),
        ("amavis", AMAVIS, "use strict;\n  $sa_tag_level_deflt=-999;  # all\n1;\n", True),
        ("amavis", "etc/amavisd.conf", "$sa_tag_level_deflt = undef;\n", True),
        ("amavis", AMAVIS, "$sa_tag_level_deflt = 2.0;\n", False),
        ("amavis", AMAVIS, "#$sa_tag_level_deflt = undef;\n", False),
        ("amavis", AMAVIS, "$sa_tag2_level_deflt = undef;\n", False),
        ("rspamd-headers", RSPAMD, "skip_local = false;\nskip_authenticated = false;\n", True),
        ("rspamd-headers", RSPAMD, "skip_local = false;\n", False),
        ("rspamd-headers", RSPAMD, "# skip_local = false;\nskip_authenticated = no\n", False),
        ("rspamd-headers", "etc/rspamd/x.conf", "skip_local = false; skip_auth = no", False),
    ],
)
def test_its_own_configuration_may_say_so(
    tmp_path: Path, name: str, file: str, text: str, right: bool
) -> None:
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text(text)
    assert (told(tmp_path, f"{{filter: {name}, no_verdict: tempfail}}") == []) is right
