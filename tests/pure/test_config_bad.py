"""Bad files are refused, each for its own reason: the complete list of problems is expected.

A file in ``bad`` says in its first lines what is expected of it: ``# expect: LINE: KEY: MESSAGE``,
with ``files/NAME:`` before it where the problem is in a file that it names.
"""

from pathlib import Path

import pytest

from crm_milter.config.load import load
from crm_milter.config.problems import ConfigError, Severity

BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))
MARK = "# expect: "


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_bad_file_is_refused_for_its_reason(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    expected = [line.removeprefix(MARK) for line in lines if line.startswith(MARK)]
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert [seen_from(path, str(each)) for each in caught.value.problems] == expected
    assert any(each.severity is Severity.ERROR for each in caught.value.problems)


def seen_from(path: Path, problem: str) -> str:
    return problem.replace(f"{path.parent}/", "").removeprefix(f"{path.name}:").lstrip()


def test_the_folder_is_there() -> None:
    assert len(BAD) > 90
