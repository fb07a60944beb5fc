"""RE2 as an extension module: found late, and asked in a thread of its own if it has to be."""

import signal
import sys
import threading

import pytest

from crm_milter.rules import regexes


@pytest.fixture
def own_thread(monkeypatch):
    """What serve_callbacks() makes of a module that checks the thread state."""
    assert regexes.module() is not None
    monkeypatch.setattr(regexes, "_ask", regexes._ask)
    monkeypatch.setattr(regexes, "checks_thread_state", lambda _: True)
    regexes.serve_callbacks()


def test_a_module_that_is_installed_later_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "re2", raising=False)
    assert regexes.module() is None
    (tmp_path / "re2.py").write_text("error = ValueError\n")
    assert regexes.module() is not None
    del sys.modules["re2"]


@pytest.mark.usefixtures("own_thread")
def test_questions_are_answered_in_another_thread_with_all_signals_blocked():
    name = regexes.ask(lambda: threading.current_thread().name)
    blocked = regexes.ask(signal.pthread_sigmask, signal.SIG_BLOCK, ())
    assert name == "re2"
    assert {signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1} <= blocked
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.usefixtures("own_thread")
def test_errors_reach_the_caller_and_the_next_question_is_answered():
    with pytest.raises(ZeroDivisionError):
        regexes.ask(lambda: 1 // 0)
    assert regexes.ask(max, 1, 2) == 2


def test_a_build_with_assertions_is_told_from_one_without(tmp_path, monkeypatch):
    module = type(sys)("extension")
    for content, checks in ((b"..PyGILState_Check\0..", True), (b"..PyGILState_Ensure\0", False)):
        module.__file__ = str(tmp_path / "extension.so")
        (tmp_path / "extension.so").write_bytes(content)
        assert regexes.checks_thread_state(module) is checks
