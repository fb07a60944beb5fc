"""Tests that could not fail prove nothing: with each of these defects, one that is named does.

Each defect is made in a copy of the package, which the tests named beside it then import in place
of the real one. All are fast ones: tables in memory, or the wire; no Postfix is needed. With the
real package the same tests pass, as the run of all tests shows.
"""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Defect:
    """The test that must notice, and texts of the package to replace, each by another."""

    test: str
    replacements: tuple[tuple[str, str], ...]


_ADDS = (
    "    for address, parameters in resolution.additions:\n"
    "        ctx.addrcpt(address, parameters)\n"
)
_DELETES = "    for raw in decision.remove:\n        ctx.delrcpt(raw)\n"
_ROUTING, _EDITS = "tests/pure/test_routing.py::", "tests/pure/test_invariants.py::"
_MESSAGES = "tests/wire/test_wire_messages.py::"
DEFECTS = {
    "delrcpt before addrcpt": Defect(
        _MESSAGES + "test_every_addition_comes_before_every_removal",
        ((_ADDS + _DELETES, _DELETES + _ADDS),),
    ),
    "a lower-cased delrcpt": Defect(
        "tests/wire/test_wire_hostile.py::test_a_spelling_without_the_macro",
        (("ctx.delrcpt(raw)", "ctx.delrcpt(raw.lower())"),),
    ),
    "the state is not reset": Defect(
        _MESSAGES + "test_a_message_that_was_given_up_leaves_nothing",
        (
            ("self._message = Message(", "self._message = self._message or Message("),
            ("            self._message = None\n            self._tally.aborted()",
             "            self._tally.aborted()"),
        ),
    ),
    "NO cancels YES": Defect(
        _ROUTING + "test_a_forged_ham_does_not_cancel_spam",
        (("        if self._spam:\n", "        if self._spam and not self._ham:\n"),),
    ),
    "what is in the envelope is added again": Defect(
        _ROUTING + "test_a_target_that_is_in_the_envelope_is_not_added",
        ((" for each in sorted(wanted) if each not in present]", " for each in sorted(wanted)]"),),
    ),
    "two cases of one target are two": Defect(
        _EDITS + "test_adds_are_single_new_and_disjoint_from_removes",
        (("normal = key(addition.address)",
          "normal = addition.address + ' ' * (len(wanted) % 7)"),),
    ),
    "what all recipients discard is not": Defect(
        _ROUTING + "test_reject_and_quarantine_act_only_if_all_recipients_come_to_it",
        (("if discarded == len(envelope.recipients):", "if False:"),),
    ),
    "an envelope may become empty": Defect(
        "tests/pure/test_edits.py::test_the_last_recipient_is_never_removed",
        (("    if not add and not staying:\n", "    if False:\n"),),
    ),
    "a fault at the end is accepted": Defect(
        "tests/wire/test_wire_faults.py::test_fault_at_the_end_of_the_message",
        (("            return self._fail(ctx, message)\n        return answer",
          "            return milter.ACCEPT\n        return answer"),),
    ),
    "a fault at a recipient is forgotten": Defect(
        "tests/wire/test_wire_faults.py::test_fault_at_a_recipient",
        (("                message.fault = True\n", ""),),
    ),
    "a drain without grace": Defect(
        "tests/processes/test_stop.py::test_a_second_signal_ends_it_at_once",
        (("    while not is_idle(ours):", "    while False:"),),
    ),
    "the marker is not looked for": Defect(
        _ROUTING + "test_loops_are_left",
        (("        if self._guard.has_passed(rule):\n", "        if False:\n"),),
    ),
    "NOTIFY=SUCCESS is passed on": Defect(
        _ROUTING + "test_notify_never_passes_on_what_would_show_the_target",
        (('else "NOTIFY=FAILURE"', 'else "NOTIFY=SUCCESS,FAILURE"'),),
    ),
    "others see the marker": Defect(
        _EDITS + "test_nothing_is_added_to_the_header_that_an_outsider_sees",
        (("ours_alone = bool(wanted) and present <= wanted.keys()", "ours_alone = True"),),
    ),
    "each recipient refuses for all": Defect(
        _ROUTING + "test_reject_and_quarantine_act_only_if_all_recipients_come_to_it",
        (("agreed = len(fates) == 1 and len(wished) == recipients",
          "agreed = True"),),
    ),
}  # fmt: skip


def _mutated(defect: Defect, folder: Path) -> Path:
    """A copy of the package with the defect; it must still be the code that the defect is of."""
    copy = folder / "crm_milter"
    shutil.copytree(ROOT / "milter" / "crm_milter", copy, ignore=shutil.ignore_patterns("*.pyc"))
    modules = [*copy.rglob("*.py")]
    for old, new in defect.replacements:
        found = [each for each in modules if old in each.read_text()]
        assert len(found) == 1, f"{old!r} is in {len(found)} modules: write this defect anew"
        text = found[0].read_text()
        assert text.count(old) == 1, f"{old!r} is there several times: write this defect anew"
        found[0].write_text(text.replace(old, new))
    return folder


def _tested(name: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What pytest says of the test with the defect."""
    folder.mkdir()
    before = os.environ.get("PYTHONPATH")
    path = ":".join(filter(None, [str(_mutated(DEFECTS[name], folder)), before]))
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "--timeout", "60", DEFECTS[name].test],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture(scope="module")
def tested(tmp_path_factory):
    """Call it with a name: the tests of all defects run by twos meanwhile."""
    folder = tmp_path_factory.mktemp("defects")
    with ThreadPoolExecutor(2) as pool:
        running = {
            name: pool.submit(_tested, name, folder / str(number))
            for number, name in enumerate(DEFECTS)
        }
        yield lambda name: running[name].result()


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_noticed(name, tested, record_property):
    done = tested(name)
    # 1: a test has failed. All else would be a mistake of ours, such as a test that is not there.
    assert done.returncode == 1, done.stdout + done.stderr
    failed = re.search(r"(?m)^FAILED (\S+)", done.stdout)
    assert failed, done.stdout
    record_property("noticed by", failed[1])
