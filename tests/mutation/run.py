"""run.py [MODULE...] [TESTS.py...]: changes the pure modules in one place at a time, and lists what
no test of tests/pure, or of the files named, notices. Ends with 1 if a change survives that
explained.txt has no reason for.

The tests run once, to learn which functions each calls and how long it takes. Then every change
gets a process of its own, forked from this one, where the code of the changed function takes the
place of the one in memory, and the tests that call it run, the fastest first, until one fails. What
survives, and what stands outside functions, is judged once more in a new interpreter.
"""

import gc
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import defaultdict
from functools import _lru_cache_wrapper
from pathlib import Path
from types import CodeType, FunctionType

import pytest
from _pytest.runner import runtestprotocol
from mutants import Mutant, mutants

HERE = Path(__file__).parent
TOP = HERE.parents[1]
PACKAGE = TOP / "milter" / "crm_milter"
MODULES = [
    "routing/decide", "routing/edits", "rules/table", "address", "rules/pattern", "rules/rule",
    "rules/wildcards", "rules/conditions", "rules/template", "rules/flood", "rules/senderset",
    "rules/fence", "rules/strangers", "rules/fieldpattern", "rules/moment", "routing/decision",
    "routing/facts", "routing/loopguard", "routing/marker", "routing/authors", "routing/cases",
    "routing/headerfields", "routing/structured", "routing/automatic", "routing/authentication",
    "routing/agreement", "routing/refusal", "routing/clients", "routing/floodguard",
    "routing/dead_letters", "headertext", "spam/verdict", "spam/own_filter", "spam/presets",
]  # fmt: skip
SLOW = 1.5  # s: tests that take longer measure time, or start programs; the others must do
LIMIT = 60  # s of processor time that a change may take; what loops has been noticed
AT_ONCE = 2
SURVIVED, KILLED = 0, 1
NO_TESTS = pytest.ExitCode.NO_TESTS_COLLECTED
OPTIONS = ["-q", "--no-header", "-p", "no:timeout", "-o", "markers=timeout"]
TESTS = str(TOP / "tests" / "pure")


def path_of(module: str) -> Path:
    return PACKAGE / f"{module}.py"


class Steady:
    """What both plugins do: let hypothesis try the same examples each time."""

    def pytest_configure(self, config: pytest.Config) -> None:
        from hypothesis import settings

        settings.register_profile("mutation", database=None, derandomize=True, deadline=None)
        settings.load_profile("mutation")


class Profile(Steady):
    """The plugin that learns what each test calls, and then judges the changes."""

    def __init__(self, modules: list[str]) -> None:
        self.modules = modules
        self.calls: dict[tuple[str, int], set[str]] = defaultdict(set)
        self.taken: dict[str, float] = {}
        self.unexplained = 0

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        if session.testsfailed:
            raise session.Interrupted("a file of tests cannot be read")
        files = {str(path_of(module)) for module in self.modules}
        self.items = {item.nodeid: item for item in session.items}
        for name, item in self.items.items():
            called = set()

            def note(frame, event, argument, called=called):
                if event == "call" and frame.f_code.co_filename in files:
                    called.add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

            began = time.process_time()
            sys.setprofile(note)
            passed = all(report.passed for report in self.run(item))
            sys.setprofile(None)
            self.taken[name] = time.process_time() - began
            if passed and self.taken[name] < SLOW:
                for each in called:
                    self.calls[each].add(name)
            else:
                print(f"{name} is left out: {self.taken[name]:.1f} s", file=sys.stderr)
        for module in self.modules:
            self.judge(module)
        return True

    def run(self, item: pytest.Item) -> list[pytest.TestReport]:
        item._initrequest()
        return runtestprotocol(item, nextitem=None, log=False)

    def tests(self, path: Path, line: int | None) -> list[str]:
        """Return the tests that call a function, or any of a module's, the fastest first."""
        found = {
            name
            for (file, first), names in self.calls.items()
            if file == str(path) and line in (None, first)
            for name in names
        }
        return sorted(found, key=self.taken.__getitem__)

    def judge(self, module: str) -> None:
        path = path_of(module)
        every = list(mutants(path.read_text()))
        began = time.monotonic()
        made = mutants(path.read_text())
        alive = judged((self.in_memory(path, each) for each in made), len(every))
        named = [self.tests(path, each.line) or self.tests(path, None) for each in every]
        fresh = (afresh(module, number, named[number]) for number in alive)
        alive = [alive[each] for each in judged(fresh, len(alive))]
        known = explained(module)
        unknown = [each for each in alive if every[each][2:4] not in known.get(every[each][0], {})]
        self.unexplained += len(unknown)
        print(
            f"{module}: {len(every) - len(alive)} of {len(every)} noticed,"
            f" {len(alive) - len(unknown)} explained, {len(unknown)} not"
            f" ({time.monotonic() - began:.0f} s)"
        )
        for each in unknown:
            print(f"\n{module} {every[each][0]}\n- {every[each][2]}\n+ {every[each][3]}")
        sys.stdout.flush()

    def in_memory(self, path: Path, mutant: Mutant) -> int:
        """Return the process that judges a change of a function, put into memory."""
        names = self.tests(path, mutant.line) if mutant.line else []
        pid = os.fork()
        if pid:
            return pid
        _limited()
        # What survives here is judged again: an object made before the change may hide it.
        if names:
            replace(path, compile(mutant.tree, str(path), "exec"))
        for name in names:
            if any(report.failed for report in self.run(self.items[name])):
                os._exit(KILLED)
        os._exit(SURVIVED)


def _limited() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (LIMIT, LIMIT))
    signal.alarm(LIMIT * 20)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)


def judged(processes, number: int) -> list[int]:
    """Return the places, among so many processes, of those that ended well."""
    running: dict[int, int] = {}
    alive = []
    for place in range(number + AT_ONCE):
        if place < number:
            running[next(processes)] = place
        if running and (place >= number or len(running) == AT_ONCE):
            pid, status = os.wait()
            ended = running.pop(pid)
            if status == SURVIVED:
                alive.append(ended)
    return sorted(alive)


def replace(path: Path, changed: CodeType) -> None:
    """Give every function of a module the code that the changed module has for it."""
    codes = {(each.co_qualname, each.co_firstlineno): each for each in _codes(changed)}
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and each.__code__.co_filename == str(path):
            code = codes.get((each.__code__.co_qualname, each.__code__.co_firstlineno))
            if code and code.co_freevars == each.__code__.co_freevars:
                each.__code__ = code
        elif isinstance(each, _lru_cache_wrapper):
            each.cache_clear()


def _codes(code: CodeType):
    yield code
    for each in code.co_consts:
        if isinstance(each, CodeType):
            yield from _codes(each)


def afresh(module: str, number: int, names: list[str]) -> int:
    """Return the process that judges a change in a new interpreter."""
    asked = json.dumps({"module": module, "number": number, "names": names})
    process = subprocess.Popen(
        [sys.executable, __file__, "--fresh"], stdin=subprocess.PIPE, preexec_fn=_limited
    )
    process.stdin.write(asked.encode())
    process.stdin.close()
    process.returncode = 0  # os.wait reaps it
    return process.pid


class Fresh(Steady):
    """The plugin of a new interpreter, which imports one module with a change."""

    def __init__(self, module: str, number: int, names: list[str]) -> None:
        self.names = {name: place for place, name in enumerate(names)}
        self.path = path_of(module)
        self.name = f"crm_milter.{module.replace('/', '.')}"
        for place, mutant in enumerate(mutants(self.path.read_text())):
            if place == number:
                self.code = compile(mutant.tree, str(self.path), "exec")
                break

    def find_spec(self, name, path=None, target=None):
        from importlib.util import spec_from_file_location

        return spec_from_file_location(name, self.path, loader=self) if name == self.name else None

    def create_module(self, spec):
        return None

    def exec_module(self, module):
        exec(self.code, module.__dict__)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.names:
            items[:] = [item for item in items if item.nodeid in self.names]
            items.sort(key=lambda item: self.names[item.nodeid])


def explained(module: str) -> dict[str, set[tuple[str, str]]]:
    """Return the changes that explained.txt gives a reason for, by function."""
    known: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for block in (HERE / "explained.txt").read_text().split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if lines and lines[0].split()[0] == module:
            before, after, reason = lines[1], lines[2], " ".join(lines[3:])
            if before[:2] != "- " or after[:2] != "+ " or not reason:
                sys.exit(f"run.py: explained.txt: not a change with its reason:\n{block}")
            known[lines[0].split()[1]].add((before[2:], after[2:]))
    return known


def main(arguments: list[str]) -> int:
    if arguments == ["--fresh"]:
        fresh = Fresh(**json.load(sys.stdin))
        sys.meta_path.insert(0, fresh)
        files = sorted({str(TOP / name.partition("::")[0]) for name in fresh.names})
        ended = pytest.main([*OPTIONS, "-x", *(files or [TESTS])], plugins=[fresh])
        # Where no test could run, nothing was noticed.
        return SURVIVED if ended in (0, pytest.ExitCode.USAGE_ERROR, NO_TESTS) else KILLED
    tests = [each for each in arguments if each.endswith(".py")]
    modules = [each for each in arguments if each not in tests]
    unknown = set(modules) - set(MODULES)
    if unknown:
        sys.exit(f"run.py: not a pure module: {', '.join(sorted(unknown))}")
    profile = Profile(modules or MODULES)
    ended = pytest.main([*OPTIONS, "--capture=sys", *(tests or [TESTS])], plugins=[profile])
    return int(ended not in (0, NO_TESTS) or profile.unexplained > 0)


if __name__ == "__main__":
    os.chdir(TOP)
    sys.exit(main(sys.argv[1:]))
